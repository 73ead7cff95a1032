//! Request fields that both endpoints have.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
};

use model::{LogitAdjustments, SamplingParameters};
use serde::Deserialize;

use super::{
    error::ApiError,
    fields::{Fields, Kind, kind},
};

/// Fields that cannot change an answer here.
pub(super) const HARMLESS: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_retention",
    "parallel_tool_calls",
];
/// Most completions of one prompt. Each takes a place in the engine's queue and memory of its own.
const MOST_CHOICES: i128 = 8;
const MOST_STOPS: usize = 4;
const LONGEST_STOP_BYTES: usize = 1024;
const MOST_BIASES: usize = 1024;
const LONGEST_CACHE_KEY_BYTES: usize = 256;

/// How to generate. No `Debug`: stop strings are as private as the prompt.
pub(super) struct Parameters {
    /// How many completions.
    pub(super) choices: NonZeroU16,
    /// The client's own limit on the completion.
    pub(super) max_tokens: Option<TokenLimit>,
    /// The seed is the client's, or 0 with `seeded` false.
    pub(super) sampling: SamplingParameters,
    /// Whether the client chose the seed.
    pub(super) seeded: bool,
    /// Penalties and biases.
    pub(super) adjustments: LogitAdjustments,
    /// Requests with the same key may reuse each other's prompts.
    pub(super) cache_key: Option<Arc<str>>,
    /// Strings that end the completion. None is empty.
    pub(super) stop: Vec<String>,
    /// `None` for an answer in one piece.
    pub(super) stream: Option<StreamOptions>,
}

/// A limit on the completion, and the name under which it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenLimit {
    pub(super) name: &'static str,
    pub(super) tokens: NonZeroUsize,
}

/// How to stream.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    /// Whether a last chunk gives the usage.
    #[serde(default)]
    pub(super) include_usage: Option<bool>,
    /// Padding against traffic analysis; streams here have none, which is allowed either way.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

impl Parameters {
    /// Takes these fields. `limits` are the names under which this endpoint knows the token limit.
    pub(super) fn take(fields: &mut Fields<'_>, limits: &[&'static str]) -> Result<Self, ApiError> {
        let seed = fields.take_integer("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?;
        let sampling = SamplingParameters {
            temperature: fields.take_number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
            top_p: fields.take_number("top_p", 0.0..=1.0)?.unwrap_or(1.0),
            top_k: take_count(fields, "top_k")?,
            seed: seed.map_or(0, two_s_complement),
        };
        Ok(Self {
            choices: take_choices(fields)?,
            max_tokens: take_limit(fields, limits)?,
            sampling,
            seeded: seed.is_some(),
            adjustments: take_adjustments(fields)?,
            cache_key: take_cache_key(fields)?,
            stop: take_stop(fields)?,
            stream: take_stream(fields)?,
        })
    }
}

/// The low 64 bits. Negative seeds are as good as any.
fn two_s_complement(value: i128) -> u64 {
    let [bytes @ .., _, _, _, _, _, _, _, _] = value.to_le_bytes();
    u64::from_le_bytes(bytes)
}

fn take_choices(fields: &mut Fields<'_>) -> Result<NonZeroU16, ApiError> {
    let choices = fields.take_integer("n", 1..=MOST_CHOICES)?.and_then(|choices| u16::try_from(choices).ok());
    Ok(choices.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN))
}

fn take_adjustments(fields: &mut Fields<'_>) -> Result<LogitAdjustments, ApiError> {
    Ok(LogitAdjustments {
        frequency_penalty: fields.take_number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        presence_penalty: fields.take_number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        bias: Arc::new(take_bias(fields)?),
    })
}

/// `logit_bias`: an object from token ids, which JSON makes strings, to what is added to their logits.
fn take_bias(fields: &mut Fields<'_>) -> Result<BTreeMap<u32, f32>, ApiError> {
    const NAME: &str = "logit_bias";
    let expected = format!("an object of at most {MOST_BIASES} token ids, each once, with numbers from -100 to 100");
    let Some(given) = fields.take::<BTreeMap<String, f32>>(NAME, &expected)? else { return Ok(BTreeMap::new()) };
    let wrong = || ApiError::wrong_value(NAME, &expected);
    if given.len() > MOST_BIASES {
        return Err(wrong());
    }
    let mut biases = BTreeMap::new();
    for (id, bias) in given {
        // One spelling for each id: signs and leading zeros would let an id appear twice.
        let id = id.parse::<u32>().ok().filter(|parsed| parsed.to_string() == id).ok_or_else(wrong)?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(wrong());
        }
        biases.insert(id, bias);
    }
    Ok(biases)
}

fn take_cache_key(fields: &mut Fields<'_>) -> Result<Option<Arc<str>>, ApiError> {
    const NAME: &str = "prompt_cache_key";
    let key: Option<String> = fields.take(NAME, "a string")?;
    match key {
        Some(key) if key.len() > LONGEST_CACHE_KEY_BYTES => {
            Err(ApiError::wrong_value(NAME, &format!("a string of at most {LONGEST_CACHE_KEY_BYTES} bytes")))
        }
        key => Ok(key.filter(|key| !key.is_empty()).map(Arc::from)),
    }
}

/// `top_k` of other engines' clients: how many of the likeliest tokens may be drawn; 0 or -1 for all.
fn take_count(fields: &mut Fields<'_>, name: &str) -> Result<usize, ApiError> {
    let count = fields.take_integer(name, -1..=i128::from(i32::MAX))?.unwrap_or(0);
    Ok(usize::try_from(count).unwrap_or(0))
}

