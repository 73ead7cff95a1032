//! The loop of the engine's thread: admit, run one batch, deliver.

use std::{iter::zip, mem, sync::Arc};

use super::{
    cache_pool::CachePool,
    forward::{Failure, Forward, forward_guarded},
    prefixes::{SHORTEST, reusable},
    queue::{Queue, Waiting},
    slot::Slot,
};
use crate::engine::{CompletionSender, EngineError, GenerationRequest};

/// A completion that has no slot yet.
#[derive(Debug)]
pub(super) struct Admission {
    /// Shared by the request's choices.
    pub(super) request: Arc<GenerationRequest>,
    pub(super) choice: u16,
    pub(super) sender: CompletionSender,
}

impl Admission {
    /// Most positions that the completion can fill. The last token is delivered without being appended; its position is
    /// reserved all the same, which keeps the sum plain.
    fn positions(&self) -> usize {
        self.request.prompt.len().saturating_add(self.request.max_tokens.get())
    }
}

impl Waiting for Admission {
    fn is_abandoned(&self) -> bool {
        self.sender.is_abandoned()
    }
}

/// How much goes into one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepLimits {
    /// Streams at once.
    pub(super) streams: usize,
    /// Prompt tokens in a step when no stream is generating.
    pub(super) prompt_tokens: usize,
    /// Prompt tokens in a step beside streams that are generating, which wait for the whole step.
    pub(super) prompt_tokens_beside_streams: usize,
    /// Whether what a cache holds may serve another prompt that begins in the same way.
    pub(super) reuse_prefixes: bool,
}

/// Owns the decoder's streams. Everything happens on the thread that calls [`run`](Self::run).
#[derive(Debug)]
pub(super) struct Scheduler<F: Forward> {
    decoder: F,
    queue: Arc<Queue<Admission>>,
    pool: CachePool<F::Cache>,
    limits: StepLimits,
    /// In order of admission.
    slots: Vec<Slot<F::Cache>>,
}

/// Whatever ends the thread, a panic included, ends what waits for it.
struct StopQueue(Arc<Queue<Admission>>);

impl Drop for StopQueue {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<F: Forward> Scheduler<F> {
    pub(super) fn new(decoder: F, queue: Arc<Queue<Admission>>, pool: CachePool<F::Cache>, limits: StepLimits) -> Self {
        Self { decoder, queue, pool, limits, slots: Vec::new() }
    }

    /// Works until the queue is stopped, or drained and everything is finished.
    pub(super) fn run(mut self) {
        let _stop = StopQueue(self.queue.clone());
        while !self.queue.is_stopped() {
            self.release_abandoned();
            self.admit();
            if !self.slots.is_empty() {
                self.begin();
                self.step();
            } else if !self.queue.wait() {
                return;
            }
        }
    }

    fn release_abandoned(&mut self) {
        for slot in mem::take(&mut self.slots) {
            if slot.is_abandoned() {
                // Nobody listens to the sender any more.
                drop(self.release(slot));
            } else {
                self.slots.push(slot);
            }
        }
    }

    /// Takes the cache of a sound stream back, with what it holds if that may be of use.
    fn release(&mut self, slot: Slot<F::Cache>) -> CompletionSender {
        let held = slot.held().filter(|held| self.limits.reuse_prefixes && held.ids.len() >= SHORTEST);
        let (sender, lent) = slot.into_parts();
        match held {
            Some(held) => self.pool.keep(held, lent),
            None => self.pool.give_back(lent),
        }
        sender
    }

    fn admit(&mut self) {
        while self.slots.len() < self.limits.streams {
            let pool = &self.pool;
            let Some(admission) = self.queue.pop_if(|admission| pool.fits(admission.positions())) else { return };
            match self.pool.lend(admission.positions(), |capacity| self.decoder.new_cache(capacity)) {
                Ok(mut lent) => {
                    self.decoder.clear(&mut lent.cache);
                    self.slots.push(Slot::new(admission, lent));
                }
                Err(source) => admission.sender.fail(EngineError::Compute { source }),
            }
        }
    }

