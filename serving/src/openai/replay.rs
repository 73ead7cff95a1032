//! Does a stated request again and compares the bytes.

use std::{num::NonZeroUsize, sync::Arc};

use protocol::{
    B256,
    messages::{FinishReason, Statement},
    transcript,
};

use super::{
    account::Unmetered,
    chat::Chat,
    completions::Completions,
    error::ApiError,
    generate::{self, Checked, Endpoint},
    record::Record,
    text::TextEvent,
};
use crate::{engine::GenerationRequest, state::AppState};

/// Why a request cannot be done again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The statement is about another record.
    #[error("the record beside the statement is not the one that it signs: its hash is {found} and not {expected}")]
    OtherRecord {
        /// In the statement.
        expected: B256,
        /// Of the record.
        found: B256,
    },
    /// The record has another form than this version writes.
    #[error("the record beside the statement cannot be read")]
    Record(#[source] serde_json::Error),
    /// What was delivered is not a whole answer.
    #[error("the answer broke off ({reason:?}): only whole answers can be compared")]
    BrokenOff {
        /// Why it ended.
        reason: FinishReason,
    },
    /// The request, done here, would be another one.
    #[error("the request differs from the stated one in its {member}")]
    OtherRequest {
        /// In what.
        member: &'static str,
    },
    /// The request is refused, or its answer failed.
    #[error("the request cannot be done again: {reason}")]
    Refused {
        /// What a client would be told.
        reason: String,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The texts of its choices.
    pub texts: Vec<String>,
    /// Digest of them.
    pub response_hash: B256,
    /// Whether the stated answer had the same bytes.
    pub is_same: bool,
}

/// Does a request again on the model that `state` serves under the name in `body`, as `statement` says that it was done.
pub async fn replay(
    state: &AppState,
    body: &str,
    statement: &Statement,
    record: &str,
) -> Result<Replayed, ReplayError> {
    let found = transcript::request_hash(record);
    if found != statement.request_hash {
        return Err(ReplayError::OtherRecord { expected: statement.request_hash, found });
    }
    if !matches!(statement.finish_reason, FinishReason::Stop | FinishReason::Length) {
        return Err(ReplayError::BrokenOff { reason: statement.finish_reason });
    }
    let record: Record<'_> = serde_json::from_str(record).map_err(ReplayError::Record)?;
    let is_chat = serde_json::from_str::<serde_json::Value>(body).is_ok_and(|body| body.get("messages").is_some());
    let texts = if is_chat {
        again::<Chat>(state, body, &record).await
    } else {
        again::<Completions>(state, body, &record).await
    }?;
    let response_hash = transcript::response_hash(texts.iter().map(String::as_str));
    Ok(Replayed { texts, response_hash, is_same: response_hash == statement.response_hash })
}

async fn again<E: Endpoint>(state: &AppState, body: &str, record: &Record<'_>) -> Result<Vec<String>, ReplayError> {
    let refused = |error: ApiError| ReplayError::Refused { reason: error.message().to_owned() };
    let Checked { model, prompt, parameters, .. } = generate::check::<E>(state, body).map_err(refused)?;
    let served = model.clone();
    let prompt = state.tasks().spawn_blocking(move || E::encode(prompt, &served)).await;
    let prompt = prompt.map_err(|error| ReplayError::Refused { reason: error.to_string() })?.map_err(refused)?;
    let mut sampling = parameters.sampling;
    // What the client left open, the host chose.
    let other = |member| ReplayError::OtherRequest { member };
    let seed = record.seed.parse().map_err(|_| other("seed"))?;
    if !parameters.seeded {
        sampling.seed = seed;
    }
    let max_tokens = match parameters.max_tokens {
        Some(limit) => limit.tokens,
        None => NonZeroUsize::new(record.max_tokens).ok_or_else(|| other("token limit"))?,
    };
    let request = GenerationRequest {
        prompt: prompt.into(),
        choices: parameters.choices,
        max_tokens,
        stop_tokens: model.stop_tokens.clone(),
        sampling,
        adjustments: parameters.adjustments,
        likeliest: None,
        cache_scope: None,
    };
    if let Some(member) = Record::of(&model, &request, &parameters.stop).difference(record) {
        return Err(other(member));
    }
    let choices = usize::from(request.choices.get());
    let generation =
        generate::begin(state, String::new(), Arc::clone(&model), request, parameters.stop, Box::new(Unmetered));
    let mut generation = generation.map_err(refused)?;
    let mut texts = vec![String::new(); choices];
    while !generation.is_finished() {
        let (choice, event) = generation.next().await.map_err(refused)?;
        if let (TextEvent::Piece(said), Some(text)) = (event, texts.get_mut(choice)) {
            text.push_str(&said.text);
        }
    }
    Ok(texts)
}
