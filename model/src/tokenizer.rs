//! A model's tokenizer: `tokenizer.json` with what `tokenizer_config.json` adds to it.
//!
//! Text becomes the ids that transformers 5 gives for the same folder. As there, the post-processor in `tokenizer.json`
//! alone decides whether a text begins with BOS; `add_bos_token` and `add_eos_token` beside it are ignored.
//! transformers additionally rebuilds the pre-tokenizer of some model classes (`LlamaTokenizer`); here the file rules.

mod decode;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::ids::TokenizerDigest;
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use tokenizers::AddedToken;

use self::decode::Decoding;
pub use self::decode::StreamDecoder;

/// Special tokens that a configuration may name.
pub(crate) const NAMED_SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Why a tokenizer could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is missing or unreadable.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not JSON.
    #[error("failed to parse {path}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The file is JSON and not a tokenizer.
    #[error("{path} is not a tokenizer that can be used")]
    Definition {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library refused.
        #[source]
        source: tokenizers::Error,
    },
    /// The tokenizer turns ids into text in a way that cannot be followed token by token.
    #[error("{path} decodes with {decoder}, which is not supported (byte-level and SentencePiece decoders are)")]
    Decoder {
        /// The file.
        path: PathBuf,
        /// The decoder's type or types.
        decoder: String,
    },
    /// A text could not be encoded.
    #[error("failed to encode a text of {bytes} bytes")]
    Encode {
        /// Length of the text; the text itself may be private.
        bytes: usize,
        /// What the tokenizers library said.
        #[source]
        source: tokenizers::Error,
    },
}

/// Whether a text gets the special tokens that the model expects around it (usually BOS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As `tokenizer(text)` in transformers: a text on its own.
    Add,
    /// As `tokenizer(text, add_special_tokens=False)`: part of a text, or one that already has them.
    Omit,
}

/// Text to ids and back. Cloning is cheap; clones share the vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    decoding: Arc<Decoding>,
    longest_token_bytes: usize,
    digest: TokenizerDigest,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The vocabulary would fill screens.
        f.debug_struct("Tokenizer").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where there is one, `tokenizer_config.json` of a model folder.
    pub fn load(directory: &Path) -> Result<Self, TokenizerError> {
        let path = directory.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(|source| TokenizerError::Read { path: path.clone(), source })?;
        let definition: Value =
            serde_json::from_slice(&bytes).map_err(|source| TokenizerError::Json { path: path.clone(), source })?;
        let config = read_json_if_present(&directory.join("tokenizer_config.json"))?.unwrap_or(Value::Null);

        let refused = |source| TokenizerError::Definition { path: path.clone(), source };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(refused)?;
        // Both would silently change a text's ids; transformers switches them off unless a call asks for them.
        inner.with_truncation(None).map_err(refused)?;
        inner.with_padding(None);
        let declared = declared_tokens(&inner, &config);
        inner.add_tokens(declared).map_err(refused)?;
        if config.get("split_special_tokens") == Some(&Value::Bool(true)) {
            inner.set_encode_special_tokens(true);
        }

        let decoding = Decoding::of(inner.get_decoder())
            .map_err(|decoder| TokenizerError::Decoder { path: path.clone(), decoder })?;
        let digest = digest(&definition, &inner);
        let longest_token_bytes = inner.get_vocab(true).keys().map(String::len).max().unwrap_or(0);
        Ok(Self { inner: Arc::new(inner), decoding: Arc::new(decoding), longest_token_bytes, digest })
    }

    /// Ids of a text. The text of a special token inside it becomes that token, as in transformers.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        self.inner
            .encode_fast(text, special == SpecialTokens::Add)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|source| TokenizerError::Encode { bytes: text.len(), source })
    }

    /// Ids of a text that a chat template rendered: it already contains the special tokens that it needs.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, SpecialTokens::Omit)
    }

    /// Text of ids. Ids that the vocabulary does not have contribute nothing; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut stream = self.stream_decoder(skip_special);
        let mut text = String::new();
        for id in ids {
            text.extend(stream.push(*id));
        }
        text.extend(stream.finish());
        text
    }

    /// A decoder that takes one id at a time.
    pub fn stream_decoder(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder::new(self.clone(), skip_special)
    }

    /// What a token adds in the middle of a text, its leading space included. `None` for an id that the vocabulary does
    /// not have and for a token that is only a part of a character.
    pub fn token_text(&self, id: u32) -> Option<String> {
        String::from_utf8(self.token_bytes(id)?).ok()
    }

    /// The bytes that a token adds in the middle of a text; a special token's are its name. `None` for an id that the
    /// vocabulary does not have.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        Some(self.decoding.bytes_within(&self.inner.id_to_token(id)?))
    }

    /// The id of a token as the vocabulary spells it (`<|im_end|>`, `Ġthe`).
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether an id is a control token (BOS, end of turn …) and not text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some_and(|token| self.is_special_token(&token))
    }

    /// Number of ids, added tokens included. A model's logits may be wider than this (padding), and rarely narrower.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Bytes of the longest token as the vocabulary spells it, which is never shorter than its text. A text of `n` times
    /// as many has at least `n` tokens, unless the tokenizer drops some of it.
    pub fn longest_token_bytes(&self) -> usize {
        self.longest_token_bytes
    }

    /// Keccak-256 over `tokenizer.json` in canonical form (object keys sorted, no blanks) and the added tokens, so that
    /// re-indenting the file does not change it and a token that only `tokenizer_config.json` adds does.
    pub fn digest(&self) -> TokenizerDigest {
        self.digest
    }

    fn is_special_token(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }
}

