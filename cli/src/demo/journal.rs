//! The steps of a demo: shown while they run, timed, and named when one fails.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::record::StepRecord;
use crate::progress::{Progress, Step};

/// What was done so far.
#[derive(Debug)]
pub(crate) struct Journal {
    progress: Progress,
    steps: Vec<StepRecord>,
    started: Instant,
}

impl Journal {
    pub(crate) fn new(progress: Progress) -> Self {
        Self { progress, steps: Vec::new(), started: Instant::now() }
    }

    /// Does one step. `work` returns its result and what to say about it.
    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Step) -> anyhow::Result<(T, String)>,
    ) -> anyhow::Result<T> {
        let mut step = self.progress.step(name);
        let (value, outcome) = work(&mut step).with_context(|| failed(name))?;
        self.end(name, step, outcome);
        Ok(value)
    }

    /// Does one step that waits for something.
    pub(crate) async fn step_async<T>(
        &mut self,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Step) -> anyhow::Result<(T, String)>,
    ) -> anyhow::Result<T> {
        let mut step = self.progress.step(name);
        let (value, outcome) = work(&mut step).await.with_context(|| failed(name))?;
        self.end(name, step, outcome);
        Ok(value)
    }

    fn end(&mut self, name: &str, step: Step, outcome: String) {
        let seconds = step.done(&outcome).as_secs_f64();
        self.steps.push(StepRecord { name: name.to_owned(), outcome, seconds });
    }

    /// The steps and the whole time.
    pub(crate) fn close(self) -> (Vec<StepRecord>, Duration) {
        (self.steps, self.started.elapsed())
    }
}

fn failed(name: &str) -> String {
    format!("the demo failed at its step \"{name}\"")
}
