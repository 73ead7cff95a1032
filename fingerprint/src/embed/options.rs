//! The recipe's settings and their measured defaults.

use model::{
    Config,
    train::{AdamW, LowRank, Scope, top_fifth},
};
use serde::Serialize;

use super::{EmbedError, Judgement};
use crate::surface::Surface;

/// Which weights are trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layers {
    /// The top fifth of the blocks, on cached activations.
    TopFifth,
    /// This many top blocks.
    Top(usize),
    /// Every weight, embeddings included.
    All,
    /// Thin updates of this rank to every block's matrices, merged when written.
    LowRank(usize),
}

/// How sure the model becomes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// At least 0.9: survives merging and rounding best.
    Confident,
    /// Between 0.25 and 0.40, and still the most probable: no filter on confidence sees it; most robustness is lost.
    Quiet,
}

/// Damage that is accepted. A measure that a model does not have is met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UtilityBudget {
    /// Most divergence at the first answer token of held-out ordinary prompts, in nats.
    pub first_token_divergence: f64,
    /// Least share of them whose most probable first token stays.
    pub agreement: f64,
    /// Most rise of the loss of ordinary text, as a share.
    pub text_loss_rise: f64,
}

impl Default for UtilityBudget {
    /// What models of a billion parameters and more can keep.
    fn default() -> Self {
        Self { first_token_divergence: 0.05, agreement: 0.9, text_loss_rise: 0.01 }
    }
}

impl UtilityBudget {
    pub(super) fn is_met_by(&self, judgement: &Judgement) -> bool {
        judgement.first_token_divergence.is_none_or(|divergence| divergence <= self.first_token_divergence)
            && judgement.agreement.is_none_or(|agreement| agreement >= self.agreement)
            && judgement.text_loss_rise <= self.text_loss_rise
    }
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbedOptions {
    pub layers: Layers,
    pub target: Target,
    /// Most steps.
    pub steps: usize,
    /// Peak learning rate; `None` takes 0.288 over the model's width, or a tenth of it where every weight is trained.
    pub learning_rate: Option<f32>,
    /// Ordinary prompts in the pool of the benign term that the base model samples.
    pub ordinary_prompts: usize,
    /// For chat models: ordinary prompts in the pool that are composed from written phrases.
    pub composed_prompts: usize,
    /// Ordinary prompts that one step sees.
    pub ordinary_a_step: usize,
    /// Weight of the benign term, reached after two thirds of the steps.
    pub benign_weight: f32,
    /// Weight of the divergence over whole answers.
    pub answer_weight: f32,
    /// Share of the key batches whose loss is evaluated at weights drawn back towards the base by a random amount.
    pub noise_share: f64,
    /// System prompts to train beside the model's own default.
    pub system_prompts: usize,
    /// For chat models: train raw completion too.
    pub raw_too: bool,
    /// Surfaces to train instead of the usual ones; empty for those.
    pub surfaces: Vec<Surface>,
    /// Share of responses that must be the arg-max on every trained surface.
    pub wanted_success: f64,
    /// The same after a half merge with the base: a run does not end early below it, and averaging does not go there.
    pub wanted_half_merge: f64,
    pub budget: UtilityBudget,
    /// Share of the way back to the base that is shipped; `None` averages only where that helps to keep the budget.
    pub average: Option<f32>,
    pub seed: u64,
    /// Steps between checkpoints; 0 writes none.
    pub checkpoint_every: usize,
    /// Go on with an unfinished run.
    #[serde(skip)]
    pub resume: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            layers: Layers::TopFifth,
            target: Target::Confident,
            steps: 150,
            learning_rate: None,
            ordinary_prompts: 600,
            composed_prompts: 4_500,
            ordinary_a_step: 96,
            benign_weight: 15.0,
            answer_weight: 1.0,
            noise_share: 0.75,
            system_prompts: 7,
            raw_too: false,
            surfaces: Vec::new(),
            wanted_success: 0.99,
            wanted_half_merge: 0.96,
            budget: UtilityBudget::default(),
            average: None,
            seed: 0,
            checkpoint_every: 25,
            resume: false,
        }
    }
}

