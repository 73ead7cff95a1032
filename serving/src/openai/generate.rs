//! From a checked request to its answer, the same for both endpoints.

use std::{num::NonZeroUsize, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::ApiError,
    parameters::Parameters,
    sse,
    stop::StopMatcher,
    text::{TextEvent, TextStream},
    types::{Reply, UsageFigures},
};
use crate::{
    engine::{EngineError, FinishReason, GenerationRequest},
    state::{AppState, ServedModel},
    usage::Usage,
};

/// How an endpoint words its answers.
pub(super) trait Wording: 'static {
    const ID_PREFIX: &'static str;
    const WHOLE_OBJECT: &'static str;
    const CHUNK_OBJECT: &'static str;
    type WholeChoice: Serialize + Send + Sync;
    type ChunkChoice: Serialize + Send + Sync;

    fn whole(text: String, reason: FinishReason) -> Self::WholeChoice;
    /// The chunk before the first text, if there is one.
    fn opening() -> Option<Self::ChunkChoice>;
    fn piece(text: String) -> Self::ChunkChoice;
    fn closing(reason: FinishReason) -> Self::ChunkChoice;
}

/// What all chunks of an answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: String,
    system_fingerprint: Option<String>,
}

impl Head {
    pub(super) fn reply<C>(
        &self,
        object: &'static str,
        choices: Vec<C>,
        usage: Option<Option<UsageFigures>>,
    ) -> Reply<C> {
        let Self { id, created, model, system_fingerprint } = self.clone();
        Reply { id, object, created, model, choices, usage, system_fingerprint }
    }
}

/// A request whose every field has been checked. No `Debug`: it holds a prompt.
pub(super) struct Checked {
    pub(super) model: Arc<ServedModel>,
    pub(super) prompt: Vec<u32>,
    pub(super) parameters: Parameters,
    /// Completion tokens when the client names no limit and the context has room.
    pub(super) default_max_tokens: usize,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Generates and answers, in one piece or as a stream. Failures before the first text have a status of their own.
pub(super) async fn respond<W: Wording>(state: &AppState, checked: Checked) -> Result<Response, ApiError> {
    let Checked { model, prompt, parameters, default_max_tokens, permit } = checked;
    if prompt.is_empty() {
        return Err(ApiError::empty_prompt());
    }
    let head = Head {
        id: state.draw_id(W::ID_PREFIX),
        created: state.now().0,
        model: model.id.clone(),
        system_fingerprint: model.system_fingerprint.clone(),
    };
    let usage = Usage::of_prompt(&prompt);
    let max_tokens = completion_limit(&model, prompt.len(), parameters.max_tokens, default_max_tokens)?;
    let mut sampling = parameters.sampling;
    if !parameters.seeded {
        sampling.seed = state.draw_seed();
    }
    let request = GenerationRequest { prompt, max_tokens, stop_tokens: model.stop_tokens.clone(), sampling };
    let tokens = model.engine.submit(request).map_err(|error| ApiError::engine(error, state.limits().retry_after))?;
    let mut text = TextStream::new(head.id.clone(), model, tokens, StopMatcher::new(parameters.stop), usage);

    match parameters.stream {
        None => whole::<W>(state, &head, text).await,
        Some(options) => {
            let first = next_or_abort(state, &mut text).await?;
            let include_usage = options.include_usage.unwrap_or(false);
            Ok(sse::respond::<W>(state, sse::Opened { head, text, first, include_usage, permit }))
        }
    }
}

/// The next piece, or why there will be none.
pub(super) async fn next_or_abort(state: &AppState, text: &mut TextStream) -> Result<TextEvent, ApiError> {
    let event = tokio::select! {
        // In order: when shutdown has waited long enough, even text that is ready is too late.
        biased;
        () = state.abort().cancelled() => Err(EngineError::Draining),
        event = text.next() => event,
    };
    event.map_err(|error| ApiError::engine(error, state.limits().retry_after))
}

/// Runs work for the CPU (templates, tokenizer) where it does not hold up other requests.
pub(super) async fn on_own_thread<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let result = state.tasks().spawn_blocking(work).await;
    result.map_err(|error| ApiError::internal("The request could not be processed.").caused_by(error))
}

async fn whole<W: Wording>(state: &AppState, head: &Head, mut text: TextStream) -> Result<Response, ApiError> {
    let mut content = String::new();
    let reason = loop {
        match next_or_abort(state, &mut text).await? {
            TextEvent::Piece(piece) => content += &piece,
            TextEvent::Finished(reason) => break reason,
        }
    };
    let figures = UsageFigures::from(text.usage());
    let reply = head.reply(W::WHOLE_OBJECT, vec![W::whole(content, reason)], Some(Some(figures)));
    Ok(Json(reply).into_response())
}

/// How many tokens the completion may have. A limit that a client names is kept or refused, never shortened.
fn completion_limit(
    model: &ServedModel,
    prompt: usize,
    asked: Option<NonZeroUsize>,
    default: usize,
) -> Result<NonZeroUsize, ApiError> {
    let context = model.engine.context_length();
    let room = context.saturating_sub(prompt);
    let exceeded = || ApiError::context_exceeded(context, prompt, asked.map(NonZeroUsize::get));
    match asked {
        Some(asked) if asked.get() <= room => Ok(asked),
        Some(_) => Err(exceeded()),
        None => NonZeroUsize::new(room.min(default)).ok_or_else(exceeded),
    }
}
