//! Which tokens a delivered text is made of, however long its parts were held back.

use std::collections::VecDeque;

use model::{Likelihood, Tokenizer};

/// A token as a client sees it. No `Debug`: it holds text.
pub(super) struct TextToken {
    /// What it adds to the text; may be a part of a character.
    pub(super) bytes: Vec<u8>,
    pub(super) logprob: f32,
    /// The likeliest tokens in its place.
    pub(super) likeliest: Vec<(Vec<u8>, f32)>,
    /// Characters of the completion before it.
    pub(super) offset: usize,
}

/// Tokens whose text is not delivered yet.
///
/// A token goes out with the piece of text that holds its last character. Text leaves the decoder in whole characters,
/// so the tokens of one character go out together.
pub(super) struct Attribution {
    tokenizer: Tokenizer,
    /// Of the text that left the decoder.
    decoded: Position,
    delivered_bytes: usize,
    pending: VecDeque<Pending>,
}

#[derive(Clone, Copy, Default)]
struct Position {
    bytes: usize,
    characters: usize,
}

struct Pending {
    token: TextToken,
    start_bytes: usize,
    /// Unknown while the decoder holds the token's text back.
    end_bytes: Option<usize>,
}

impl Attribution {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, decoded: Position::default(), delivered_bytes: 0, pending: VecDeque::new() }
    }

    /// A token, and the text that left the decoder with it.
    pub(super) fn token(&mut self, id: u32, likelihood: &Likelihood, text: &str) {
        let bytes = |id| self.tokenizer.token_bytes(id).unwrap_or_default();
        let token = TextToken {
            bytes: bytes(id),
            logprob: likelihood.chosen,
            likeliest: likelihood.likeliest.iter().map(|(id, logprob)| (bytes(*id), *logprob)).collect(),
            offset: self.decoded.characters,
        };
        self.pending.push_back(Pending { token, start_bytes: self.decoded.bytes, end_bytes: None });
        self.decoded(text);
    }

    /// Text that left the decoder.
    pub(super) fn decoded(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.decoded.bytes = self.decoded.bytes.saturating_add(text.len());
        self.decoded.characters = self.decoded.characters.saturating_add(text.chars().count());
        let end = self.decoded.bytes;
        self.pending.iter_mut().filter(|pending| pending.end_bytes.is_none()).for_each(|pending| {
            pending.end_bytes = Some(end);
        });
    }

    /// The tokens that go out with the next piece of text.
    pub(super) fn deliver(&mut self, piece: &str) -> Vec<TextToken> {
        self.delivered_bytes = self.delivered_bytes.saturating_add(piece.len());
        let delivered = self.delivered_bytes;
        self.take_while(|pending| pending.end_bytes.is_some_and(|end| end <= delivered))
    }

    /// The tokens that go out at the end: those without text, and of a text that was cut at a stop string the one that
    /// was cut.
    pub(super) fn finish(&mut self, cut: bool) -> Vec<TextToken> {
        let delivered = self.delivered_bytes;
        self.take_while(|pending| !cut || pending.start_bytes < delivered)
    }

    fn take_while(&mut self, goes: impl Fn(&Pending) -> bool) -> Vec<TextToken> {
        let count = self.pending.iter().take_while(|pending| goes(pending)).count();
        self.pending.drain(..count).map(|pending| pending.token).collect()
    }
}
