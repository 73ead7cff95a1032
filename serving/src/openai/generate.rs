//! From a request to its answer, the same for both endpoints.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use alloy_primitives::keccak256;
use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use model::SpecialTokens;
use serde::{Deserialize, Serialize};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    account::{Account, Closed, Settle, Subject, Unmetered},
    error::ApiError,
    fields::{Fields, Unsupported},
    generation::Generation,
    metered::{Entrance, Gate},
    once,
    parameters::{HARMLESS, Parameters, StreamOptions, TokenLimit},
    request::{Leave, RequestBody},
    sse,
    text::{Said, TextEvent, TextStream},
    types::{Reply, UsageFigures},
};
use crate::{
    engine::{FinishReason, GenerationRequest},
    state::{AppState, Limits, ServedModel},
    usage::token_count,
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
    /// Where it is.
    const PATH: &'static str;
    const ID_PREFIX: &'static str;
    const WHOLE_OBJECT: &'static str;
    const CHUNK_OBJECT: &'static str;

    /// Completion tokens when the client names no limit and the context has room.
    fn default_max_tokens(limits: &Limits) -> usize;
    fn take_prompt(fields: &mut Fields<'_>) -> Result<Self::Prompt, ApiError>;
    /// How many of the likeliest tokens come with each token, if log-probabilities are wanted.
    fn take_likeliest(fields: &mut Fields<'_>) -> Result<Option<usize>, ApiError>;
    /// Token ids of the templated prompt, special tokens included. Takes its time.
    fn encode(prompt: Self::Prompt, model: &ServedModel) -> Result<Vec<u32>, ApiError>;

    fn whole(index: usize, said: Said, reason: FinishReason) -> Self::WholeChoice;
    /// The chunk before a choice's first text, if there is one.
    fn opening(index: usize) -> Option<Self::ChunkChoice>;
    fn piece(index: usize, said: Said) -> Self::ChunkChoice;
    fn closing(index: usize, reason: FinishReason) -> Self::ChunkChoice;
}

/// What all chunks of an answer have in common.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: String,
    system_fingerprint: Option<String>,
}

impl Head {
    /// An answer or a chunk without usage.
    pub(super) fn reply<C>(&self, object: &'static str, choices: Vec<C>) -> Reply<C> {
        let Self { id, created, model, system_fingerprint } = self.clone();
        Reply { id, object, created, model, choices, usage: None, system_fingerprint, hallmark: None }
    }
}

/// A request whose every field has been checked. No `Debug`: it holds a prompt.
pub(super) struct Checked<P> {
    pub(super) model: Arc<ServedModel>,
    pub(super) prompt: P,
    pub(super) parameters: Parameters,
    pub(super) likeliest: Option<usize>,
}

/// Answers in one piece or as a stream. Failures before the first text have a status of their own.
pub(super) async fn create<E: Endpoint>(
    State(state): State<AppState>,
    headers: HeaderMap,
    RequestBody { text, leave }: RequestBody,
) -> Result<Response, ApiError> {
    let Checked { model, prompt, parameters, likeliest } = check::<E>(&state, &text)?;
    let body_hash = keccak256(&text);
    // What it said has been copied out, and the wait from here on may be long.
    drop(text);
    let entered = match Gate::of(state.metering(), &model, E::PATH) {
        Some(gate) => match gate.enter(&headers, body_hash, likeliest.is_some()).await? {
            Entrance::New(entered) => Some(entered),
            Entrance::Answered(answer) => return Ok(answered::<E>(*answer, parameters.stream)),
        },
        None => None,
    };
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
    let default = E::default_max_tokens(limits);
    let mut max_tokens = completion_limit(&model, prompt.len(), parameters.max_tokens, default, limits)?;
    let mut cache_scope = parameters.cache_key;
    let mut paid = None;
    if let Some(entered) = entered {
        cache_scope = Some(entered.cache_scope(cache_scope.as_deref()));
        let is_named = parameters.max_tokens.is_some();
        let (request, affordable) = entered.admit(prompt.len(), parameters.choices, max_tokens, is_named)?;
        (paid, max_tokens) = (Some(request), affordable);
    }
    let mut sampling = parameters.sampling;
    if !parameters.seeded {
        sampling.seed = state.draw_seed();
    }
    let request = GenerationRequest {
        prompt: prompt.into(),
        choices: parameters.choices,
        max_tokens,
        stop_tokens: model.stop_tokens.clone(),
        sampling,
        adjustments: parameters.adjustments,
        likeliest,
        cache_scope,
    };
    let settle: Box<dyn Settle> = match paid {
        Some(paid) => Box::new(paid.settle(&head, &model, &request, &parameters.stop)?),
        None => Box::new(Unmetered),
    };
    let mut generation = begin(&state, head.id.clone(), model, request, parameters.stop, settle)?;

    match parameters.stream {
        // The request is open until this is answered; dropped with the handler if the client hangs up.
        None => whole::<E>(&head, generation, open).await,
        Some(options) => {
            let first = match generation.next().await {
                Ok(first) => first,
                Err(error) => {
                    generation.abandon().await;
                    return Err(error);
                }
            };
            let include_usage = options.include_usage.unwrap_or(false);
            Ok(sse::respond::<E>(&state, sse::Opened { head, generation, first, include_usage, permit: open }))
        }
    }
}

/// The same answer once more.
fn answered<E: Endpoint>(answer: once::Answer, stream: Option<StreamOptions>) -> Response {
    match stream {
        Some(options) => answer.stream::<E>(options.include_usage.unwrap_or(false)),
        None => answer.whole::<E>(),
    }
}

pub(super) fn check<E: Endpoint>(state: &AppState, text: &str) -> Result<Checked<E::Prompt>, ApiError> {
    let mut fields = Fields::of_body(text)?;
    let id: String = fields.require("model", "a string")?;
    let model = state.model(&id).ok_or_else(|| ApiError::model_not_found(&id))?.clone();
    let prompt = E::take_prompt(&mut fields)?;
    let parameters = Parameters::take(&mut fields, E::TOKEN_LIMITS)?;
    let likeliest = E::take_likeliest(&mut fields)?;
    fields.refuse_rest(HARMLESS, E::UNSUPPORTED)?;
    if likeliest.is_some() && !model.engine.yields_tokens() {
        return Err(ApiError::unsupported("logprobs", "null"));
    }
    Ok(Checked { model, prompt, parameters, likeliest })
}

/// Hands a request to its engine. An engine that refuses it has used nothing, so an account is opened for those that it
/// takes.
pub(super) fn begin(
    state: &AppState,
    id: String,
    model: Arc<ServedModel>,
    request: GenerationRequest,
    stop: Vec<String>,
    settle: Box<dyn Settle>,
) -> Result<Generation, ApiError> {
    let limits = state.limits();
    let (prompt, logprobs) = (token_count(request.prompt.len()), request.likeliest.is_some());
    let streams = model.engine.submit(request).map_err(|error| ApiError::engine(error, limits.retry_after))?;
    let texts: Vec<TextStream> =
        streams.into_iter().map(|stream| TextStream::new(&model.tokenizer, stream, stop.clone(), logprobs)).collect();
    let subject = Subject { request: id, model, prompt, choices: texts.len() };
    let account = Account::open(state, subject, settle);
    Ok(Generation::new(state.clone(), texts, account, deadline(limits.generation_timeout)))
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

async fn whole<E: Endpoint>(
    head: &Head,
    mut generation: Generation,
    _open: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let mut said: Vec<(Said, Option<FinishReason>)> =
        (0..generation.choices()).map(|_| (generation.silence(), None)).collect();
    while !generation.is_finished() {
        let (index, event) = match generation.next().await {
            Ok(next) => next,
            Err(error) => {
                generation.abandon().await;
                return Err(error);
            }
        };
        let Some((said, finish)) = said.get_mut(index) else { continue };
        match event {
            TextEvent::Piece(more) => said.append(more),
            TextEvent::Finished(reason) => *finish = Some(reason),
        }
    }
    let mut choices = Vec::new();
    for (index, (said, finish)) in said.into_iter().enumerate() {
        // From here on the answer is made, and counts as delivered even if the client goes away.
        if let (Some(reason), true) = (finish, generation.delivered().add(index, &said.text)) {
            choices.push(E::whole(index, said, reason));
        }
    }
    let Closed { usage, hallmark } = generation.close().await?;
    let usage = Some(Some(UsageFigures::from(usage)));
    Ok(Json(Reply { usage, hallmark, ..head.reply(E::WHOLE_OBJECT, choices) }).into_response())
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