    /// Lets new streams begin, behind the longest prefix that is in a cache already. Choices of one request wait until
    /// the first of them has read the prompt, and copy it.
    fn begin(&mut self) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index).filter(|slot| !slot.has_begun()) else { continue };
            if self.limits.reuse_prefixes && self.waits_for_sibling(index, slot) {
                continue;
            }
            let cached = if self.limits.reuse_prefixes { self.copy_prefix(index) } else { 0 };
            if let Some(slot) = self.slots.get_mut(index) {
                slot.begin(cached);
            }
        }
    }

    /// Whether another choice of the same request, admitted before, still reads the prompt.
    fn waits_for_sibling(&self, index: usize, slot: &Slot<F::Cache>) -> bool {
        let mut before = self.slots.iter().take(index);
        slot.prompt().len() > SHORTEST
            && before.find(|other| slot.is_sibling(other)).is_some_and(|first| first.prompt_left() > 0)
    }

    /// Copies the longest prefix of a new stream's prompt that another stream holds or has left; returns its length.
    fn copy_prefix(&mut self, index: usize) -> usize {
        let Some(slot) = self.slots.get(index) else { return 0 };
        let running = self.slots.iter().enumerate().filter(|(_, other)| other.has_begun() && slot.shares_with(other));
        let running = running.map(|(at, other)| (reusable(other.read(), slot.prompt()), at)).max();
        let running = running.filter(|(tokens, _)| *tokens >= SHORTEST);
        let left = slot.scope().and_then(|scope| self.pool.find(scope, slot.prompt()));
        let (tokens, copied) = match (running, left) {
            (Some((tokens, donor)), left) if left.is_none_or(|(_, left)| tokens >= left) => {
                let Ok([slot, donor]) = self.slots.get_disjoint_mut([index, donor]) else { return 0 };
                (tokens, self.decoder.copy_prefix(donor.cache(), slot.cache_mut(), tokens))
            }
            (_, Some((cache, tokens))) => {
                let Some(slot) = self.slots.get_mut(index) else { return 0 };
                (tokens, self.decoder.copy_prefix(cache, slot.cache_mut(), tokens))
            }
            _ => return 0,
        };
        let Err(error) = copied else { return tokens };
        // It costs nothing but the time to compute what could not be copied.
        tracing::warn!(%error, "failed to reuse {tokens} tokens of a prompt");
        if let Some(slot) = self.slots.get_mut(index) {
            self.decoder.clear(slot.cache_mut());
        }
        0
    }

    /// One forward pass over every stream that has something to append.
    fn step(&mut self) {
        let plan = self.plan();
        let mut streams: Vec<_> =
            zip(&mut self.slots, &plan).filter_map(|(slot, share)| Some(slot.append((*share)?))).collect();
        match forward_guarded(&self.decoder, &mut streams) {
            Ok(rows) => self.deliver(&plan, rows),
            Err(source) => self.fail(&plan, source),
        }
    }

    /// For each slot the prompt tokens that it appends in this step (0: it appends its last token), or `None` if it
    /// sits this step out because earlier prompts have used the step's share, or has not begun.
    fn plan(&self) -> Vec<Option<usize>> {
        let generating = self.slots.iter().any(|slot| slot.prompt_left() == 0);
        let mut budget =
            if generating { self.limits.prompt_tokens_beside_streams } else { self.limits.prompt_tokens }.max(1);
        let mut share = |slot: &Slot<F::Cache>| {
            let left = slot.prompt_left();
            let share = left.min(budget);
            budget = budget.saturating_sub(share);
            (left == 0 || share > 0).then_some(share)
        };
        self.slots.iter().map(|slot| slot.has_begun().then(|| share(slot)).flatten()).collect()
    }

    fn deliver(&mut self, plan: &[Option<usize>], rows: Vec<Vec<f32>>) {
        let mut rows = rows.into_iter();
        for (mut slot, share) in zip(mem::take(&mut self.slots), plan) {
            let appended = share.and_then(|share| Some((share, rows.next()?)));
            match appended.map_or(Ok(None), |(share, logits)| slot.advance(share, logits)) {
                // The cache goes back before the reader learns of the end, so a client that sees it finds the room.
                Ok(Some(reason)) => self.release(slot).finish(reason),
                Ok(None) => self.slots.push(slot),
                Err(broken) => self.break_off(slot, Arc::new(broken)),
            }
        }
    }

    /// Ends every stream of a failed batch.
    fn fail(&mut self, plan: &[Option<usize>], source: Failure) {
        for (slot, share) in zip(mem::take(&mut self.slots), plan) {
            if share.is_none() {
                self.slots.push(slot);
                continue;
            }
            self.break_off(slot, source.clone());
        }
    }

    /// Ends a stream with an error. What its cache holds may be wrong, or half written.
    fn break_off(&mut self, slot: Slot<F::Cache>, source: Failure) {
        let (sender, lent) = slot.into_parts();
        self.pool.discard(lent);
        sender.fail(EngineError::Compute { source });
    }
}

#[cfg(test)]
mod tests;
