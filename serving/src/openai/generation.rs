//! All choices of one request, read together, with their account.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    task::{Context, Poll},
};

use tokio::time::{self, Instant};

use super::{
    account::{Account, Closed, Delivered, Outcome},
    error::ApiError,
    text::{Said, TextEvent, TextStream},
};
use crate::{engine::EngineError, state::AppState};

/// A request that an engine works on. Dropping it cancels what is not finished and closes the account. No `Debug`: it
/// holds text.
pub(super) struct Generation {
    state: AppState,
    reading: Reading,
    choices: usize,
    logprobs: bool,
    begun: Instant,
    has_begun: bool,
    deadline: Instant,
}

/// The choices that are not finished, by their numbers; the one that was read longest ago comes first.
struct Reading {
    streams: VecDeque<(usize, TextStream)>,
    account: Account,
}

impl Generation {
    /// At the `deadline` the answer is no longer worth waiting for.
    pub(super) fn new(state: AppState, streams: Vec<TextStream>, account: Account, deadline: Instant) -> Self {
        let choices = streams.len();
        let logprobs = streams.iter().any(TextStream::has_logprobs);
        let reading = Reading { streams: streams.into_iter().enumerate().collect(), account };
        Self { state, reading, choices, logprobs, begun: Instant::now(), has_begun: false, deadline }
    }

    /// How many choices there are.
    pub(super) fn choices(&self) -> usize {
        self.choices
    }

    /// What a choice has said before its first event.
    pub(super) fn silence(&self) -> Said {
        Said { text: String::new(), tokens: self.logprobs.then(Vec::new) }
    }

    /// Whether every choice has come to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.reading.streams.is_empty()
    }

    /// The next event of any choice, with the choice's number, or why there will be none. Cancel safe. Not to be called
    /// again when all are finished or one has failed.
    pub(super) async fn next(&mut self) -> Result<(usize, TextEvent), ApiError> {
        let limits = self.state.limits();
        let event = tokio::select! {
            // In order: when the host's patience is over, even text that is ready is too late.
            biased;
            () = self.state.abort().cancelled() => Err((Outcome::ShutDown, ApiError::shutting_down())),
            () = time::sleep_until(self.deadline) => {
                Err((Outcome::TimedOut, ApiError::generation_timeout(limits.generation_timeout)))
            }
            event = poll_fn(|context| self.reading.poll_next(context)) => {
                event.map_err(|error| (Outcome::EngineFailed, ApiError::engine(error, limits.retry_after)))
            }
        };
        if event.is_ok() && !mem::replace(&mut self.has_begun, true) {
            self.state.metrics().first_text(self.reading.account.model(), self.begun.elapsed());
        }
        event.map_err(|(outcome, error)| {
            // Half an answer is no answer: the other choices need not go on.
            self.reading.streams.clear();
            self.reading.account.fail(outcome);
            error
        })
    }

    /// Where text is handed over.
    pub(super) fn delivered(&self) -> &Delivered {
        self.reading.account.delivered()
    }

    /// Closes the account of a complete answer, before the client can see that it is complete.
    pub(super) async fn close(self) -> Result<Closed, ApiError> {
        self.reading.account.close().await
    }

    /// Closes the account of an answer that failed, before the client is told: it may then ask again at once.
    pub(super) async fn abandon(self) {
        self.reading.account.abandon().await;
    }
}

impl Reading {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<(usize, TextEvent), EngineError>> {
        for position in 0..self.streams.len() {
            let Some((choice, stream)) = self.streams.get_mut(position) else { break };
            let choice = *choice;
            let polled = stream.poll_next(context);
            self.account.note(choice, stream.progress());
            if let Poll::Ready(event) = polled {
                let read = self.streams.remove(position);
                if matches!(event, Ok(TextEvent::Piece(_))) {
                    self.streams.extend(read);
                }
                return Poll::Ready(event.map(|event| (choice, event)));
            }
        }
        Poll::Pending
    }
}
