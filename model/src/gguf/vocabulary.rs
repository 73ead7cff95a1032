//! A tokenizer from a GGUF file's keys, as `tokenizer.json` and `tokenizer_config.json`.
//!
//! Two kinds exist for the supported families: byte-level BPE (`gpt2`), whose splitting pattern the file only names, and
//! SentencePiece BPE (`llama`), whose merges follow from the scores. Both become what transformers 5 has for the
//! original models (`tokenization_llama.py`; patterns in the models' own `tokenizer.json`).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    architecture::Family,
    error::{GgufError, bad_value},
    reader::Metadata,
};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Finding the pairs that merge into a token is quadratic in its length; known vocabularies stay below 200 bytes.
const MAX_PIECE_BYTES: usize = 1024;

const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// A row of the embedding without a token.
    Unused,
    Byte,
}

/// How a byte-level vocabulary splits text before merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splitting {
    Gpt2,
    /// Every digit on its own, then as GPT-2.
    SmolLm,
    Llama3,
    Qwen2,
    Tekken,
}

/// The files that make the tokenizer, and the ids that the configuration repeats.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// `tokenizer.json`.
    pub(super) tokenizer: Value,
    /// `tokenizer_config.json`.
    pub(super) tokenizer_config: Value,
    /// `bos_token_id`, `eos_token_id`, `pad_token_id` as far as they are known.
    pub(super) ids: Map<String, Value>,
    /// As [`Self::ids`], with every token that ends an answer.
    pub(super) generation_ids: Map<String, Value>,
    /// Number of ids that the vocabulary names.
    pub(super) size: usize,
    /// What a user should know about how it was read.
    pub(super) warnings: Vec<String>,
}

impl Vocabulary {
    pub(super) fn of(family: Family, metadata: &Metadata) -> Result<Self, GgufError> {
        let tokens = metadata.strings(TOKENS)?;
        let kinds = kinds(metadata, tokens.len())?;
        let entries = entries(tokens, &kinds)?;
        let special = Special::of(metadata, tokens)?;
        let mut warnings = Vec::new();
        let model = metadata.string(MODEL)?;
        let parts = match model {
            "gpt2" => {
                let splitting = splitting(family, metadata, &mut warnings)?;
                byte_level(metadata, &entries, splitting)?
            }
            "llama" => sentence_piece(metadata, &entries, &kinds, special.unknown.map(|(_, token)| token))?,
            other => return Err(bad_value(MODEL, format!("is {other}, which is not supported (gpt2 and llama are)"))),
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens(&entries, &kinds),
            "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
            "post_processor": post_processor(metadata, &special, parts.adds_bos)?,
            "decoder": parts.decoder, "model": parts.model,
        });
        Ok(Self {
            tokenizer,
            tokenizer_config: tokenizer_config(metadata, &special)?,
            ids: special.ids(false),
            generation_ids: special.ids(true),
            size: tokens.len(),
            warnings,
        })
    }
}

/// A token's type for each id; files without types have normal tokens only.
fn kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<Kind>, GgufError> {
    if metadata.get(TYPES).is_none() {
        return Ok(vec![Kind::Normal; tokens]);
    }
    let codes = metadata.integers(TYPES)?;
    if codes.len() != tokens {
        return Err(bad_value(TYPES, format!("has {} entries for {tokens} tokens", codes.len())));
    }
    let kind = |(id, code): (usize, &i32)| match code {
        // Some converters write 0 for what they do not know.
        0 | 1 => Ok(Kind::Normal),
        2 => Ok(Kind::Unknown),
        3 => Ok(Kind::Control),
        4 => Ok(Kind::UserDefined),
        5 => Ok(Kind::Unused),
        6 => Ok(Kind::Byte),
        _ => Err(bad_value(TYPES, format!("gives token {id} the unknown type {code}"))),
    };
    codes.iter().enumerate().map(kind).collect()
}

/// Tokens in use with their ids.
fn entries<'a>(tokens: &'a [String], kinds: &[Kind]) -> Result<Vec<(u32, &'a str)>, GgufError> {
    if tokens.is_empty() {
        return Err(bad_value(TOKENS, "is empty"));
    }
    let mut seen = HashMap::new();
    let mut entries = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        let id = u32::try_from(id).map_err(|_| bad_value(TOKENS, "has too many entries"))?;
        if *kind == Kind::Unused {
            continue;
        }
        if token.is_empty() {
            return Err(bad_value(TOKENS, format!("has an empty token, {id}")));
        }
        if let Some(first) = seen.insert(token.as_str(), id) {
            return Err(bad_value(TOKENS, format!("has {token:?} twice, as {first} and {id}")));
        }
        entries.push((id, token.as_str()));
    }
    Ok(entries)
}

