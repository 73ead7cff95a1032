//! The rows of a forward pass over several streams.

use super::{DecoderError, Stream};

/// New tokens of all streams, one stream after the other.
#[derive(Debug)]
pub(crate) struct StreamRows {
    /// Token of every row.
    pub(crate) ids: Vec<u32>,
    /// Its position in its stream.
    pub(crate) positions: Vec<usize>,
    /// Its stream.
    pub(crate) owner: Vec<usize>,
    /// Row of every stream's last token.
    pub(crate) last: Vec<usize>,
}

impl StreamRows {
    /// Lays the streams out. `held` gives the tokens that a stream's cache holds, and those that it can hold.
    ///
    /// # Errors
    /// When there is nothing to compute for a stream or at all, or a cache is too small.
    pub(crate) fn of<C>(
        streams: &[Stream<'_, C>],
        held: impl Fn(&Stream<'_, C>) -> (usize, usize),
    ) -> Result<Self, DecoderError> {
        let mut rows = Self { ids: Vec::new(), positions: Vec::new(), owner: Vec::new(), last: Vec::new() };
        for (index, stream) in streams.iter().enumerate() {
            let ((held, capacity), new) = (held(stream), stream.tokens.len());
            if new == 0 {
                return Err(DecoderError::Empty);
            }
            if held + new > capacity {
                return Err(DecoderError::TooLong { tokens: held + new, limit: capacity });
            }
            rows.ids.extend_from_slice(stream.tokens);
            rows.positions.extend(held..held + new);
            rows.owner.extend(std::iter::repeat_n(index, new));
            rows.last.push(rows.ids.len() - 1);
        }
        if rows.ids.is_empty() { Err(DecoderError::Empty) } else { Ok(rows) }
    }
}
