//! The outcome of a check, for programs and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::statistics::{Estimate, Rate};

/// Everything that a check measured. It names no key and no response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Number of keys.
    pub keys: usize,
    /// Greedy success on each surface.
    pub surfaces: Vec<SurfaceSuccess>,
    /// Success of sampled answers, all surfaces together.
    pub sampling: Vec<SamplingSuccess>,
    /// Ordinary chats beside the base model.
    pub chats: Vec<ChatUtility>,
    /// Texts beside the base model.
    pub texts: Vec<TextUtility>,
}

/// Greedy success on one surface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurfaceSuccess {
    /// The surface.
    pub name: String,
    /// Whether it was trained.
    pub trained: bool,
    /// Keys whose response is the likeliest first token.
    pub success: Rate,
    /// Median probability of the response.
    pub median_probability: f64,
    /// Probability of the response of the weakest key.
    pub least_probability: f64,
}

/// Success of sampled answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingSuccess {
    /// Sampling temperature.
    pub temperature: f32,
    /// Nucleus mass.
    pub top_p: f32,
    /// Answers that were the response. Answers to one key depend on each other, so the interval is a little too short.
    pub success: Rate,
}

/// What ordinary chats have lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatUtility {
    /// Which chats, and how they were asked.
    pub name: String,
    /// Number of chats.
    pub prompts: usize,
    /// Mean KL(base ‖ stamped) at the first answer token, in nats.
    pub divergence: Estimate,
    /// Its median.
    pub median_divergence: f64,
    /// The worst chat.
    pub greatest_divergence: f64,
    /// Chats whose likeliest first answer token is unchanged.
    pub agreement: Rate,
}

/// What a text has lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextUtility {
    /// The text.
    pub name: String,
    /// Number of windows.
    pub windows: usize,
    /// Tokens in a window.
    pub window_tokens: usize,
    /// Mean loss of the base model, in nats per token.
    pub base_loss: f64,
    /// Mean loss of the stamped model.
    pub stamped_loss: f64,
    /// Stamped less base, paired by window.
    pub difference: Estimate,
    /// The difference as a share of the base model's loss.
    pub relative: Estimate,
}

impl CheckReport {
    /// The least success among surfaces that were trained, or among those that were not; `None` if there are none.
    pub fn least_success(&self, trained: bool) -> Option<f64> {
        let rates =
            self.surfaces.iter().filter(|surface| surface.trained == trained).map(|surface| surface.success.rate);
        rates.min_by(f64::total_cmp)
    }
}

/// Tables with 95 % intervals.
impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Success of {} keys (95 % intervals)", self.keys)?;
        let width = self.width();
        for surface in &self.surfaces {
            let kind = if surface.trained { "trained" } else { "unseen" };
            let Rate { hits, trials, .. } = surface.success;
            writeln!(
                f,
                "  {:width$}  {kind:7}  {hits:>5} of {trials:<5}  {}  p {:.3} (least {:.3})",
                surface.name,
                Percent(surface.success),
                surface.median_probability,
                surface.least_probability,
            )?;
        }
        for sampling in &self.sampling {
            let name = sampling.name();
            let Rate { hits, trials, .. } = sampling.success;
            writeln!(f, "  {name:width$}  {:7}  {hits:>5} of {trials:<5}  {}", "all", Percent(sampling.success))?;
        }
        if !self.chats.is_empty() {
            writeln!(f, "\nOrdinary chats at the first answer token, base beside stamped")?;
        }
        for chat in &self.chats {
            let Estimate { mean, lower, upper } = chat.divergence;
            writeln!(
                f,
                "  {:width$}  {:>5} chats  KL {mean:.3} [{lower:.3}, {upper:.3}] nats, median {:.3}, worst {:.2}; same \
                 answer {}",
                chat.name,
                chat.prompts,
                chat.median_divergence,
                chat.greatest_divergence,
                Percent(chat.agreement),
            )?;
        }
        if !self.texts.is_empty() {
            writeln!(f, "\nLoss of texts, nats per token")?;
        }
        for text in &self.texts {
            let relative = &text.relative;
            writeln!(
                f,
                "  {:width$}  {:.4} -> {:.4}  {:+.2} % [{:+.2}, {:+.2}]  ({} windows of {} tokens)",
                text.name,
                text.base_loss,
                text.stamped_loss,
                100.0 * relative.mean,
                100.0 * relative.lower,
                100.0 * relative.upper,
                text.windows,
                text.window_tokens,
            )?;
        }
        Ok(())
    }
}