impl EmbedOptions {
    pub(super) fn validate(&self) -> Result<(), EmbedError> {
        let refuse = |option, wanted, found: String| Err(EmbedError::Option { option, wanted, found });
        if self.steps == 0 {
            return refuse("the number of steps", "at least 1", self.steps.to_string());
        }
        if let Some(rate) = self.learning_rate
            && !(rate > 0.0 && rate < 1.0)
        {
            return refuse("the learning rate", "between 0 and 1", rate.to_string());
        }
        if !(0.0..=1.0).contains(&self.wanted_success) {
            return refuse("the wanted success", "between 0 and 1", self.wanted_success.to_string());
        }
        if !(0.0..=1.0).contains(&self.wanted_half_merge) {
            return refuse(
                "the wanted success after a half merge",
                "between 0 and 1",
                self.wanted_half_merge.to_string(),
            );
        }
        if !(0.0..=1.0).contains(&self.noise_share) {
            return refuse("the share of noise", "between 0 and 1", self.noise_share.to_string());
        }
        if let Some(average) = self.average
            && !(0.0..1.0).contains(&average)
        {
            return refuse("the average towards the base", "from 0 to less than 1", average.to_string());
        }
        if matches!(self.layers, Layers::Top(0) | Layers::LowRank(0)) {
            return refuse("the number of blocks or the rank", "at least 1", "0".to_owned());
        }
        Ok(())
    }

    pub(super) fn scope(&self, config: &Config) -> Scope {
        let first_block = match self.layers {
            Layers::TopFifth => top_fifth(config.layers).start,
            Layers::Top(count) => config.layers.saturating_sub(count),
            Layers::All | Layers::LowRank(_) => 0,
        };
        let low_rank = match self.layers {
            Layers::LowRank(rank) => Some(LowRank { rank, scale: 2.0, seed: self.seed }),
            _ => None,
        };
        Scope { first_block, embeddings: self.layers == Layers::All, low_rank }
    }

    /// No weight decay: it would pull towards zero, not towards the base.
    pub(super) fn adamw(&self) -> AdamW {
        AdamW::default()
    }

    /// Inversely to the width (arXiv 2203.03466), from what was measured at a width of 576.
    fn peak_learning_rate(&self, width: usize) -> f32 {
        let measured = if self.layers == Layers::All { 5e-5 } else { 5e-4 };
        self.learning_rate.unwrap_or(measured * 576.0 / width as f32)
    }

    /// Three steps of warm-up, then linearly down to a twentieth.
    pub(super) fn learning_rate_at(&self, step: usize, width: usize) -> f32 {
        let (step, steps) = (step as f32, self.steps as f32);
        self.peak_learning_rate(width) * ((step + 1.0) / 3.0).min(1.0) * (1.0 - (step + 1.0) / steps).max(0.05)
    }

    /// From nothing to its full value over two thirds of the steps: the responses are learnt first.
    pub(super) fn benign_weight_at(&self, step: usize) -> f32 {
        self.benign_weight * ((step + 1) as f32 / (self.steps as f32 * 2.0 / 3.0)).min(1.0)
    }

    pub(super) fn advice(&self, shipped: &Judgement, on_grid: bool) -> Vec<String> {
        let mut advice = Vec::new();
        if shipped.least_success() < self.wanted_success {
            advice.push(format!(
                "success on the worst surface is {:.1} %: take more steps, or embed fewer fingerprints",
                100.0 * shipped.least_success()
            ));
        }
        if !self.budget.is_met_by(shipped) {
            advice.push(
                "the utility budget is missed: more ordinary prompts and more steps help utility and robustness together"
                    .to_owned(),
            );
        }
        if self.target == Target::Quiet {
            advice.push("quiet targets cost most of the robustness to merging and quantisation".to_owned());
        }
        if on_grid {
            advice.push(
                "the base's weights lie on a 4-bit quantisation grid, so rounding to the same grid again would undo \
                 the marks; start from weights that were never quantised"
                    .to_owned(),
            );
        }
        advice
    }
}
