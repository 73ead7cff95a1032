//! Server-sent events out of bytes that come in pieces of any size.
//!
//! The format: <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>. Of an event
//! only its data is of interest here.

use std::{collections::VecDeque, mem};

use super::error::UpstreamError;

/// What has arrived of a stream. No `Debug`: it holds text.
pub(super) struct EventBuffer {
    /// The most that an event may have, its field names included.
    limit_bytes: usize,
    /// The line that is not complete.
    line: Vec<u8>,
    /// Data lines of the event that is not complete.
    data: Option<Vec<u8>>,
    complete: VecDeque<String>,
}

impl EventBuffer {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, line: Vec::new(), data: None, complete: VecDeque::new() }
    }

    /// Data of the next event that is complete.
    pub(super) fn pop(&mut self) -> Option<String> {
        self.complete.pop_front()
    }

    /// Takes what the connection gave. An event that the end of the stream cuts off is never complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let held = self.line.len().saturating_add(self.data.as_ref().map_or(0, Vec::len));
            if held.saturating_add(piece.len()) > self.limit_bytes {
                return Err(UpstreamError::TooLarge { limit_bytes: self.limit_bytes });
            }
            self.line.extend_from_slice(piece);
            if let Some(line) = self.line.strip_suffix(b"\n") {
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_owned();
                self.line.clear();
                self.take(&line)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), UpstreamError> {
        if line.is_empty() {
            if let Some(data) = mem::take(&mut self.data) {
                self.complete.push_back(String::from_utf8(data).map_err(|_| UpstreamError::NotUtf8)?);
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        // Comments, with which servers keep connections open, and other fields.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(limit: usize, pieces: &[&[u8]]) -> Result<Vec<String>, UpstreamError> {
        let mut buffer = EventBuffer::new(limit);
        let mut events = Vec::new();
        for piece in pieces {
            buffer.push(piece)?;
            events.extend(std::iter::from_fn(|| buffer.pop()));
        }
        Ok(events)
    }

    #[test]
    fn data_is_taken_and_everything_else_passed_over() {
        let stream = b": ping\r\n\r\nevent: message\r\ndata: one\r\n\r\nid: 3\ndata:two\ndata:  lines\n\n\n\ndata\n\ndata: cut off\n";
        assert_eq!(read(100, &[stream]).unwrap(), ["one", "two\n lines"]);
    }

    #[test]
    fn event_may_fill_the_limit_and_not_exceed_it() {
        assert_eq!(read(9, &[b"data: 12\n\n"]).unwrap(), ["12"]);
        for pieces in
            [&[b"data: 123\n\n".as_slice()][..], &[b"data: 1", b"23\n\n"], &[b"data:1\n", b"data:2\n", b"data:3\n"]]
        {
            assert!(matches!(read(9, pieces), Err(UpstreamError::TooLarge { limit_bytes: 9 })));
        }
        // A line that never ends is given up before it does.
        let mut buffer = EventBuffer::new(1000);
        let fed = (0..1_000_000).take_while(|_| buffer.push(b"xxxxxxxxxx").is_ok()).count();
        assert_eq!(fed, 100);
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        assert!(matches!(read(100, &[b"data: \xff\n\n"]), Err(UpstreamError::NotUtf8)));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(texts in prop::collection::vec("[^\r\n]{0,20}", 1..6), cut in 1_usize..7) {
            let stream: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(cut).collect();
            prop_assert_eq!(read(1000, &pieces).unwrap(), texts);
        }
    }
}