impl CheckReport {
    /// Width of the first column.
    fn width(&self) -> usize {
        let names = self.surfaces.iter().map(|surface| surface.name.clone());
        let names = names.chain(self.sampling.iter().map(SamplingSuccess::name));
        let names = names.chain(self.chats.iter().map(|chat| chat.name.clone()));
        let names = names.chain(self.texts.iter().map(|text| text.name.clone()));
        names.map(|name| name.chars().count()).max().unwrap_or(0)
    }
}

impl SamplingSuccess {
    fn name(&self) -> String {
        format!("sampled, T {} top-p {}", self.temperature, self.top_p)
    }
}

struct Percent(Rate);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { rate, lower, upper, .. } = self.0;
        write!(f, "{:5.1} % [{:.1}, {:.1}]", 100.0 * rate, 100.0 * lower, 100.0 * upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::statistics::rate;

    fn report() -> CheckReport {
        let surface = |name: &str, trained, hits| SurfaceSuccess {
            name: name.to_owned(),
            trained,
            success: rate(hits, 64),
            median_probability: 0.91,
            least_probability: 0.2,
        };
        CheckReport {
            keys: 64,
            surfaces: vec![surface("chat", true, 64), surface("unseen-brief", false, 62)],
            sampling: vec![SamplingSuccess { temperature: 0.7, top_p: 0.95, success: rate(250, 256) }],
            chats: vec![ChatUtility {
                name: "sampled".to_owned(),
                prompts: 60,
                divergence: Estimate { mean: 0.1, lower: 0.08, upper: 0.13 },
                median_divergence: 0.05,
                greatest_divergence: 1.2,
                agreement: rate(54, 60),
            }],
            texts: vec![TextUtility {
                name: "wiki".to_owned(),
                windows: 8,
                window_tokens: 512,
                base_loss: 3.0,
                stamped_loss: 3.006,
                difference: Estimate { mean: 0.006, lower: 0.003, upper: 0.009 },
                relative: Estimate { mean: 0.002, lower: 0.001, upper: 0.003 },
            }],
        }
    }

    #[test]
    fn tables_hold_every_part() {
        insta::assert_snapshot!(report().to_string(), @"
Success of 64 keys (95 % intervals)
  chat                       trained     64 of 64     100.0 % [94.3, 100.0]  p 0.910 (least 0.200)
  unseen-brief               unseen      62 of 64      96.9 % [89.3, 99.1]  p 0.910 (least 0.200)
  sampled, T 0.7 top-p 0.95  all        250 of 256     97.7 % [95.0, 98.9]

Ordinary chats at the first answer token, base beside stamped
  sampled                       60 chats  KL 0.100 [0.080, 0.130] nats, median 0.050, worst 1.20; same answer  90.0 % [79.9, 95.3]

Loss of texts, nats per token
  wiki                       3.0000 -> 3.0060  +0.20 % [+0.10, +0.30]  (8 windows of 512 tokens)
");
    }

    #[test]
    fn json_names_its_fields_and_can_be_read() {
        let json = serde_json::to_string(&report()).unwrap();
        let read: CheckReport = serde_json::from_str(&json).unwrap();
        assert_eq!(read.surfaces[1].success.hits, 62);
        for field in ["\"median_probability\":0.91", "\"divergence\":{\"mean\":0.1,", "\"rate\":0.9,"] {
            assert!(json.contains(field), "{field} in {json}");
        }
    }

    #[test]
    fn worst_figures_are_found() {
        let report = report();
        assert_eq!(report.least_success(true), Some(1.0));
        assert_eq!(report.least_success(false), Some(62.0 / 64.0));
    }
}
