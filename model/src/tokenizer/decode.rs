//! Ids to text one token at a time, equal to decoding them all at once.
//!
//! Two decoders cover the model families here: byte-level BPE (GPT-2's alphabet of 256 visible characters) and
//! SentencePiece as `tokenizers` spells it (replace `▁`, byte tokens, fuse, strip the first space), or its older
//! Metaspace form. Each is followed with a constant amount of state per stream and work that depends on one token only.

use std::sync::LazyLock;

use serde_json::Value;
use tokenizers::decoders::DecoderWrapper;

use super::Tokenizer;

/// How token spellings become text.
#[derive(Debug)]
pub(super) enum Decoding {
    /// Every character stands for one byte.
    ByteLevel,
    /// Replacements inside a token, then byte tokens, then characters cut from the beginning of the text.
    SentencePiece { replacements: Vec<(String, String)>, byte_fallback: bool, strip: Option<(char, usize)> },
    /// One character stands for a space, and for nothing in the first token.
    Metaspace { replacement: char, drop_first: bool },
    /// No decoder: tokens with a space between.
    Spaced,
}

impl Decoding {
    /// The form of a decoder, or the name of one that has none.
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Result<Self, String> {
        let Some(decoder) = decoder else { return Ok(Self::Spaced) };
        // Read through its serialized form: the crate keeps most of these fields private.
        let value = serde_json::to_value(decoder).map_err(|_| "an unreadable decoder".to_owned())?;
        match value["type"].as_str() {
            Some("Sequence") => {
                let steps = value["decoders"].as_array().map(Vec::as_slice).unwrap_or_default();
                Self::of_steps(steps).ok_or_else(|| {
                    let names: Vec<_> = steps.iter().filter_map(|step| step["type"].as_str()).collect();
                    format!("a sequence of {}", names.join(", "))
                })
            }
            Some(name) => Self::of_steps(std::slice::from_ref(&value)).ok_or_else(|| name.to_owned()),
            None => Err("an unknown decoder".to_owned()),
        }
    }

    fn of_steps(steps: &[Value]) -> Option<Self> {
        if let [only] = steps {
            match only["type"].as_str()? {
                "ByteLevel" => return Some(Self::ByteLevel),
                "Metaspace" => {
                    return Some(Self::Metaspace {
                        replacement: only["replacement"].as_str()?.chars().next()?,
                        drop_first: only["prepend_scheme"].as_str() != Some("never"),
                    });
                }
                _ => {}
            }
        }
        // Replace*, ByteFallback?, Fuse, Strip?: any other order means something else.
        let mut steps = steps.iter().peekable();
        let kind = |step: &&Value, name: &str| step["type"].as_str() == Some(name);
        let mut replacements = Vec::new();
        while let Some(step) = steps.next_if(|step| kind(step, "Replace")) {
            replacements.push((step["pattern"]["String"].as_str()?.to_owned(), step["content"].as_str()?.to_owned()));
        }
        let byte_fallback = steps.next_if(|step| kind(step, "ByteFallback")).is_some();
        steps.next_if(|step| kind(step, "Fuse"))?;
        let strip = match steps.next_if(|step| kind(step, "Strip")) {
            Some(step) if step["stop"].as_u64() == Some(0) => {
                Some((step["content"].as_str()?.chars().next()?, usize::try_from(step["start"].as_u64()?).ok()?))
            }
            Some(_) => return None,
            None => None,
        };
        steps.next().is_none().then_some(Self::SentencePiece { replacements, byte_fallback, strip })
    }

    /// What a token adds in the middle of a text, which may be a part of a character.
    pub(super) fn bytes_within(&self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => token_bytes(token),
            Self::SentencePiece { replacements, byte_fallback, .. } => match byte_token(token, *byte_fallback) {
                Some(byte) => vec![byte],
                None => replaced(token, replacements).into_bytes(),
            },
            Self::Metaspace { replacement, .. } => token.replace(*replacement, " ").into_bytes(),
            Self::Spaced => token.as_bytes().to_vec(),
        }
    }
}