/// Special tokens by their roles.
struct Special<'a> {
    bos: Option<(u32, &'a str)>,
    eos: Option<(u32, &'a str)>,
    /// End of a turn, where the file names one beside EOS.
    eot: Option<(u32, &'a str)>,
    unknown: Option<(u32, &'a str)>,
    pad: Option<(u32, &'a str)>,
}

impl<'a> Special<'a> {
    fn of(metadata: &Metadata, tokens: &'a [String]) -> Result<Self, GgufError> {
        let token = |role: &str| {
            let key = format!("tokenizer.ggml.{role}_token_id");
            let Some(id) = metadata.unsigned_if_present(&key)? else { return Ok(None) };
            let found = usize::try_from(id).ok().and_then(|index| tokens.get(index));
            match (found, u32::try_from(id)) {
                (Some(token), Ok(id)) => Ok(Some((id, token.as_str()))),
                // llama.cpp writes all ones for none.
                (None, _) if id >= u64::from(u32::MAX) => Ok(None),
                _ => Err(bad_value(key, format!("is {id}, and there are {} tokens", tokens.len()))),
            }
        };
        Ok(Self {
            bos: token("bos")?,
            eos: token("eos")?,
            eot: token("eot")?,
            unknown: token("unknown")?,
            pad: token("padding")?,
        })
    }

    fn ids(&self, generation: bool) -> Map<String, Value> {
        let mut ids = Map::new();
        let eot = self.eot.filter(|eot| generation && Some(*eot) != self.eos);
        let end = match (self.eos, eot) {
            (Some((eos, _)), Some((eot, _))) => Some(json!([eos, eot])),
            (eos, eot) => eos.or(eot).map(|(id, _)| json!(id)),
        };
        let (bos, pad) = (self.bos.map(|(id, _)| json!(id)), self.pad.map(|(id, _)| json!(id)));
        for (name, id) in [("bos_token_id", bos), ("eos_token_id", end), ("pad_token_id", pad)] {
            ids.extend(id.map(|id| (name.to_owned(), id)));
        }
        ids
    }
}

/// The parts in which the two kinds differ.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
    /// What a file means that does not say whether texts begin with BOS.
    adds_bos: bool,
}

fn splitting(family: Family, metadata: &Metadata, warnings: &mut Vec<String>) -> Result<Splitting, GgufError> {
    Ok(match metadata.string_if_present(PRE)? {
        Some("gpt-2") => Splitting::Gpt2,
        Some("smollm" | "starcoder" | "refact") => Splitting::SmolLm,
        Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral") => Splitting::Llama3,
        Some("qwen2" | "deepseek-r1-qwen" | "megrez") => Splitting::Qwen2,
        Some("tekken") => Splitting::Tekken,
        None | Some("default") => {
            let (guess, name) = match family {
                Family::Llama => (Splitting::Gpt2, "GPT-2"),
                Family::Qwen2 | Family::Qwen3 => (Splitting::Qwen2, "Qwen2"),
            };
            warnings.push(format!("the file does not say how its vocabulary splits text; {name}'s way is taken"));
            guess
        }
        Some(other) => {
            return Err(bad_value(
                PRE,
                format!("is {other}, which is not supported (gpt-2, smollm, llama-bpe, qwen2 and tekken are)"),
            ));
        }
    })
}

fn byte_level(metadata: &Metadata, entries: &[(u32, &str)], splitting: Splitting) -> Result<Parts, GgufError> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence =
        |first: Value, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(use_regex)]});
    let split = |pattern: &str| {
        sequence(
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
            false,
        )
    };
    let pre_tokenizer = match splitting {
        Splitting::Gpt2 => bytes(true),
        Splitting::SmolLm => sequence(json!({"type": "Digits", "individual_digits": true}), true),
        Splitting::Llama3 => split(LLAMA3_SPLIT),
        Splitting::Qwen2 => split(QWEN2_SPLIT),
        Splitting::Tekken => split(TEKKEN_SPLIT),
    };
    // tiktoken vocabularies take a whole word that is a token, whether or not merges lead to it.
    let ignore_merges = matches!(splitting, Splitting::Llama3 | Splitting::Tekken);
    Ok(Parts {
        normalizer: if splitting == Splitting::Qwen2 { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: bpe(entries, stored_merges(metadata)?, None, false, ignore_merges),
        adds_bos: ignore_merges,
    })
}

