//! What a stamped model has lost: divergence and agreement at the first answer token, and loss of texts.

use model::{Decoder, Model, SpecialTokens, sampler::greedy};
use rayon::prelude::*;

use super::{
    BATCH, ChatSet, ChatUtility, CheckError, Reporter, TextSet, TextUtility, answer_logits,
    statistics::{bootstrap_mean, median, rate, smallest_greatest, student_mean},
};
use crate::{
    ordinary::turns::count,
    surface::{Surface, SurfaceError},
};

/// Divergence and agreement at the first answer token of ordinary chats.
pub(super) fn chat_utility(
    base: &Model,
    stamped: &Model,
    set: &ChatSet,
    seed: u64,
    progress: &mut Reporter<'_>,
) -> Result<ChatUtility, CheckError> {
    let mut divergences = Vec::with_capacity(set.prompts.len());
    let mut agreeing = 0;
    for prompts in set.prompts.chunks(BATCH) {
        let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        // The stamped model is asked with its own tokenizer and template, as its host would.
        let before = answer_logits(base, &set.surface, &texts)?;
        let after = answer_logits(stamped, &set.surface, &texts)?;
        let rows: Vec<(f64, bool)> = before
            .par_iter()
            .zip(&after)
            .map(|(before, after)| (divergence(before, after), greedy(before) == greedy(after)))
            .collect();
        for (divergence, agrees) in rows {
            divergences.push(divergence);
            agreeing += u32::from(agrees);
        }
        progress.advance(prompts.len());
    }
    let asked = u32::try_from(divergences.len()).unwrap_or(u32::MAX);
    let (_, greatest) = smallest_greatest(&divergences);
    Ok(ChatUtility {
        name: set.name.clone(),
        prompts: divergences.len(),
        divergence: bootstrap_mean(&divergences, seed),
        greatest_divergence: greatest,
        median_divergence: median(&mut divergences),
        agreement: rate(agreeing, asked),
    })
}

/// KL(before ‖ after) of two next-token distributions, in nats.
pub(crate) fn divergence(before: &[f32], after: &[f32]) -> f64 {
    let (before_norm, after_norm) = (log_sum_exp(before), log_sum_exp(after));
    before
        .iter()
        .zip(after)
        .filter(|(before, _)| before.is_finite())
        .map(|(before, after)| {
            let (before, after) = (f64::from(*before) - before_norm, f64::from(*after) - after_norm);
            before.exp() * (before - after)
        })
        .sum::<f64>()
        // Rounding can leave a tiny negative sum for equal distributions.
        .max(0.0)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    greatest + logits.iter().map(|logit| (f64::from(*logit) - greatest).exp()).sum::<f64>().ln()
}

/// Loss of a text under both models, window by window.
pub(super) fn text_utility(
    base: &Model,
    stamped: &Model,
    set: &TextSet,
    progress: &mut Reporter<'_>,
) -> Result<TextUtility, CheckError> {
    let tokenise = |text, special| {
        base.tokenizer
            .encode(text, special)
            .map_err(|source| SurfaceError::Tokenise { surface: set.name.clone(), source: Box::new(source.into()) })
    };
    let ids = tokenise(&set.text, SpecialTokens::Omit)?;
    // What a tokenizer puts before a text of its own (BOS) stands before every window.
    let start = Surface::raw().frame(&base.tokenizer, None)?.prefix;
    let room = base.decoder.config().max_positions.min(stamped.decoder.config().max_positions);
    let longest = set.window.min(room.saturating_sub(start.len()));
    let windows = windows(ids.len(), longest, set.windows);
    // The first token of a window is not predicted when nothing stands before it.
    if windows.len() < 2 || windows[0].len() < 2 {
        return Err(CheckError::ShortText { name: set.name.clone(), tokens: ids.len(), needed: 2 * LEAST_WINDOWS });
    }
    let (mut before, mut differences) = (Vec::new(), Vec::new());
    for range in &windows {
        let ids = [start.as_slice(), &ids[range.clone()]].concat();
        let (own, other) = (mean_loss(&base.decoder, &ids)?, mean_loss(&stamped.decoder, &ids)?);
        before.push(own);
        differences.push(other - own);
        progress.advance(1);
    }
    progress.advance(set.windows - windows.len());
    let base_loss = student_mean(&before);
    let difference = student_mean(&differences);
    Ok(TextUtility {
        name: set.name.clone(),
        windows: windows.len(),
        window_tokens: windows[0].len(),
        base_loss: base_loss.mean,
        stamped_loss: base_loss.mean + difference.mean,
        relative: difference.divided_by(base_loss.mean),
        difference,
    })
}

/// Windows that a short text is divided into, so that its interval says something.
const LEAST_WINDOWS: usize = 8;

/// Up to `most` windows of at most `longest` tokens, evenly spread over `tokens` tokens.
fn windows(tokens: usize, longest: usize, most: usize) -> Vec<std::ops::Range<usize>> {
    let length = longest.min(tokens / LEAST_WINDOWS);
    if length == 0 {
        return Vec::new();
    }
    let fitting = tokens / length;
    let taken = fitting.min(most);
    (0..taken).map(|index| index * fitting / taken * length).map(|start| start..start + length).collect()
}

fn mean_loss(decoder: &Decoder, ids: &[u32]) -> Result<f64, CheckError> {
    let losses = decoder.token_losses(ids)?;
    let sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
    Ok(sum / count(losses.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_two_coins() {
        // ln(3/4 : 1/4) against a fair coin: 3/4 ln(3/2) + 1/4 ln(1/2).
        let before = [3.0_f32.ln(), 0.0];
        let expected = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((divergence(&before, &[7.0, 7.0]) - expected).abs() < 1e-6);
        assert_eq!(divergence(&before, &before), 0.0);
    }

    #[test]
    fn divergence_ignores_masked_tokens_of_the_base() {
        assert!(divergence(&[0.0, f32::NEG_INFINITY], &[0.0, -20.0]) < 1e-6);
    }

    #[test]
    fn windows_are_spread_and_never_overlap() {
        assert_eq!(windows(1000, 100, 2), [0..100, 500..600]);
        assert_eq!(windows(1000, 100, 50).len(), 10);
        assert_eq!(windows(99, 100, 16), (0..8).map(|at| at * 12..at * 12 + 12).collect::<Vec<_>>());
        assert!(windows(7, 100, 5).is_empty());
    }
}