/// Turns ids into text as they arrive.
///
/// The texts of [`push`](Self::push) and [`finish`](Self::finish) joined together are [`Tokenizer::decode`] of all ids,
/// so a text is held back while a later token may still change it: the beginning of a multi-byte character, or a run of
/// SentencePiece byte tokens (which decode together or not at all).
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Bytes that are not text yet. At most three for byte-level vocabularies.
    held: Vec<u8>,
    /// Tokens seen, skipped ones not counted.
    tokens: usize,
    /// Characters that may still be cut from the beginning of the text.
    strippable: usize,
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        let strippable = initial_strip(&tokenizer);
        Self { tokenizer, skip_special, held: Vec::new(), tokens: 0, strippable }
    }

    /// Takes the next id; returns the text that is now certain, if there is any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let token = self.tokenizer.inner.id_to_token(id)?;
        if self.skip_special && self.tokenizer.is_special_token(&token) {
            return None;
        }
        let first = self.tokens == 0;
        self.tokens = self.tokens.saturating_add(1);
        let decoding = self.tokenizer.decoding.clone();
        let text = match &*decoding {
            Decoding::ByteLevel => {
                self.held.extend(token_bytes(&token));
                take_decided(&mut self.held)
            }
            Decoding::SentencePiece { replacements, byte_fallback, .. } => match byte_token(&token, *byte_fallback) {
                Some(byte) => {
                    self.held.push(byte);
                    String::new()
                }
                None => {
                    let text = take_byte_run(&mut self.held) + &replaced(&token, replacements);
                    self.strip(text)
                }
            },
            Decoding::Metaspace { replacement, drop_first } => {
                token.replace(*replacement, if first && *drop_first { "" } else { " " })
            }
            Decoding::Spaced if first => token,
            Decoding::Spaced => format!(" {token}"),
        };
        (!text.is_empty()).then_some(text)
    }

    /// Ends the text: returns what was held back. The decoder then begins a new text.
    pub fn finish(&mut self) -> Option<String> {
        let text = match &*self.tokenizer.decoding {
            Decoding::SentencePiece { .. } => {
                let run = take_byte_run(&mut self.held);
                self.strip(run)
            }
            _ => String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned(),
        };
        self.tokens = 0;
        self.strippable = initial_strip(&self.tokenizer);
        (!text.is_empty()).then_some(text)
    }

    fn strip(&mut self, text: String) -> String {
        let Decoding::SentencePiece { strip: Some((content, _)), .. } = &*self.tokenizer.decoding else { return text };
        let mut rest = text.as_str();
        while self.strippable > 0 && !rest.is_empty() {
            match rest.strip_prefix(*content) {
                Some(shorter) => {
                    rest = shorter;
                    self.strippable -= 1;
                }
                None => self.strippable = 0,
            }
        }
        rest.to_owned()
    }
}

fn initial_strip(tokenizer: &Tokenizer) -> usize {
    match &*tokenizer.decoding {
        Decoding::SentencePiece { strip: Some((_, count)), .. } => *count,
        _ => 0,
    }
}

/// Takes what is decided of a byte string: everything but the beginning of a character at its end.
fn take_decided(held: &mut Vec<u8>) -> String {
    let bytes = std::mem::take(held);
    let mut text = String::new();
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        if chunk.invalid().is_empty() {
            continue;
        }
        // `error_len` of `None` says that more bytes could complete the character.
        let unfinished = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if chunks.peek().is_none() && unfinished {
            held.extend_from_slice(chunk.invalid());
        } else {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// Text of a run of byte tokens: its characters if it is UTF-8 as a whole, else one U+FFFD for each byte.
fn take_byte_run(held: &mut Vec<u8>) -> String {
    String::from_utf8(std::mem::take(held)).unwrap_or_else(|error| "\u{fffd}".repeat(error.as_bytes().len()))
}

fn replaced(token: &str, replacements: &[(String, String)]) -> String {
    replacements.iter().fold(token.to_owned(), |text, (pattern, content)| text.replace(pattern.as_str(), content))
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_token(token: &str, byte_fallback: bool) -> Option<u8> {
    if !byte_fallback {
        return None;
    }
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Bytes of a byte-level token. A token with a character outside the alphabet (a special token) stands for itself.
fn token_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

fn byte_of(character: char) -> Option<u8> {
    let index = usize::try_from(u32::from(character)).ok()?;
    BYTE_OF_CHARACTER.get(index).copied().flatten()
}

/// GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes for U+0100 onwards in order.
static BYTE_OF_CHARACTER: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    let mut next = 0x100;
    for byte in u8::MIN..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let index = if printable { usize::from(byte) } else { next };
        if !printable {
            next += 1;
        }
        if let Some(entry) = table.get_mut(index) {
            *entry = Some(byte);
        }
    }
    table
});

#[cfg(test)]
mod tests;
