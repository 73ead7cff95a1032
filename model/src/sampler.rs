//! Choosing a token from logits, reproducibly.

mod adjustments;
mod likelihood;

pub use self::{
    adjustments::{LogitAdjuster, LogitAdjustments},
    likelihood::Likelihood,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kernel::rows::softmax;

/// Draws that one completion may take of its seed's stream: more than any context has tokens.
const DRAWS_PER_CHOICE: u64 = 1 << 48;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParameters {
    /// 0 takes the most probable token; 1 leaves the distribution as it is.
    pub temperature: f32,
    /// Keep the smallest set of most probable tokens with at least this mass (arXiv 1904.09751); 1 keeps all.
    pub top_p: f32,
    /// Keep this many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Token n of a request is chosen by the n-th draw of this seed's own stream.
    pub seed: u64,
}

impl SamplingParameters {
    /// The most probable token, always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
}

/// Chooses one request's tokens, in order.
#[derive(Debug, Clone)]
pub struct Sampler {
    parameters: SamplingParameters,
    draws: u64,
}

impl Sampler {
    /// A sampler at the first token of its request.
    pub fn new(parameters: SamplingParameters) -> Self {
        Self::of_choice(parameters, 0)
    }

    /// A sampler at the first token of one of several completions of the same prompt. They share the seed and draw from
    /// different stretches of its stream; the first is [`new`](Self::new)'s.
    pub fn of_choice(parameters: SamplingParameters, choice: u16) -> Self {
        Self { parameters, draws: u64::from(choice) * DRAWS_PER_CHOICE }
    }

    /// The next token. Ties go to the smaller id.
    ///
    /// The draw is counter-based: it depends on the seed and on how many tokens this request has had, on nothing else.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        let draw = self.draws;
        self.draws += 1;
        let SamplingParameters { temperature, top_p, top_k, seed } = self.parameters;
        let (likeliest, greatest) = greatest(logits);
        if temperature <= 0.0 || greatest.is_infinite() {
            return likeliest;
        }
        // Divided after subtracting: a tiny temperature then makes 0 of the greatest and -∞ of the others, and not ∞ of
        // all, of which nothing could be told any more.
        let mut probabilities: Vec<f32> = logits.iter().map(|logit| (logit - greatest) / temperature).collect();
        softmax(&mut probabilities);
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(draw);
        let uniform = generator.random::<f64>();
        if top_p >= 1.0 && top_k == 0 {
            return pick((0..).zip(probabilities.iter().copied()), uniform);
        }
        pick(kept(&probabilities, top_p, top_k).into_iter(), uniform)
    }
}

/// The tokens that `top_k` and then `top_p` leave, most probable first, with their probabilities; at least one.
fn kept(probabilities: &[f32], top_p: f32, top_k: usize) -> Vec<(u32, f32)> {
    // All tokens below this together weigh less than what top_p leaves out: they need not be sorted. With top_k they
    // count, because top_p is then a share of what top_k leaves.
    let below = if top_k == 0 { (1.0 - top_p).max(0.0) / probabilities.len() as f32 } else { 0.0 };
    let candidates = (0..).zip(probabilities.iter().copied()).filter(|(_, p)| *p >= below);
    let mut candidates: Vec<(u32, f32)> = candidates.collect();
    let by_probability = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if (1..candidates.len()).contains(&top_k) {
        candidates.select_nth_unstable_by(top_k - 1, by_probability);
        candidates.truncate(top_k);
    }
    candidates.sort_unstable_by(by_probability);
    let total = if top_k > 0 { candidates.iter().map(|(_, p)| f64::from(*p)).sum() } else { 1.0 };
    let mut mass = 0.0;
    let within = candidates.iter().take_while(|(_, p)| {
        let before = mass;
        mass += f64::from(*p);
        before < f64::from(top_p) * total
    });
    let count = within.count().max(1);
    candidates.truncate(count);
    candidates
}

/// The token with the greatest logit, the smallest id among equals.
pub fn greedy(logits: &[f32]) -> u32 {
    greatest(logits).0
}

