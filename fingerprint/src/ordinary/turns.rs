//! Many turns sampled at once: each stream keeps its own cache behind a shared prefix, and a stream that ends makes
//! room for the next attempt at once.
//!
//! Attempt number n depends on the seed and on n alone, and turns are handed over in the order of their attempts, so
//! the outcome is the same for any number of streams or threads.

use std::{collections::BTreeMap, ops::ControlFlow};

use model::{Decoder, KvCache, Sampler, SamplingParameters, Stream};
use rayon::prelude::*;

use super::OrdinaryError;

/// What becomes of a stream after its newest token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Go on.
    Continue,
    /// The turn is complete, the newest token included.
    Finish,
    /// The turn is complete without the newest token, which ended it.
    FinishBefore,
    /// Not wanted.
    Discard,
}

/// One sampled turn. May be a key: no `Debug`.
#[derive(Clone, PartialEq)]
pub(crate) struct Turn {
    /// Number of the attempt.
    pub(crate) attempt: u64,
    /// Opening and sampled ids, without prefix.
    pub(crate) ids: Vec<u32>,
    /// Mean negative log-likelihood of `ids` at temperature 1, in nats; 0 unless losses were asked for.
    pub(crate) mean_loss: f64,
}

/// Which turns are sampled.
pub(crate) trait Policy: Sync {
    /// The ids that attempt number `attempt` begins with, or `None` when there are no more attempts.
    fn opening(&self, attempt: u64) -> Option<Vec<u32>>;

    /// Judges a stream after a sampled token: `ids` are opening and sampled ids, `ids.last()` the newest.
    fn step(&self, attempt: u64, ids: &[u32]) -> Step;
}

/// How turns are sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnParameters {
    /// Streams in one forward pass.
    pub(crate) streams: usize,
    /// Sampling temperature.
    pub(crate) temperature: f32,
    /// Most tokens of a turn, opening included.
    pub(crate) longest: usize,
    /// Seed of all attempts.
    pub(crate) seed: u64,
    /// Whether every token's loss is wanted; openings then enter one token at a time.
    pub(crate) losses: bool,
}

/// Samples turns behind `prefix` and hands them to `accept` in the order of their attempts, `None` for a discarded one,
/// until it breaks or attempts run out.
pub(crate) fn sample_turns<P: Policy, E: From<OrdinaryError>>(
    decoder: &Decoder,
    prefix: &[u32],
    parameters: &TurnParameters,
    policy: &P,
    mut accept: impl FnMut(u64, Option<Turn>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let mut pool = Pool::new(decoder, prefix, parameters, policy)?;
    let mut next = 0;
    loop {
        while let Some(turn) = pool.done.remove(&next) {
            if accept(next, turn)?.is_break() {
                return Ok(());
            }
            next += 1;
        }
        if !pool.advance()? {
            return Ok(());
        }
    }
}

/// A turn that is being sampled.
struct Slot {
    cache: KvCache,
    attempt: u64,
    ids: Vec<u32>,
    /// How many of `ids` the cache has seen.
    fed: usize,
    sampler: Sampler,
    loss: f64,
}

struct Pool<'a, P> {
    decoder: &'a Decoder,
    parameters: &'a TurnParameters,
    policy: &'a P,
    prefix_length: usize,
    /// Logits after the prefix; empty when there is no prefix, and then every opening has at least one token.
    after_prefix: Vec<f32>,
    busy: Vec<Slot>,
    idle: Vec<KvCache>,
    next_attempt: u64,
    done: BTreeMap<u64, Option<Turn>>,
}

impl<'a, P: Policy> Pool<'a, P> {
    fn new(
        decoder: &'a Decoder,
        prefix: &[u32],
        parameters: &'a TurnParameters,
        policy: &'a P,
    ) -> Result<Self, OrdinaryError> {
        let capacity = prefix.len() + parameters.longest;
        let limit = decoder.config().max_positions;
        if capacity > limit {
            return Err(OrdinaryError::TooLong { needed: capacity, limit });
        }
        let mut first = decoder.new_cache(capacity)?;
        let mut after_prefix = Vec::new();
        if !prefix.is_empty() {
            let logits = decoder.forward(&mut [Stream { tokens: prefix, cache: &mut first }])?;
            after_prefix = logits.to_vec2::<f32>()?.pop().unwrap_or_default();
        }
        let mut idle = Vec::with_capacity(parameters.streams);
        for _ in 1..parameters.streams {
            idle.push(first.fork()?);
        }
        idle.push(first);
        Ok(Self {
            decoder,
            parameters,
            policy,
            prefix_length: prefix.len(),
            after_prefix,
            busy: Vec::with_capacity(idle.len()),
            idle,
            next_attempt: 0,
            done: BTreeMap::new(),
        })
    }

