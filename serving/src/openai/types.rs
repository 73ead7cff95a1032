//! Wire forms of answers. Reference: <https://platform.openai.com/docs/api-reference/chat/object> and its neighbours.
//!
//! No `Debug` on what holds text.

use serde::Serialize;
use serde_json::Value;

use super::logprobs::{ChatLogprobs, TextLogprobs};
use crate::{engine::FinishReason, usage::Usage};

/// An answer or a chunk of one; `C` is the form of its choices.
#[derive(Serialize)]
pub(super) struct Reply<C> {
    pub(super) id: String,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) choices: Vec<C>,
    /// Absent, `null` (a chunk before the one with the usage), or the figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<UsageFigures>>,
    pub(super) system_fingerprint: Option<String>,
    /// What the host adds when it has closed the request's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hallmark: Option<Value>,
}

/// Token counts.
#[derive(Debug, Serialize)]
pub(super) struct UsageFigures {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for UsageFigures {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt().get(),
            completion_tokens: usage.completion().get(),
            total_tokens: usage.total().get(),
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached().get() },
            completion_tokens_details: CompletionDetails { reasoning_tokens: 0 },
        }
    }
}

/// Why a choice ended.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Finish {
    Stop,
    Length,
}

impl From<FinishReason> for Finish {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Stop,
            FinishReason::Length => Self::Length,
        }
    }
}

/// A choice of `/v1/completions`, whole or a piece.
#[derive(Serialize)]
pub(super) struct TextChoice {
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) logprobs: Option<TextLogprobs>,
    pub(super) finish_reason: Option<Finish>,
}

/// A whole choice of `/v1/chat/completions`.
#[derive(Serialize)]
pub(super) struct ChatChoice {
    pub(super) index: usize,
    pub(super) message: ChatMessage,
    pub(super) logprobs: Option<ChatLogprobs>,
    pub(super) finish_reason: Finish,
}

/// What the assistant says.
#[derive(Serialize)]
pub(super) struct ChatMessage {
    pub(super) role: &'static str,
    pub(super) content: String,
    pub(super) refusal: Option<()>,
}

/// A piece of a choice of `/v1/chat/completions`.
#[derive(Serialize)]
pub(super) struct ChatChunkChoice {
    pub(super) index: usize,
    pub(super) delta: Delta,
    pub(super) logprobs: Option<ChatLogprobs>,
    pub(super) finish_reason: Option<Finish>,
}

/// What a piece adds to the message.
#[derive(Default, Serialize)]
pub(super) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
}

/// A model in `/v1/models`.
#[derive(Debug, Serialize)]
pub(super) struct ModelObject {
    pub(super) id: String,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) owned_by: &'static str,
}

/// The answer of `GET /v1/models`.
#[derive(Debug, Serialize)]
pub(super) struct ModelList {
    pub(super) object: &'static str,
    pub(super) data: Vec<ModelObject>,
}