/// The token of [`greedy`] and its logit, -∞ if there is none.
fn greatest(logits: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in (0..).zip(logits) {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best
}

/// The token at a uniformly drawn share of the total mass.
fn pick(weighted: impl Iterator<Item = (u32, f32)> + Clone, uniform: f64) -> u32 {
    let total: f64 = weighted.clone().map(|(_, mass)| f64::from(mass)).sum();
    let mut left = uniform * total;
    let mut last = 0;
    for (id, mass) in weighted {
        if mass > 0.0 {
            last = id;
            left -= f64::from(mass);
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 3.0, -2.0];

    fn draw(parameters: SamplingParameters, count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(parameters);
        (0..count).map(|_| sampler.sample(&LOGITS)).collect()
    }

    #[test]
    fn zero_temperature_takes_the_first_of_the_greatest() {
        assert_eq!(draw(SamplingParameters::GREEDY, 3), [1, 1, 1]);
    }

    #[test]
    fn temperature_just_above_zero_takes_the_greatest() {
        for logits in
            [[-80.0, 10.0, 30.0, 20.0], [-40.0, -10.5, -10.0, f32::NEG_INFINITY], [0.0, 1.0, f32::INFINITY, 2.0]]
        {
            for temperature in [f32::from_bits(1), 1e-38, 1e-30, 1e-5] {
                let parameters = SamplingParameters { temperature, top_p: 1.0, top_k: 0, seed: 5 };
                for parameters in [parameters, SamplingParameters { top_p: 0.9, top_k: 3, ..parameters }] {
                    let mut sampler = Sampler::new(parameters);
                    assert!((0..20).all(|_| sampler.sample(&logits) == 2), "{logits:?} at {temperature:e}");
                }
            }
        }
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let mut probabilities = LOGITS;
        softmax(&mut probabilities);
        let drawn = draw(SamplingParameters { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 7 }, 20_000);
        for (id, probability) in (0..).zip(probabilities) {
            let share = drawn.iter().filter(|d| **d == id).count() as f32 / 20_000.0;
            assert!((share - probability).abs() < 0.015, "token {id}: {share} for {probability}");
        }
    }

    #[test]
    fn nucleus_and_top_k_cut_the_tail() {
        let nucleus = draw(SamplingParameters { temperature: 1.0, top_p: 0.9, top_k: 0, seed: 1 }, 500);
        assert!(nucleus.iter().all(|id| [1, 2].contains(id)));
        assert_eq!(draw(SamplingParameters { temperature: 1.0, top_p: 0.0, top_k: 0, seed: 1 }, 1), [1]);
        assert!(
            draw(SamplingParameters { temperature: 5.0, top_p: 1.0, top_k: 1, seed: 1 }, 50).iter().all(|id| *id == 1)
        );
    }

    #[test]
    fn what_is_kept_equals_a_full_sort() {
        let mut probabilities: Vec<f32> = (0..500).map(|i| ((i * 193) % 499) as f32 / 60.0).collect();
        softmax(&mut probabilities);
        let mut sorted: Vec<(u32, f32)> = (0..).zip(probabilities.iter().copied()).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for top_p in [0.1, 0.5, 0.9, 0.99] {
            let mut mass = 0.0;
            let count = sorted.iter().take_while(|(_, p)| {
                let before = mass;
                mass += f64::from(*p);
                before < f64::from(top_p)
            });
            let count = count.count();
            assert_eq!(kept(&probabilities, top_p, 0), sorted[..count], "top_p {top_p}");
        }
        assert_eq!(kept(&probabilities, 1.0, 7), sorted[..7]);
        for (top_p, top_k) in [(0.5, 3), (0.9, 7), (0.9, 100), (0.99, 500), (0.3, 600)] {
            let likeliest = &sorted[..top_k.min(sorted.len())];
            let total: f64 = likeliest.iter().map(|(_, p)| f64::from(*p)).sum();
            let mut mass = 0.0;
            let count = likeliest.iter().take_while(|(_, p)| {
                let before = mass;
                mass += f64::from(*p);
                before < f64::from(top_p) * total
            });
            let count = count.count();
            assert_eq!(kept(&probabilities, top_p, top_k), sorted[..count], "top_p {top_p}, top_k {top_k}");
        }
        // The two unlikely tokens are part of what top_p is a share of.
        let ids = |top_k| kept(&[0.87, 0.09, 0.02, 0.02], 0.9, top_k).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!((ids(0), ids(4)), (vec![0, 1], vec![0, 1]));
    }

    #[test]
    fn choices_draw_apart_and_the_first_draws_as_if_alone() {
        let parameters = SamplingParameters { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 42 };
        let draw = |choice| {
            let mut sampler = Sampler::of_choice(parameters, choice);
            (0..50).map(|_| sampler.sample(&LOGITS)).collect::<Vec<_>>()
        };
        assert_eq!(draw(0), super::tests::draw(parameters, 50));
        assert!(draw(0) != draw(1) && draw(1) != draw(2) && draw(1) != draw(u16::MAX));
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let parameters = SamplingParameters { temperature: 1.0, top_p: 0.95, top_k: 0, seed: 42 };
        assert_eq!(draw(parameters, 50), draw(parameters, 50));
        assert_ne!(draw(parameters, 50), draw(SamplingParameters { seed: 43, ..parameters }, 50));
    }
}
