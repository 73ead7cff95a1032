//! `Idempotency-Key`: who asks again with the same key gets the same answer and the same statement, and pays once.
//!
//! Only answers that were complete are kept, in the transaction that makes their statement durable. One that broke off is billed
//! for what was delivered, and asking again is another request.

use axum::{
    Json,
    http::{HeaderMap, HeaderName},
    response::{IntoResponse, Response},
};
use protocol::units::TokenCount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    error::ApiError,
    generate::{Endpoint, Head},
    sse,
    text::Said,
    types::{Reply, UsageFigures},
};
use crate::{engine::FinishReason, usage::Usage};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key.
const LONGEST: usize = 255;

/// The key that a client sends, if it sends one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=LONGEST).contains(&key.len()));
    let wrong = || {
        let message = format!("The header Idempotency-Key must be 1 to {LONGEST} visible ASCII characters.");
        ApiError::invalid("invalid_idempotency_key", message)
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

/// An answer as it is kept. No `Debug`: it holds text.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) prompt: TokenCount,
    pub(super) cached: TokenCount,
    pub(super) completion: TokenCount,
    pub(super) choices: Vec<Choice>,
    pub(super) hallmark: Value,
}

/// One choice of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) is_cut: bool,
}

impl Choice {
    fn reason(&self) -> FinishReason {
        if self.is_cut { FinishReason::Length } else { FinishReason::Stop }
    }
}

impl Answer {
    fn usage(&self) -> UsageFigures {
        UsageFigures::from(Usage::new(self.prompt, self.cached, self.completion))
    }

    /// The answer in one piece.
    pub(super) fn whole<E: Endpoint>(self) -> Response {
        let usage = Some(Some(self.usage()));
        let said = |text: &str| Said { text: text.to_owned(), tokens: None };
        let choices = self.choices.iter().enumerate();
        let choices = choices.map(|(index, choice)| E::whole(index, said(&choice.text), choice.reason())).collect();
        let hallmark = Some(self.hallmark);
        Json(Reply { usage, hallmark, ..self.head.reply(E::WHOLE_OBJECT, choices) }).into_response()
    }

    /// The answer as a stream that is there at once.
    pub(super) fn stream<E: Endpoint>(self, include_usage: bool) -> Response {
        let chunk = |choice| Reply {
            usage: include_usage.then_some(None),
            ..self.head.reply::<E::ChunkChoice>(E::CHUNK_OBJECT, vec![choice])
        };
        let mut chunks = Vec::new();
        chunks.extend((0..self.choices.len()).filter_map(E::opening).map(chunk));
        for (index, choice) in self.choices.iter().enumerate() {
            chunks.push(chunk(E::piece(index, Said { text: choice.text.clone(), tokens: None })));
            chunks.push(chunk(E::closing(index, choice.reason())));
        }
        if include_usage {
            let usage = Some(Some(self.usage()));
            chunks.push(Reply { usage, ..self.head.reply(E::CHUNK_OBJECT, Vec::new()) });
        }
        if let Some(last) = chunks.last_mut() {
            last.hallmark = Some(self.hallmark.clone());
        }
        sse::replay(&chunks)
    }
}
