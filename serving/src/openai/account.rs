//! The account of one request: what was delivered, how it ended, and that it is closed exactly once.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::units::TokenCount;
use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::task::TaskTracker;

use super::{error::ApiError, text::Progress};
use crate::{
    engine::{FinishReason, ReportedUsage},
    metrics::Metrics,
    state::{AppState, ServedModel},
    usage::{Usage, completion_tokens},
};

/// Takes note of what a request has used.
///
/// Made when the request is admitted. [`close`](Self::close) is called once, whatever becomes of an answer that was
/// begun; a `Settle` that is dropped instead belongs to a request that the engine refused, or to a process that ends.
pub(crate) trait Settle: Send + 'static {
    /// Settles the request. An answer that is complete waits for this before its end is sent: an error replaces the end,
    /// and a value goes into the last JSON of the answer, under `hallmark`.
    ///
    /// Runs on a task of its own, to its end, even if the client goes away meanwhile.
    fn close(self: Box<Self>, ending: Ending) -> Closing;
}

/// A [`Settle`] at work.
pub(crate) type Closing = Pin<Box<dyn Future<Output = Result<Option<Value>, ApiError>> + Send>>;

/// For a host that sends no bills.
#[derive(Debug)]
pub(crate) struct Unmetered;

impl Settle for Unmetered {
    fn close(self: Box<Self>, _ending: Ending) -> Closing {
        Box::pin(async { Ok(None) })
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer is complete.
    Finished,
    /// The client hung up, or took nothing for too long.
    ClientGone,
    EngineFailed,
    /// The answer took longer than the host allows.
    TimedOut,
    /// The host is going away.
    ShutDown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientGone => "client_gone",
            Self::EngineFailed => "engine_failed",
            Self::TimedOut => "timed_out",
            Self::ShutDown => "shut_down",
        }
    }
}

/// What a closed account holds.
pub(crate) struct Ending {
    /// The answer's id.
    pub(crate) request: String,
    pub(crate) outcome: Outcome,
    pub(crate) usage: Usage,
    pub(crate) choices: Vec<ChoiceEnding>,
}

/// One choice of a closed account.
pub(crate) struct ChoiceEnding {
    /// What was handed to the connection.
    pub(crate) text: String,
    /// Its tokens, as [`completion_tokens`] counts.
    pub(crate) completion: TokenCount,
    /// Why generation ended; `None` if it was broken off.
    pub(crate) finish: Option<FinishReason>,
    /// Tokens that were generated, delivered or not; from an engine that yields text, the most that can have been.
    pub(crate) generated: TokenCount,
    /// The engine's own count, from engines that give one.
    pub(crate) reported: Option<ReportedUsage>,
}

/// The texts are as private as the prompt.
impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending")
            .field("request", &self.request)
            .field("outcome", &self.outcome)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

/// What an account is about.
#[derive(Debug)]
pub(super) struct Subject {
    /// The answer's id, under which the log shows it.
    pub(super) request: String,
    pub(super) model: Arc<ServedModel>,
    /// Tokens of the templated prompt.
    pub(super) prompt: TokenCount,
    pub(super) choices: usize,
}

/// The account of a request that an engine works on.
///
/// [`close`](Self::close) it when the answer is complete and before the client can see that it is. Dropped, it is closed
/// all the same, with what was delivered until then. No `Debug`: it holds text.
pub(super) struct Account {
    tasks: TaskTracker,
    metrics: Metrics,
    runtime: Handle,
    subject: Subject,
    progress: Vec<Progress>,
    delivered: Delivered,
    outcome: Outcome,
    /// `None` once it is being closed.
    settle: Option<Box<dyn Settle>>,
}

/// What the end of an answer says of its account.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) usage: Usage,
    pub(super) hallmark: Option<Value>,
}

impl Account {
    pub(super) fn open(state: &AppState, subject: Subject, settle: Box<dyn Settle>) -> Self {
        Self {
            tasks: state.tasks().clone(),
            metrics: state.metrics().clone(),
            runtime: Handle::current(),
            progress: vec![Progress::default(); subject.choices],
            delivered: Delivered::new(subject.choices),
            outcome: Outcome::ClientGone,
            settle: Some(settle),
            subject,
        }
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        &self.subject.model.id
    }

    /// How far the engine has come with a choice.
    pub(super) fn note(&mut self, choice: usize, progress: Progress) {
        if let Some(noted) = self.progress.get_mut(choice) {
            *noted = progress;
        }
    }

