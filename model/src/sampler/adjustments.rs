//! What a request adds to the model's logits before a token is drawn.

use std::{collections::BTreeMap, sync::Arc};

/// Penalties for what has been said, and a bias on tokens of the request's choice.
///
/// A part of what determines the answer, as the [`SamplingParameters`](super::SamplingParameters) are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogitAdjustments {
    /// Taken off a token's logit once for every time that it was generated.
    pub frequency_penalty: f32,
    /// Taken off the logit of every token that was generated at least once.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub bias: Arc<BTreeMap<u32, f32>>,
}

impl LogitAdjustments {
    /// Whether logits stay as they are.
    pub fn is_neutral(&self) -> bool {
        self.frequency_penalty == 0.0 && self.presence_penalty == 0.0 && self.bias.is_empty()
    }
}

/// Adjusts the logits of one completion. The prompt is not penalised: OpenAI counts what was generated.
#[derive(Debug, Clone)]
pub struct LogitAdjuster {
    adjustments: LogitAdjustments,
    /// How often each token was generated.
    counts: BTreeMap<u32, u32>,
}

impl LogitAdjuster {
    /// An adjuster before the first token.
    pub fn new(adjustments: LogitAdjustments) -> Self {
        Self { adjustments, counts: BTreeMap::new() }
    }

    /// Adjusts logits (vocab) in place: `logit − count · frequency − [count > 0] · presence + bias`.
    pub fn adjust(&self, logits: &mut [f32]) {
        let LogitAdjustments { frequency_penalty, presence_penalty, bias } = &self.adjustments;
        for (id, count) in &self.counts {
            add(logits, *id, -(*count as f32 * frequency_penalty) - presence_penalty);
        }
        for (id, more) in bias.iter() {
            add(logits, *id, *more);
        }
    }

    /// Counts a token that was generated.
    pub fn count(&mut self, id: u32) {
        // Without penalties the counts would only cost memory.
        if self.adjustments.frequency_penalty != 0.0 || self.adjustments.presence_penalty != 0.0 {
            *self.counts.entry(id).or_default() += 1;
        }
    }
}

fn add(logits: &mut [f32], id: u32, more: f32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_follow_openai_s_definition() {
        let adjustments = LogitAdjustments {
            frequency_penalty: 0.5,
            presence_penalty: 1.0,
            bias: Arc::new(BTreeMap::from([(0, 2.0), (2, -100.0), (9, 1.0)])),
        };
        let mut adjuster = LogitAdjuster::new(adjustments);
        let mut logits = [0.0; 4];
        adjuster.adjust(&mut logits);
        assert_eq!(
            logits,
            [2.0, 0.0, -100.0, 0.0],
            "nothing was generated, and a token that does not exist is no panic"
        );
        for id in [1, 1, 3] {
            adjuster.count(id);
        }
        let mut logits = [0.0; 4];
        adjuster.adjust(&mut logits);
        assert_eq!(logits, [2.0, -2.0, -100.0, -1.5]);
    }

    #[test]
    fn nothing_is_counted_where_nothing_is_penalised() {
        let mut adjuster = LogitAdjuster::new(LogitAdjustments::default());
        adjuster.count(1);
        assert!(adjuster.counts.is_empty());
    }
}
