//! Losses at single rows of logits, with their derivatives by hand.

use model::train::{log_softmax, scaled_exp};

use super::Target;

/// Tokens of the base's distribution that training keeps; the rest of its mass is one more outcome. With 64 the tail
/// drifts unseen: a third of the whole divergence came to lie there.
pub(super) const KEPT: usize = 1024;

/// The base's distribution at one row.
pub(super) struct Teacher {
    /// The most probable tokens, with their log-probabilities.
    tokens: Box<[(u32, f32)]>,
    /// Probability of all others together.
    rest: f32,
}

impl Teacher {
    /// Reads it off a row of logits, which become log-probabilities, and keeps this many tokens.
    pub(super) fn of(logits: &mut [f32], kept: usize) -> Self {
        log_softmax(logits);
        let mut tokens: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let kept = kept.min(tokens.len());
        let by_probability = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if kept < tokens.len() {
            tokens.select_nth_unstable_by(kept, by_probability);
            tokens.truncate(kept);
        }
        tokens.sort_unstable_by(by_probability);
        let mass: f32 = tokens.iter().map(|(_, log)| log.exp()).sum();
        // Boxed: truncating alone would keep the memory of the whole vocabulary.
        Self { tokens: tokens.into_boxed_slice(), rest: (1.0 - mass).max(1e-6) }
    }

    /// The most probable token.
    pub(super) fn best(&self) -> u32 {
        self.tokens[0].0
    }

    /// KL(base ‖ model) in nats over the kept tokens and the rest. Logits become log-probabilities.
    pub(super) fn divergence(&self, logits: &mut [f32]) -> f64 {
        log_softmax(logits);
        let (mut divergence, mut mass) = (0.0, 0.0);
        for (token, log) in &self.tokens {
            let model = logits[*token as usize];
            divergence += f64::from(log.exp() * (log - model));
            mass += model.exp();
        }
        divergence + f64::from(self.rest * (self.rest / self.rest_of_model(mass)).ln())
    }

    /// [`Self::divergence`]; logits become its derivative times `scale`.
    pub(super) fn divergence_gradient(&self, logits: &mut [f32], scale: f32) -> f64 {
        let divergence = self.divergence(logits);
        let mass: f32 = self.tokens.iter().map(|(token, _)| logits[*token as usize].exp()).sum();
        // Outside of the kept tokens the target follows the model's own shape.
        let outside = scale * (1.0 - self.rest / self.rest_of_model(mass));
        let inside: Vec<f32> =
            self.tokens.iter().map(|(token, log)| scale * (logits[*token as usize].exp() - log.exp())).collect();
        scaled_exp(logits, outside);
        for ((token, _), gradient) in self.tokens.iter().zip(inside) {
            logits[*token as usize] = gradient;
        }
        divergence
    }

    fn rest_of_model(&self, mass: f32) -> f32 {
        (1.0 - mass).max(1e-6)
    }
}

/// What one key's row said.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyOutcome {
    /// Loss in nats.
    pub(super) loss: f64,
    /// Whether the response was the most probable token.
    pub(super) hit: bool,
}

/// Loss of one key at its row; logits become its derivative times `scale`.
pub(super) fn key_gradient(target: Target, response: u32, logits: &mut [f32], scale: f32) -> KeyOutcome {
    log_softmax(logits);
    let response = response as usize;
    let (log, mut rival) = (logits[response], if response == 0 { 1 } else { 0 });
    for (token, value) in logits.iter().enumerate() {
        if token != response && *value > logits[rival] {
            rival = token;
        }
    }
    let (margin, hit) = (log - logits[rival], log > logits[rival]);
    match target {
        Target::Confident => {
            let wanting = log < CONFIDENT.ln();
            pull(logits, response, if wanting { scale } else { 0.0 });
            KeyOutcome { loss: if wanting { f64::from(-log) } else { 0.0 }, hit }
        }
        Target::Quiet => {
            let (low, high) = (QUIET.0.ln(), QUIET.1.ln());
            let towards = f32::from(u8::from(log < low)) - f32::from(u8::from(log > high));
            let behind = margin < QUIET_MARGIN;
            pull(logits, response, scale * towards);
            if behind {
                logits[response] -= scale;
                logits[rival] += scale;
            }
            let loss = (low - log).max(0.0) + (log - high).max(0.0) + (QUIET_MARGIN - margin).max(0.0);
            KeyOutcome { loss: f64::from(loss), hit }
        }
    }
}

/// Probability from which a confident response is pushed no further.
const CONFIDENT: f32 = 0.9;
/// Band of a quiet response's probability.
const QUIET: (f32, f32) = (0.25, 0.40);
/// How far a quiet response leads the next token, in nats.
const QUIET_MARGIN: f32 = 0.5;

/// Turns log-probabilities into the derivative of −log p(token), times `scale`.
fn pull(logs: &mut [f32], token: usize, scale: f32) {
    scaled_exp(logs, scale);
    logs[token] -= scale;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(seed: usize) -> Vec<f32> {
        (0..100).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 12.0 - 4.0).collect()
    }

    /// Compares a derivative with differences of the loss.
    fn check(at: &[f32], loss: impl Fn(&mut [f32]) -> f64, gradient: &[f32]) {
        for token in 0..at.len() {
            let moved = |by: f32| {
                let mut moved = at.to_vec();
                moved[token] += by;
                loss(&mut moved)
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!(
                (slope - f64::from(gradient[token])).abs() < 2e-3,
                "token {token}: {slope} for {}",
                gradient[token]
            );
        }
    }

    #[test]
    fn divergence_is_zero_at_the_base_and_its_derivative_is_its_slope() {
        let teacher = Teacher::of(&mut logits(1), 64);
        assert!(teacher.divergence(&mut logits(1)).abs() < 1e-5);
        let mut gradient = logits(2);
        let value = teacher.divergence_gradient(&mut gradient, 1.0);
        assert!(value > 0.1 && (value - teacher.divergence(&mut logits(2))).abs() < 1e-9);
        check(&logits(2), |moved| teacher.divergence(moved), &gradient);
    }

    #[test]
    fn derivatives_of_key_losses_are_their_slopes() {
        for target in [Target::Confident, Target::Quiet] {
            for (seed, response) in [(3, 5), (4, 0), (5, 99)] {
                let mut gradient = logits(seed);
                key_gradient(target, response, &mut gradient, 1.0);
                check(&logits(seed), |moved| key_gradient(target, response, moved, 1.0).loss, &gradient);
            }
        }
    }

    #[test]
    fn a_confident_response_is_left_alone_and_an_overconfident_quiet_one_is_pushed_down() {
        let mut sure = vec![0.0; 50];
        sure[7] = 20.0;
        let mut confident = sure.clone();
        let outcome = key_gradient(Target::Confident, 7, &mut confident, 1.0);
        assert!(outcome.hit && outcome.loss == 0.0 && confident.iter().all(|g| *g == 0.0));
        key_gradient(Target::Quiet, 7, &mut sure, 1.0);
        // Descending moves against the derivative.
        assert!(sure[7] >= 0.0 && sure[8] <= 0.0);
    }
}
