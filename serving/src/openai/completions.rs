//! `POST /v1/completions`: continues a text.

use model::SpecialTokens;
use serde_json::value::RawValue;

use super::{
    error::ApiError,
    fields::{Fields, Kind, Unsupported, kind},
    generate::{Endpoint, tokenize},
    logprobs,
    text::Said,
    types::TextChoice,
};
use crate::{
    engine::FinishReason,
    state::{Limits, ServedModel},
};

/// What to continue. No `Debug`: it is private.
pub(super) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// `/v1/completions`.
pub(super) struct Completions;

impl Completions {
    fn choice(index: usize, said: Said, reason: Option<FinishReason>) -> TextChoice {
        let Said { text, tokens } = said;
        TextChoice { index, text, logprobs: tokens.map(Into::into), finish_reason: reason.map(Into::into) }
    }
}

impl Endpoint for Completions {
    type Prompt = Prompt;
    type WholeChoice = TextChoice;
    type ChunkChoice = TextChoice;

    const TOKEN_LIMITS: &'static [&'static str] = &["max_tokens"];
    const UNSUPPORTED: &'static [Unsupported] =
        &[("best_of", &["1"]), ("echo", &["false"]), ("suffix", &["\"\"", "null"])];
    const PATH: &'static str = "/v1/completions";
    const ID_PREFIX: &'static str = "cmpl-";
    const WHOLE_OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";

    /// OpenAI's default for this endpoint.
    fn default_max_tokens(_limits: &Limits) -> usize {
        16
    }

    fn take_prompt(fields: &mut Fields<'_>) -> Result<Prompt, ApiError> {
        parse_prompt(fields.take_raw("prompt").ok_or_else(|| ApiError::missing("prompt"))?)
    }

    fn take_likeliest(fields: &mut Fields<'_>) -> Result<Option<usize>, ApiError> {
        logprobs::take_of_completion(fields)
    }

    fn encode(prompt: Prompt, model: &ServedModel) -> Result<Vec<u32>, ApiError> {
        match prompt {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text) => tokenize(model, &text, SpecialTokens::Add),
        }
    }

    fn whole(index: usize, said: Said, reason: FinishReason) -> TextChoice {
        Self::choice(index, said, Some(reason))
    }

    fn opening(_index: usize) -> Option<TextChoice> {
        None
    }

    fn piece(index: usize, said: Said) -> TextChoice {
        Self::choice(index, said, None)
    }

    fn closing(index: usize, reason: FinishReason) -> TextChoice {
        Self::choice(index, Said::default(), Some(reason))
    }
}

/// A text, a list of token ids, or a list of one of either.
fn parse_prompt(value: &RawValue) -> Result<Prompt, ApiError> {
    let wrong = || ApiError::wrong_type("prompt", "a string, or a list of token ids");
    if kind(value) == Kind::Text {
        return serde_json::from_str(value.get()).map(Prompt::Text).map_err(|_| wrong());
    }
    if let Ok(ids) = serde_json::from_str(value.get()) {
        return Ok(Prompt::Ids(ids));
    }
    let prompts: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
    match prompts.as_slice() {
        [only] if kind(only) == Kind::Text => serde_json::from_str(only.get()).map(Prompt::Text),
        [only] => serde_json::from_str(only.get()).map(Prompt::Ids),
        [first, ..] if kind(first) != Kind::Other => {
            let message = "This server takes one prompt per request. Send one request for each prompt.";
            return Err(ApiError::invalid("unsupported_parameter", message).about("prompt"));
        }
        _ => return Err(wrong()),
    }
    .map_err(|_| wrong())
}
