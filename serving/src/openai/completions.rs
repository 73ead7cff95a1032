//! `POST /v1/completions`: continues a text.

use axum::{extract::State, response::Response};
use model::{SpecialTokens, Tokenizer};
use serde_json::value::RawValue;

use super::{
    error::ApiError,
    fields::{Fields, Kind, Unsupported, kind},
    generate::{self, Checked, Wording},
    parameters::{HARMLESS, Parameters},
    request::RequestBody,
    types::TextChoice,
};
use crate::{engine::FinishReason, state::AppState};

/// OpenAI's default for this endpoint.
const DEFAULT_MAX_TOKENS: usize = 16;
const UNSUPPORTED: &[Unsupported] = &[
    ("n", &["1"]),
    ("best_of", &["1"]),
    ("echo", &["false"]),
    ("suffix", &["\"\"", "null"]),
    ("logprobs", &["null"]),
    ("logit_bias", &["{}"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
];

/// What to continue. No `Debug`: it is private.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

pub(super) async fn create(State(state): State<AppState>, body: RequestBody) -> Result<Response, ApiError> {
    let mut fields = Fields::of_body(&body.text)?;
    let id: String = fields.require("model", "a string")?;
    let model = state.model(&id).ok_or_else(|| ApiError::model_not_found(&id))?.clone();
    let prompt = fields.take_raw("prompt").ok_or_else(|| ApiError::missing("prompt"))?;
    let prompt = parse_prompt(prompt)?;
    let parameters = Parameters::take(&mut fields, &["max_tokens"])?;
    fields.refuse_rest(HARMLESS, UNSUPPORTED)?;

    let prompt = match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => {
            let tokenizer = model.tokenizer.clone();
            generate::on_own_thread(&state, move || encode(&tokenizer, &text)).await??
        }
    };
    let checked = Checked { model, prompt, parameters, default_max_tokens: DEFAULT_MAX_TOKENS, permit: body.permit };
    generate::respond::<TextWording>(&state, checked).await
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

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ApiError> {
    let encoded = tokenizer.encode(text, SpecialTokens::Add);
    encoded.map_err(|error| ApiError::internal("The prompt could not be tokenized.").caused_by(error))
}

/// Wording of `/v1/completions`.
struct TextWording;

impl TextWording {
    fn choice(text: String, reason: Option<FinishReason>) -> TextChoice {
        TextChoice { index: 0, text, logprobs: None, finish_reason: reason.map(Into::into) }
    }
}

impl Wording for TextWording {
    const ID_PREFIX: &'static str = "cmpl-";
    const WHOLE_OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    type WholeChoice = TextChoice;
    type ChunkChoice = TextChoice;

    fn whole(text: String, reason: FinishReason) -> TextChoice {
        Self::choice(text, Some(reason))
    }

    fn opening() -> Option<TextChoice> {
        None
    }

    fn piece(text: String) -> TextChoice {
        Self::choice(text, None)
    }

    fn closing(reason: FinishReason) -> TextChoice {
        Self::choice(String::new(), Some(reason))
    }
}
