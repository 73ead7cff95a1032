//! Whether engines would take a request: asked seldom, and waited for shortly.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use crate::{causes::Causes, engine::EngineError, state::ServedModel};

/// How long an answer is good for: whoever asks more often, the engine is asked no oftener.
const FRESH: Duration = Duration::from_secs(5);
/// An engine that takes longer to answer is taken for one that does not.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of one engine.
#[derive(Debug)]
pub(crate) struct EngineHealth {
    known: Mutex<Option<Known>>,
    /// To ask: one at a time, and the others use its answer.
    turn: Semaphore,
}

#[derive(Clone, Debug)]
struct Known {
    at: Instant,
    trouble: Option<String>,
}

impl EngineHealth {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// Why the model's engine would take no request, if it would not.
    pub(crate) async fn trouble(&self, model: &ServedModel) -> Option<String> {
        let _turn = self.turn.acquire().await;
        if let Some(known) = self.known().filter(|known| known.at.elapsed() < FRESH) {
            return known.trouble;
        }
        let answer = time::timeout(PATIENCE, model.engine.probe()).await;
        let trouble = match answer {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(self.told(model, &error)),
            Err(_) => Some(format!("the engine did not answer within {} s", PATIENCE.as_secs())),
        };
        let known = Known { at: Instant::now(), trouble: trouble.clone() };
        let before = self.known.lock().unwrap_or_else(PoisonError::into_inner).replace(known);
        let (was, is) = (before.and_then(|known| known.trouble), trouble.as_deref());
        match is {
            Some(trouble) if was.as_deref() != is => {
                tracing::warn!(model.id = %model.id, "the engine of {} takes no requests: {trouble}", model.id);
            }
            None if was.is_some() => {
                tracing::info!(model.id = %model.id, "the engine of {} takes requests again", model.id);
            }
            _ => {}
        }
        trouble
    }

    /// What everybody may know of a failure. What caused it names servers that are the operator's business.
    fn told(&self, model: &ServedModel, error: &EngineError) -> String {
        tracing::debug!(model.id = %model.id, "the engine of {} was asked: {}", model.id, Causes(error));
        error.to_string()
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
