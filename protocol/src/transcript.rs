//! What a statement's hashes are over: the request as it was carried out, and the answer as it was delivered.

use alloy_primitives::{B256, Keccak256, keccak256};
const PROMPT: &[u8] = b"hallmark/prompt/v1";
const REQUEST: &[u8] = b"hallmark/request/v1";
const RESPONSE: &[u8] = b"hallmark/response/v1";

/// Digest of a templated prompt's token ids.
pub fn prompt_digest(ids: &[u32]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(PROMPT);
    for id in ids {
        hasher.update(id.to_be_bytes());
    }
    hasher.finalize()
}

/// Digest of an answer: the texts of its choices in order, as they were delivered.
pub fn response_hash<'a>(choices: impl IntoIterator<Item = &'a str>) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(RESPONSE);
    for text in choices {
        // A digest for each, so that no text can be moved from one choice to the next.
        hasher.update(keccak256(text));
    }
    hasher.finalize()
}

/// Digest of a request's record: everything that decides the answer, as the host gave it beside the statement. It is over the
/// text, byte by byte, so that nobody has to print a number as somebody else did.
pub fn request_hash(record: &str) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(REQUEST);
    hasher.update(record);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_move_between_choices() {
        assert_ne!(response_hash(["ab", "c"]), response_hash(["a", "bc"]));
        assert_ne!(response_hash(["", "a"]), response_hash(["a", ""]));
        assert_ne!(response_hash(["a"]), response_hash(["a", ""]));
        assert_ne!(response_hash([]), response_hash([""]));
    }

    #[test]
    fn prompts_differ_by_every_id() {
        assert_ne!(prompt_digest(&[1, 2]), prompt_digest(&[2, 1]));
        assert_ne!(prompt_digest(&[]), prompt_digest(&[0]));
        assert_ne!(prompt_digest(&[0x0102]), prompt_digest(&[1, 2]));
    }
}