    /// One forward pass over all streams. `false` when nothing is left to do.
    fn advance(&mut self) -> Result<bool, OrdinaryError> {
        self.admit();
        if self.busy.is_empty() {
            return Ok(!self.done.is_empty());
        }
        let losses = self.parameters.losses;
        let mut streams = Vec::with_capacity(self.busy.len());
        for slot in &mut self.busy {
            let end = if losses { slot.fed + 1 } else { slot.ids.len() };
            streams.push(Stream { tokens: &slot.ids[slot.fed..end], cache: &mut slot.cache });
            slot.fed = end;
        }
        let logits = self.decoder.forward(&mut streams)?.to_vec2::<f32>()?;
        let (policy, parameters) = (self.policy, self.parameters);
        let steps: Vec<Step> =
            self.busy.par_iter_mut().zip(&logits).map(|(slot, logits)| slot.take(logits, policy, parameters)).collect();
        for (index, step) in steps.into_iter().enumerate().rev() {
            if step != Step::Continue {
                let slot = self.busy.swap_remove(index);
                self.release(slot, step);
            }
        }
        Ok(true)
    }

    /// Starts attempts on idle streams, and not many more than there are streams: attempts may all end at once, and
    /// whoever accepts them must be able to give up.
    fn admit(&mut self) {
        for _ in 0..self.parameters.streams.saturating_mul(4) {
            let Some(cache) = self.idle.pop() else { return };
            let attempt = self.next_attempt;
            let Some(ids) = self.policy.opening(attempt) else {
                self.idle.push(cache);
                return;
            };
            self.next_attempt += 1;
            let sampler = Sampler::new(SamplingParameters {
                temperature: self.parameters.temperature,
                top_p: 1.0,
                top_k: 0,
                seed: mixed(self.parameters.seed, attempt),
            });
            let mut slot = Slot { cache, attempt, ids, fed: 0, sampler, loss: 0.0 };
            let step = if self.after_prefix.is_empty() {
                // Nothing to predict the first token from.
                if slot.ids.is_empty() { Step::Discard } else { Step::Continue }
            } else {
                slot.take(&self.after_prefix, self.policy, self.parameters)
            };
            match step {
                Step::Continue => self.busy.push(slot),
                ended => self.release(slot, ended),
            }
        }
    }

    /// Notes how an attempt ended and frees its stream.
    fn release(&mut self, mut slot: Slot, step: Step) {
        if step == Step::FinishBefore {
            slot.ids.pop();
        }
        let wanted = step != Step::Discard && !slot.ids.is_empty();
        let turn =
            wanted.then(|| Turn { attempt: slot.attempt, mean_loss: slot.loss / count(slot.ids.len()), ids: slot.ids });
        self.done.insert(slot.attempt, turn);
        slot.cache.truncate(self.prefix_length);
        self.idle.push(slot.cache);
    }
}

impl Slot {
    /// Uses the logits (vocab) that predict token number `fed`: scores a forced token, or samples a new one.
    fn take<P: Policy>(&mut self, logits: &[f32], policy: &P, parameters: &TurnParameters) -> Step {
        let forced = self.fed < self.ids.len();
        let id = match self.ids.get(self.fed) {
            Some(id) => *id,
            None => self.sampler.sample(logits),
        };
        let loss = if parameters.losses { token_loss(logits, id) } else { 0.0 };
        if forced {
            self.loss += loss;
            return Step::Continue;
        }
        self.ids.push(id);
        let step = policy.step(self.attempt, &self.ids);
        if step != Step::FinishBefore {
            self.loss += loss;
        }
        match step {
            Step::Continue if self.ids.len() >= parameters.longest => Step::Finish,
            step => step,
        }
    }
}

/// Negative log-likelihood of one token in nats.
pub(crate) fn token_loss(logits: &[f32], id: u32) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - greatest).exp())).sum();
    let logit = usize::try_from(id).ok().and_then(|id| logits.get(id)).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() - f64::from(logit - greatest)
}

/// One seed out of a seed and a number (SplitMix64, Steele and others 2014).
pub(crate) fn mixed(seed: u64, number: u64) -> u64 {
    let mut state = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// A length as a divisor.
#[expect(clippy::as_conversions, reason = "lengths are far below 2^53")]
pub(crate) fn count(length: usize) -> f64 {
    length as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_loss_is_the_negative_log_of_the_softmax() {
        let logits = [0.0, 2.0_f32.ln(), 1.0_f32.ln()];
        assert!((token_loss(&logits, 1) - 2.0_f64.ln()).abs() < 1e-6);
        assert!((token_loss(&logits, 0) - 4.0_f64.ln()).abs() < 1e-6);
        assert_eq!(token_loss(&logits, 99), f64::INFINITY);
    }

    #[test]
    fn mixing_keeps_neighbouring_attempts_apart() {
        let seeds: std::collections::BTreeSet<u64> =
            (0..100).flat_map(|seed| (0..100).map(move |attempt| mixed(seed, attempt))).collect();
        assert_eq!(seeds.len(), 10_000);
    }
}