/// Reads a JSON file; a missing one is `None`, an unreadable one an error.
pub(crate) fn read_json_if_present(path: &Path) -> Result<Option<Value>, TokenizerError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| TokenizerError::Json { path: path.to_owned(), source }),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}

/// The content of a token in a configuration: a string, or an object with `content`.
pub(crate) fn token_content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// Tokens that `tokenizer_config.json` adds or whose flags it changes, in the order of their ids.
fn declared_tokens(inner: &tokenizers::Tokenizer, config: &Value) -> Vec<AddedToken> {
    let mut tokens = Vec::new();
    if let Some(declared) = config.get("added_tokens_decoder").and_then(Value::as_object) {
        let mut by_id: Vec<(u32, AddedToken)> = declared
            .iter()
            .filter_map(|(id, token)| Some((id.parse().ok()?, serde_json::from_value(token.clone()).ok()?)))
            .collect();
        by_id.sort_by_key(|(id, _)| *id);
        tokens.extend(by_id.into_iter().map(|(_, token)| token));
    }

    let lists = ["additional_special_tokens", "extra_special_tokens"];
    let named = NAMED_SPECIAL_TOKENS.iter().filter_map(|name| config.get(*name));
    let listed = lists.iter().filter_map(|name| config.get(*name)?.as_array()).flatten();
    for content in named.chain(listed).filter_map(token_content) {
        // A named token is special whatever the file says about it; its other flags stay as they were.
        if let Some(token) = tokens.iter_mut().find(|token| token.content == content) {
            token.special = true;
            continue;
        }
        let existing = inner.get_added_vocabulary().get_added_tokens_decoder().values().find(|t| t.content == content);
        let token = existing.map_or_else(|| AddedToken::from(content, true), |token| token.clone().special(true));
        tokens.push(token);
    }
    tokens
}

fn digest(definition: &Value, inner: &tokenizers::Tokenizer) -> TokenizerDigest {
    let mut added: Vec<(u32, AddedToken)> = inner.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    let added: Vec<Value> = added
        .into_iter()
        .map(|(id, token)| {
            let AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
            json!([id, content, single_word, lstrip, rstrip, normalized, special])
        })
        .collect();

    let mut hasher = Keccak256::new();
    hasher.update(b"hallmark/tokenizer/v1\n");
    hash_canonical(definition, &mut hasher);
    hasher.update(b"\n");
    hash_canonical(&Value::Array(added), &mut hasher);
    TokenizerDigest::from_bytes(hasher.finalize().into())
}

fn hash_canonical(value: &Value, hasher: &mut Keccak256) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            hasher.update(b"{");
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    hasher.update(b",");
                }
                hasher.update(json!(key).to_string());
                hasher.update(b":");
                hash_canonical(value, hasher);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for (index, value) in items.iter().enumerate() {
                if index > 0 {
                    hasher.update(b",");
                }
                hash_canonical(value, hasher);
            }
            hasher.update(b"]");
        }
        leaf => hasher.update(leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ignores_layout_and_key_order() {
        let hash = |text: &str| {
            let mut hasher = Keccak256::new();
            hash_canonical(&serde_json::from_str(text).unwrap(), &mut hasher);
            <[u8; 32]>::from(hasher.finalize())
        };
        assert_eq!(hash(r#"{"a": [1, 2.5, null], "b": {"x": "ü\n", "y": 1}}"#), {
            let mut hasher = Keccak256::new();
            hasher.update("{\"a\":[1,2.5,null],\"b\":{\"x\":\"ü\\n\",\"y\":1}}");
            <[u8; 32]>::from(hasher.finalize())
        });
        assert_eq!(
            hash(r#"{"b":{"y":1,"x":"ü\n"},"a":[1,2.5,null]}"#),
            hash(r#"{"a": [1, 2.5, null], "b": {"x": "ü\n", "y": 1}}"#)
        );
        assert_ne!(hash(r#"{"a":"1"}"#), hash(r#"{"a":1}"#));
    }
}