fn sentence_piece(
    metadata: &Metadata,
    entries: &[(u32, &str)],
    kinds: &[Kind],
    unknown: Option<&str>,
) -> Result<Parts, GgufError> {
    let merges = if metadata.get(MERGES).is_some() {
        stored_merges(metadata)?
    } else {
        let scores = metadata.floats(SCORES)?;
        if scores.len() != kinds.len() {
            return Err(bad_value(SCORES, format!("has {} entries for {} tokens", scores.len(), kinds.len())));
        }
        merges_from_scores(entries, kinds, scores)?
    };
    let unknown = unknown.or_else(|| entries.iter().find(|(_, token)| *token == "<unk>").map(|(_, token)| *token));
    let prefix = metadata.bool_if_present("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let scheme = if prefix { "first" } else { "never" };
    Ok(Parts {
        normalizer: Value::Null,
        pre_tokenizer: json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false}),
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: bpe(entries, merges, unknown, true, false),
        adds_bos: true,
    })
}

fn bpe(
    entries: &[(u32, &str)],
    merges: Vec<(&str, &str)>,
    unknown: Option<&str>,
    byte_fallback: bool,
    ignore_merges: bool,
) -> Value {
    let vocab: Map<String, Value> = entries.iter().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": byte_fallback, "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges,
    })
}

fn stored_merges(metadata: &Metadata) -> Result<Vec<(&str, &str)>, GgufError> {
    let mut merges = Vec::new();
    for (index, merge) in metadata.strings(MERGES)?.iter().enumerate() {
        match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => merges.push((left, right)),
            _ => return Err(bad_value(MERGES, format!("has {merge:?} at {index}, which is no pair"))),
        }
    }
    Ok(merges)
}

/// The pairs of tokens that make another token, best score first (ties: longer parts first, then by ids), which is the
/// order in which SentencePiece merges. As transformers' `generate_merges`, for tokens that text can make.
fn merges_from_scores<'a>(
    entries: &[(u32, &'a str)],
    kinds: &[Kind],
    scores: &[f32],
) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
    let ids: HashMap<&str, u32> = entries.iter().map(|(id, token)| (*token, *id)).collect();
    let mut merges = Vec::new();
    for (id, token) in entries {
        let index = *id as usize;
        let (Some(kind), Some(score)) = (kinds.get(index), scores.get(index)) else { continue };
        if *kind != Kind::Normal {
            continue;
        }
        if token.len() > MAX_PIECE_BYTES {
            return Err(bad_value(TOKENS, format!("has a token of {} bytes, {id}", token.len())));
        }
        if score.is_nan() {
            return Err(bad_value(SCORES, format!("has no number for token {id}")));
        }
        let first = merges.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((*score, left, right, *left_id, *right_id));
            }
        }
        merges[first..].sort_by_key(|(_, _, _, left, right)| (*left, *right));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|(a_score, a_left, a_right, ..), (b_score, b_left, b_right, ..)| {
        // Scores are numbers, as checked above.
        let by_score = b_score.partial_cmp(a_score).unwrap_or(std::cmp::Ordering::Equal);
        by_score.then_with(|| length(b_left).cmp(&length(a_left))).then_with(|| length(b_right).cmp(&length(a_right)))
    });
    Ok(merges.into_iter().map(|(_, left, right, ..)| (left, right)).collect())
}

/// Tokens that are found in text before it is split: control tokens, and those that users defined.
fn added_tokens(entries: &[(u32, &str)], kinds: &[Kind]) -> Vec<Value> {
    let added = entries.iter().filter_map(|(id, token)| {
        let special = match kinds.get(*id as usize)? {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Unused | Kind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": special,
        }))
    });
    added.collect()
}

fn post_processor(metadata: &Metadata, special: &Special<'_>, adds_bos: bool) -> Result<Value, GgufError> {
    let wants = |key: &str, default: bool| metadata.bool_if_present(key).map(|value| value.unwrap_or(default));
    let bos = if wants("tokenizer.ggml.add_bos_token", adds_bos)? { special.bos } else { None };
    let eos = if wants("tokenizer.ggml.add_eos_token", false)? { special.eos } else { None };
    let around = |id: &str, type_id: u32| {
        let token = |token: Option<(u32, &str)>| {
            token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": type_id}}))
        };
        let sequence = json!({"Sequence": {"id": id, "type_id": type_id}});
        [token(bos), Some(sequence), token(eos)].into_iter().flatten().collect::<Vec<_>>()
    };
    let tokens: Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, token)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    Ok(json!({
        "type": "TemplateProcessing", "single": around("A", 0), "pair": pair,
        "special_tokens": tokens,
    }))
}

fn tokenizer_config(metadata: &Metadata, special: &Special<'_>) -> Result<Value, GgufError> {
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    for (name, token) in [
        ("bos_token", special.bos),
        ("eos_token", special.eos),
        ("unk_token", special.unknown),
        ("pad_token", special.pad),
    ] {
        config.extend(token.map(|(_, token)| (name.to_owned(), json!(token))));
    }
    let template = metadata.string_if_present(TEMPLATE)?;
    config.extend(template.map(|template| ("chat_template".to_owned(), json!(template))));
    Ok(Value::Object(config))
}