    /// Why the answer will not be complete.
    pub(super) fn fail(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Where text is handed over.
    pub(super) fn delivered(&self) -> &Delivered {
        &self.delivered
    }

    /// Closes the account of a complete answer.
    pub(super) async fn close(mut self) -> Result<Closed, ApiError> {
        self.outcome = Outcome::Finished;
        let failed = || ApiError::internal("The account of this request could not be closed.");
        let closing = self.begin_closing().ok_or_else(failed)?;
        closing.await.map_err(|error| failed().caused_by(error))?
    }

    /// Closes the account of an answer that will not be complete, for the reason given to [`fail`](Self::fail).
    pub(super) async fn abandon(mut self) {
        let Some(closing) = self.begin_closing() else { return };
        if let Ok(Err(error)) = closing.await {
            error.log();
        }
    }

    /// On a task of its own: whoever waits for it may be gone before it has ended, or was never there.
    fn begin_closing(&mut self) -> Option<oneshot::Receiver<Result<Closed, ApiError>>> {
        let settle = self.settle.take()?;
        let request = self.subject.request.clone();
        let model = self.subject.model.clone();
        let prompt = self.subject.prompt;
        let said = (self.delivered.close(), std::mem::take(&mut self.progress));
        let outcome = self.outcome;
        let (tasks, metrics) = (self.tasks.clone(), self.metrics.clone());
        let closing = async move {
            let served = model.clone();
            // Long texts take their time.
            let counted = tasks.spawn_blocking(move || end(request, &served, prompt, said, outcome)).await;
            let ending = counted.map_err(|error| {
                ApiError::internal("The tokens of this answer could not be counted.").caused_by(error)
            })?;
            count(&metrics, &ending, &model);
            log(&ending, &model);
            let usage = ending.usage;
            let hallmark = settle.close(ending).await?;
            Ok::<Closed, ApiError>(Closed { usage, hallmark })
        };
        let request = self.subject.request.clone();
        let (tell, told) = oneshot::channel();
        let task = async move {
            if let Err(Err(error)) = tell.send(closing.await) {
                tracing::error!(request.id = %request, ?outcome, "failed to close the account of {request}");
                error.log();
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
        Some(told)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Nobody waits for it; a failure is logged.
        drop(self.begin_closing());
    }
}

fn end(
    request: String,
    model: &ServedModel,
    prompt: TokenCount,
    (texts, progress): (Vec<String>, Vec<Progress>),
    outcome: Outcome,
) -> Ending {
    // The prompt is one for all choices, and what the first found of it in a cache is what the request found.
    let cached = progress.first().map_or(TokenCount::ZERO, |first| first.cached);
    let choices: Vec<ChoiceEnding> = texts
        .into_iter()
        .zip(progress)
        .map(|(text, Progress { generated, finish, .. })| {
            let completion = completion_tokens(&model.tokenizer, &text, generated).unwrap_or_else(|error| {
                // What cannot be counted cannot be billed.
                tracing::error!(request.id = %request, %error, "failed to count the tokens of {request}");
                TokenCount::ZERO
            });
            let reported = finish.and_then(|finish| finish.reported);
            ChoiceEnding { text, completion, finish: finish.map(|finish| finish.reason), generated, reported }
        })
        .collect();
    let completion = choices.iter().try_fold(TokenCount::ZERO, |sum, choice| sum.checked_add(choice.completion));
    let usage = Usage::new(prompt, cached, completion.unwrap_or(TokenCount::new(u64::MAX)));
    Ending { request, outcome, usage, choices }
}

fn count(metrics: &Metrics, ending: &Ending, model: &ServedModel) {
    metrics.request(&model.id, ending.outcome.name(), &ending.usage);
    let differs = |choice: &ChoiceEnding| {
        let counted = ReportedUsage { prompt: ending.usage.prompt(), completion: choice.completion };
        choice.reported.is_some_and(|reported| reported != counted)
    };
    if ending.choices.iter().any(differs) {
        metrics.difference(&model.id);
    }
}

/// The one line that the log has of a request.
fn log(ending: &Ending, model: &ServedModel) {
    let Ending { request, outcome, usage, choices } = ending;
    let (prompt, cached, completion) = (usage.prompt(), usage.cached(), usage.completion());
    let finish: Vec<_> = choices.iter().map(|choice| choice.finish).collect();
    tracing::info!(
        request.id = %request,
        model.id = %model.id,
        prompt_tokens = prompt.get(),
        cached_tokens = cached.get(),
        completion_tokens = completion.get(),
        choices = choices.len(),
        ?outcome,
        ?finish,
        "request {request} on {}: {prompt} prompt ({cached} cached) and {completion} completion tokens, {outcome:?}",
        model.id,
    );
    for (index, choice) in choices.iter().enumerate() {
        let counted = ReportedUsage { prompt, completion: choice.completion };
        if let Some(reported) = choice.reported.filter(|reported| !agrees(*reported, counted, choice.finish)) {
            tracing::warn!(
                request.id = %request,
                ?reported,
                ?counted,
                "choice {index} of {request}: the engine reports {} prompt and {} completion tokens, the host counts {} and {}",
                reported.prompt,
                reported.completion,
                counted.prompt,
                counted.completion,
            );
        }
    }
}

/// Whether an engine's own figure is the host's. Engines also count the token with which the model ends an answer, which
/// no text shows.
fn agrees(reported: ReportedUsage, counted: ReportedUsage, finish: Option<FinishReason>) -> bool {
    let ended = u64::from(finish == Some(FinishReason::Stop));
    let more = reported.completion.get().checked_sub(counted.completion.get());
    reported.prompt == counted.prompt && more.is_some_and(|more| more <= ended)
}

/// The text that was handed to the connection, for each choice, until the account is closed. Clones share it. No
/// `Debug`: it holds text.
#[derive(Clone)]
pub(super) struct Delivered {
    texts: Arc<Mutex<Texts>>,
}

struct Texts {
    choices: Vec<String>,
    closed: bool,
}

impl Delivered {
    fn new(choices: usize) -> Self {
        Self { texts: Arc::new(Mutex::new(Texts { choices: vec![String::new(); choices], closed: false })) }
    }

    /// Whether text may still be handed over, which is then on the account.
    #[must_use]
    pub(super) fn add(&self, choice: usize, text: &str) -> bool {
        let mut texts = self.lock();
        if texts.closed {
            return false;
        }
        if let Some(delivered) = texts.choices.get_mut(choice) {
            delivered.push_str(text);
        }
        true
    }

    fn close(&self) -> Vec<String> {
        let mut texts = self.lock();
        texts.closed = true;
        std::mem::take(&mut texts.choices)
    }

    fn lock(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
