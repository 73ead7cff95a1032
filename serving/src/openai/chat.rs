//! `POST /v1/chat/completions`: answers a chat.

use model::{Message, SpecialTokens, chat::ChatError};
use serde_json::value::RawValue;

use super::{
    error::ApiError,
    fields::{Fields, Kind, Unsupported, kind},
    generate::{Endpoint, tokenize},
    logprobs,
    text::Said,
    types::{ChatChoice, ChatChunkChoice, ChatMessage, Delta},
};
use crate::{
    engine::FinishReason,
    state::{Limits, ServedModel},
};

/// As answers come back to us when clients send their history.
const UNSUPPORTED_IN_MESSAGE: &[Unsupported] = &[
    ("name", &["null"]),
    ("refusal", &["null"]),
    ("audio", &["null"]),
    ("annotations", &["[]"]),
    ("tool_calls", &["[]"]),
    ("tool_call_id", &["null"]),
    ("function_call", &["null"]),
];

/// `/v1/chat/completions`.
pub(super) struct Chat;

impl Chat {
    fn chunk(index: usize, delta: Delta) -> ChatChunkChoice {
        ChatChunkChoice { index, delta, logprobs: None, finish_reason: None }
    }
}

impl Endpoint for Chat {
    type Prompt = Vec<Message>;
    type WholeChoice = ChatChoice;
    type ChunkChoice = ChatChunkChoice;

    const TOKEN_LIMITS: &'static [&'static str] = &["max_tokens", "max_completion_tokens"];
    const UNSUPPORTED: &'static [Unsupported] = &[
        ("response_format", &[r#"{"type":"text"}"#]),
        ("modalities", &[r#"["text"]"#]),
        ("tools", &["[]"]),
        ("tool_choice", &["\"none\"", "\"auto\""]),
        ("functions", &["[]"]),
        ("function_call", &["\"none\"", "\"auto\""]),
        ("audio", &["null"]),
        ("prediction", &["null"]),
        ("reasoning_effort", &["null"]),
        ("verbosity", &["null"]),
        ("web_search_options", &["null"]),
        ("moderation", &["null"]),
    ];
    const PATH: &'static str = "/v1/chat/completions";
    const ID_PREFIX: &'static str = "chatcmpl-";
    const WHOLE_OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";

    fn default_max_tokens(limits: &Limits) -> usize {
        limits.default_completion_tokens
    }

    fn take_prompt(fields: &mut Fields<'_>) -> Result<Vec<Message>, ApiError> {
        parse_messages(&fields.require::<Vec<&RawValue>>("messages", "a list of messages")?)
    }

    fn take_likeliest(fields: &mut Fields<'_>) -> Result<Option<usize>, ApiError> {
        logprobs::take_of_chat(fields)
    }

    fn encode(messages: Vec<Message>, model: &ServedModel) -> Result<Vec<u32>, ApiError> {
        let template = model.chat_template.as_ref().ok_or_else(|| {
            let message = "This model has no chat template and only completes text. Use /v1/completions.";
            ApiError::invalid("chat_not_supported", message).about("model")
        })?;
        let text = template.render(&messages, true).map_err(|error| match error {
            ChatError::Refused { reason } => {
                let message = format!("The model's chat template refuses these messages: {reason}");
                ApiError::invalid("invalid_messages", message).about("messages")
            }
            // The source is not logged: a template's error may quote the messages.
            _ => ApiError::invalid("invalid_messages", "The model's chat template cannot render these messages.")
                .about("messages"),
        })?;
        // The template has written the special tokens.
        tokenize(model, &text, SpecialTokens::Omit)
    }

    fn whole(index: usize, said: Said, reason: FinishReason) -> ChatChoice {
        let message = ChatMessage { role: "assistant", content: said.text, refusal: None };
        ChatChoice { index, message, logprobs: said.tokens.map(Into::into), finish_reason: reason.into() }
    }

    fn opening(index: usize) -> Option<ChatChunkChoice> {
        Some(Self::chunk(index, Delta { role: Some("assistant"), content: Some(String::new()) }))
    }

    fn piece(index: usize, said: Said) -> ChatChunkChoice {
        let delta = Delta { role: None, content: Some(said.text) };
        ChatChunkChoice { logprobs: said.tokens.map(Into::into), ..Self::chunk(index, delta) }
    }

    fn closing(index: usize, reason: FinishReason) -> ChatChunkChoice {
        ChatChunkChoice { finish_reason: Some(reason.into()), ..Self::chunk(index, Delta::default()) }
    }
}

fn parse_messages(messages: &[&RawValue]) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::wrong_value("messages", "at least one message"));
    }
    messages.iter().enumerate().map(|(index, message)| parse_message(message, &format!("messages[{index}]"))).collect()
}

fn parse_message(message: &RawValue, path: &str) -> Result<Message, ApiError> {
    let mut fields = Fields::of_value(message, path)?;
    let role: String = fields.require("role", "a string")?;
    let role = match role.as_str() {
        // OpenAI's newer name for the same thing; chat templates know the older one.
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => {
            return Err(ApiError::unsupported(&fields.name("role"), "system, developer, user or assistant"));
        }
        _ => return Err(ApiError::wrong_value(&fields.name("role"), "system, developer, user or assistant")),
    };
    let content = fields.take_raw("content");
    let name = fields.name("content");
    // Before the content: an assistant's message without content has `tool_calls`, and those are the reason to name.
    fields.refuse_rest(&[], UNSUPPORTED_IN_MESSAGE)?;
    let content = content.ok_or_else(|| ApiError::missing(&name))?;
    Ok(Message::new(role, parse_content(content, &name)?))
}

/// A text, or a list of text parts, which become lines.
fn parse_content(content: &RawValue, path: &str) -> Result<String, ApiError> {
    let wrong = || ApiError::wrong_type(path, "a string, or a list of text parts");
    if kind(content) == Kind::Text {
        return serde_json::from_str(content.get()).map_err(|_| wrong());
    }
    let parts: Vec<&RawValue> = serde_json::from_str(content.get()).map_err(|_| wrong())?;
    let texts = parts.iter().enumerate().map(|(index, part)| parse_part(part, &format!("{path}[{index}]")));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn parse_part(part: &RawValue, path: &str) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(part, path)?;
    let kind: String = fields.require("type", "a string")?;
    if kind != "text" {
        return Err(ApiError::unsupported(&fields.name("type"), "\"text\""));
    }
    let text = fields.require("text", "a string")?;
    fields.refuse_rest(&[], &[])?;
    Ok(text)
}
