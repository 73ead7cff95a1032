//! From a request to its answer, the same for both endpoints.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use model::SpecialTokens;
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{self, Instant},
};

use super::{
    error::ApiError,
    fields::{Fields, Unsupported},
    parameters::{HARMLESS, Parameters, TokenLimit},
    request::{Leave, RequestBody},
    sse,
    stop::StopMatcher,
    text::{TextEvent, TextStream},
    types::{Reply, UsageFigures},
};
use crate::{
    engine::{EngineError, FinishReason, GenerationRequest},
    state::{AppState, Limits, ServedModel},
    usage::Usage,
};

/// What an endpoint does in its own way.
pub(super) trait Endpoint: 'static {
    /// What to answer or to continue, as the client wrote it.
    type Prompt: Send + 'static;
    type WholeChoice: Serialize + Send + Sync;
    type ChunkChoice: Serialize + Send + Sync;

    /// Names under which clients send the limit on the completion's tokens.
    const TOKEN_LIMITS: &'static [&'static str];
    const UNSUPPORTED: &'static [Unsupported];
    const ID_PREFIX: &'static str;
    const WHOLE_OBJECT: &'static str;
    const CHUNK_OBJECT: &'static str;

    /// Completion tokens when the client names no limit and the context has room.
    fn default_max_tokens(limits: &Limits) -> usize;
    fn take_prompt(fields: &mut Fields<'_>) -> Result<Self::Prompt, ApiError>;
    /// Token ids of the templated prompt, special tokens included. Takes its time.
    fn encode(prompt: Self::Prompt, model: &ServedModel) -> Result<Vec<u32>, ApiError>;

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
struct Checked<P> {
    model: Arc<ServedModel>,
    prompt: P,
    parameters: Parameters,
}

/// Answers in one piece or as a stream. Failures before the first text have a status of their own.
pub(super) async fn create<E: Endpoint>(
    State(state): State<AppState>,
    RequestBody { text, leave }: RequestBody,
) -> Result<Response, ApiError> {
    let Checked { model, prompt, parameters } = check::<E>(&state, &text)?;
    // What it said has been copied out, and the wait from here on may be long.
    drop(text);
    let (prompt, open) = encode::<E>(&state, model.clone(), prompt, leave).await?;
    if prompt.is_empty() {
        return Err(ApiError::empty_prompt());
    }
    let limits = state.limits();
    let head = Head {
        id: state.draw_id(E::ID_PREFIX),
        created: state.now().0,
        model: model.id.clone(),
        system_fingerprint: model.system_fingerprint.clone(),
    };
    let usage = Usage::of_prompt(&prompt);
    let default = E::default_max_tokens(limits);
    let max_tokens = completion_limit(&model, prompt.len(), parameters.max_tokens, default, limits)?;
    let mut sampling = parameters.sampling;
    if !parameters.seeded {
        sampling.seed = state.draw_seed();
    }
    let request = GenerationRequest { prompt, max_tokens, stop_tokens: model.stop_tokens.clone(), sampling };
    let tokens = model.engine.submit(request).map_err(|error| ApiError::engine(error, limits.retry_after))?;
    let stops = StopMatcher::new(parameters.stop);
    let mut text = TextStream::new(head.id.clone(), model, tokens, stops, usage, deadline(limits.generation_timeout));

    match parameters.stream {
        // The request is open until this is answered; dropped with the handler if the client hangs up.
        None => whole::<E>(&state, &head, text, open).await,
        Some(options) => {
            let first = next_or_abort(&state, &mut text).await?;
            let include_usage = options.include_usage.unwrap_or(false);
            Ok(sse::respond::<E>(&state, sse::Opened { head, text, first, include_usage, permit: open }))
        }
    }
}

fn check<E: Endpoint>(state: &AppState, text: &str) -> Result<Checked<E::Prompt>, ApiError> {
    let mut fields = Fields::of_body(text)?;
    let id: String = fields.require("model", "a string")?;
    let model = state.model(&id).ok_or_else(|| ApiError::model_not_found(&id))?.clone();
    let prompt = E::take_prompt(&mut fields)?;
    let parameters = Parameters::take(&mut fields, E::TOKEN_LIMITS)?;
    fields.refuse_rest(HARMLESS, E::UNSUPPORTED)?;
    Ok(Checked { model, prompt, parameters })
}

/// Renders and tokenizes on a thread where that holds up no other request, no more prompts at once than there are
/// encoders.
///
/// A client that hangs up while its prompt waits takes it along. Once begun, the work cannot be stopped: it keeps the
/// request's leave to the end, so that hanging up does not make room for more of it.
async fn encode<E: Endpoint>(
    state: &AppState,
    model: Arc<ServedModel>,
    prompt: E::Prompt,
    leave: Leave,
) -> Result<(Vec<u32>, OwnedSemaphorePermit), ApiError> {
    let turn = state.encoder().await;
    let work = move || {
        let ids = E::encode(prompt, &model);
        let Leave { open, text } = leave;
        drop((text, turn));
        ids.map(|ids| (ids, open))
    };
    let result = state.tasks().spawn_blocking(work).await;
    result.map_err(|error| ApiError::internal("The request could not be processed.").caused_by(error))?
}

/// Token ids of a text. One that cannot fit the context is refused before any work is spent on it.
pub(super) fn tokenize(model: &ServedModel, text: &str, special: SpecialTokens) -> Result<Vec<u32>, ApiError> {
    let context = model.engine.context_length();
    if text.len() > context.saturating_mul(model.tokenizer.longest_token_bytes()) {
        return Err(ApiError::text_exceeds_context(context, text.len()));
    }
    let encoded = model.tokenizer.encode(text, special);
    encoded.map_err(|error| ApiError::internal("The prompt could not be tokenized.").caused_by(error))
}

/// So long from now, or as good as never.
fn deadline(patience: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(365 * 86_400);
    let now = Instant::now();
    now.checked_add(patience.min(NEVER)).unwrap_or(now)
}

/// The next piece, or why there will be none.
pub(super) async fn next_or_abort(state: &AppState, text: &mut TextStream) -> Result<TextEvent, ApiError> {
    let limits = state.limits();
    let event = tokio::select! {
        // In order: when the host's patience is over, even text that is ready is too late.
        biased;
        () = state.abort().cancelled() => Err(EngineError::Draining),
        () = time::sleep_until(text.deadline()) => return Err(ApiError::generation_timeout(limits.generation_timeout)),
        event = text.next() => event,
    };
    event.map_err(|error| ApiError::engine(error, limits.retry_after))
}

async fn whole<E: Endpoint>(
    state: &AppState,
    head: &Head,
    mut text: TextStream,
    _open: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let mut content = String::new();
    let reason = loop {
        match next_or_abort(state, &mut text).await? {
            TextEvent::Piece(piece) => content += &piece,
            TextEvent::Finished(reason) => break reason,
        }
    };
    let figures = UsageFigures::from(text.usage());
    let reply = head.reply(E::WHOLE_OBJECT, vec![E::whole(content, reason)], Some(Some(figures)));
    Ok(Json(reply).into_response())
}

/// How many tokens the completion may have. A limit that a client names is kept or refused, never shortened.
fn completion_limit(
    model: &ServedModel,
    prompt: usize,
    asked: Option<TokenLimit>,
    default: usize,
    limits: &Limits,
) -> Result<NonZeroUsize, ApiError> {
    let context = model.engine.context_length();
    let room = context.saturating_sub(prompt);
    let most = limits.max_completion_tokens;
    let exceeded = || ApiError::context_exceeded(context, prompt, asked.map(|asked| asked.tokens.get()));
    match asked {
        Some(asked) if asked.tokens.get() > room => Err(exceeded()),
        Some(asked) if asked.tokens > most => Err(ApiError::completion_too_long(asked.name, most.get())),
        Some(asked) => Ok(asked.tokens),
        None => NonZeroUsize::new(room.min(default).min(most.get())).ok_or_else(exceeded),
    }
}