fn take_limit(fields: &mut Fields<'_>, names: &[&'static str]) -> Result<Option<TokenLimit>, ApiError> {
    let mut limit: Option<TokenLimit> = None;
    for &name in names {
        let Some(tokens) = fields.take_integer(name, 1..=i128::from(i64::MAX))? else { continue };
        let tokens = NonZeroUsize::new(usize::try_from(tokens).unwrap_or(usize::MAX)).unwrap_or(NonZeroUsize::MIN);
        if limit.is_some_and(|limit| limit.tokens != tokens) {
            let message = format!("{} contradict each other: send one of them.", names.join(" and "));
            return Err(ApiError::invalid("invalid_value", message).about(name));
        }
        limit = Some(TokenLimit { name, tokens });
    }
    Ok(limit)
}

fn take_stop(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
    const EXPECTED: &str = "a string, or a list of up to 4 strings";
    let Some(value) = fields.take_raw("stop") else { return Ok(Vec::new()) };
    let parsed = match kind(value) {
        Kind::Text => serde_json::from_str(value.get()).map(|stop| vec![stop]),
        _ => serde_json::from_str(value.get()),
    };
    let stops: Vec<String> = parsed.map_err(|_| ApiError::wrong_type("stop", EXPECTED))?;
    if stops.len() > MOST_STOPS || stops.iter().any(|stop| stop.is_empty() || stop.len() > LONGEST_STOP_BYTES) {
        let expected = format!("{EXPECTED}, each of 1 to {LONGEST_STOP_BYTES} bytes");
        return Err(ApiError::wrong_value("stop", &expected));
    }
    Ok(stops)
}

fn take_stream(fields: &mut Fields<'_>) -> Result<Option<StreamOptions>, ApiError> {
    let stream = fields.take("stream", "true or false")?.unwrap_or(false);
    let expected = "an object with include_usage (true or false)";
    let options: Option<StreamOptions> = fields.take("stream_options", expected)?;
    match (stream, options) {
        (true, options) => Ok(Some(options.unwrap_or_default())),
        (false, None) => Ok(None),
        (false, Some(_)) => {
            let message = "'stream_options' is only allowed when 'stream' is true.";
            Err(ApiError::invalid("invalid_value", message).about("stream_options"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(body: &str) -> Result<Parameters, ApiError> {
        Parameters::take(&mut Fields::of_body(body).unwrap(), &["max_tokens", "max_completion_tokens"])
    }

    #[test]
    fn defaults_are_openai_s() {
        let parameters = take("{}").unwrap();
        assert_eq!((parameters.sampling.temperature, parameters.sampling.top_p), (1.0, 1.0));
        assert!(parameters.max_tokens.is_none() && parameters.stream.is_none() && !parameters.seeded);
    }

    #[test]
    fn out_of_range_numbers_are_refused() {
        for body in [
            r#"{"temperature": -0.1}"#,
            r#"{"temperature": 2.1}"#,
            r#"{"temperature": 1e999}"#,
            r#"{"top_p": 1.1}"#,
            r#"{"max_tokens": 0}"#,
            r#"{"max_tokens": -1}"#,
            r#"{"max_tokens": 1.5}"#,
            r#"{"max_tokens": 99999999999999999999999}"#,
            r#"{"seed": "7"}"#,
            r#"{"stop": ["a", "b", "c", "d", "e"]}"#,
            r#"{"stop": ""}"#,
            r#"{"stream": "yes"}"#,
            r#"{"stream_options": {"include_usage": true}}"#,
            r#"{"max_tokens": 1, "max_completion_tokens": 2}"#,
            r#"{"n": 0}"#,
            r#"{"n": 9}"#,
            r#"{"n": 1.5}"#,
            r#"{"n": "2"}"#,
            r#"{"frequency_penalty": 2.1}"#,
            r#"{"presence_penalty": -2.1}"#,
            r#"{"presence_penalty": "0"}"#,
            r#"{"logit_bias": []}"#,
            r#"{"logit_bias": {"1": 100.5}}"#,
            r#"{"logit_bias": {"1": null}}"#,
            r#"{"logit_bias": {"-1": 1}}"#,
            r#"{"logit_bias": {"01": 1, "1": 2}}"#,
            r#"{"logit_bias": {"+1": 1}}"#,
            r#"{"logit_bias": {"the": 1}}"#,
            r#"{"logit_bias": {"4294967296": 1}}"#,
            r#"{"prompt_cache_key": 7}"#,
        ] {
            assert!(take(body).is_err(), "{body}");
        }
    }

    #[test]
    fn biases_are_bounded_in_number() {
        let body = |count: u32| {
            let biases: Vec<_> = (0..count).map(|id| format!(r#""{id}": -0.5"#)).collect();
            format!(r#"{{"logit_bias": {{{}}}}}"#, biases.join(","))
        };
        assert_eq!(take(&body(1024)).unwrap().adjustments.bias.len(), 1024);
        assert!(take(&body(1025)).is_err());
        let long = "k".repeat(257);
        assert!(take(&format!(r#"{{"prompt_cache_key": "{long}"}}"#)).is_err());
        assert!(take(r#"{"prompt_cache_key": ""}"#).unwrap().cache_key.is_none());
    }

    #[test]
    fn seeds_keep_all_their_bits() {
        assert_eq!(take(r#"{"seed": -1}"#).unwrap().sampling.seed, u64::MAX);
        assert_eq!(take(r#"{"seed": 18446744073709551615}"#).unwrap().sampling.seed, u64::MAX);
        assert_eq!(take(r#"{"seed": 7}"#).unwrap().sampling.seed, 7);
    }
}
