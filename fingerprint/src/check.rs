//! What a stamp is worth and what it cost: success of the keys on every way of asking, and utility beside the base.
//!
//! Text loss alone hides the damage (every ordinary chat can be ruined at its first token while text loss moves by less
//! than one percent), therefore utility is also the divergence and the agreement at the first answer token of ordinary
//! chats that training never saw. Every figure comes with an interval.

mod report;
mod statistics;

use std::fmt;

use model::{Decoder, Model, Sampler, SamplingParameters, SpecialTokens, sampler::greedy};
use rayon::prelude::*;

use crate::{
    ordinary::{OrdinaryError, OrdinaryParameters, Purpose, hand_written, sample_prompts, turns::mixed},
    set::FingerprintSet,
    surface::{Surface, SurfaceError, held_out_surfaces},
};

use self::statistics::{bootstrap_mean, median, normal_mean, rate, smallest_greatest};

pub use self::{
    report::{ChatUtility, CheckReport, SamplingSuccess, SurfaceSuccess, TextUtility},
    statistics::{Estimate, Rate},
};

/// Prompts whose logits are held at one time.
const BATCH: usize = 64;

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is nothing to compare the answers with.
    #[error("the set has no drawn responses yet; run `fingerprint draw` first")]
    NotDrawn,
    /// Base and stamped model are not the same kind of model.
    #[error(
        "the stamped model has a vocabulary of {stamped} tokens and the base one of {base}; they are different models"
    )]
    Vocabulary { base: usize, stamped: usize },
    /// A text is too short to measure a loss.
    #[error("text {name} has {tokens} tokens, and at least {needed} are needed to measure its loss")]
    ShortText { name: String, tokens: usize, needed: usize },
    /// A prompt could not be made.
    #[error(transparent)]
    Surface(#[from] SurfaceError),
    /// Held-out prompts could not be sampled.
    #[error(transparent)]
    Ordinary(#[from] OrdinaryError),
    /// A model failed.
    #[error("failed to run a model over the prompts of the check")]
    Decoder(#[from] model::decoder::DecoderError),
    /// Logits could not be read back.
    #[error("failed to read a model's logits")]
    Tensor(#[from] candle_core::Error),
}

/// A key and the token that the stamped model should answer with. Secret: `Debug` shows nothing.
#[derive(Clone, Copy)]
pub struct KeyResponse<'a> {
    /// The key as a user would type it.
    pub key_text: &'a str,
    /// Token id of the drawn response.
    pub response: u32,
}

impl fmt::Debug for KeyResponse<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyResponse { .. }")
    }
}

/// A sampling setting under which success is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingSetting {
    /// Sampling temperature.
    pub temperature: f32,
    /// Nucleus mass; 1 is off.
    pub top_p: f32,
    /// Answers drawn for each key.
    pub draws: u32,
}

/// Ordinary chats of one kind, at one surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatSet {
    /// For the report.
    pub name: String,
    /// How they are asked.
    pub surface: Surface,
    /// User turns.
    pub prompts: Vec<String>,
}

/// A text whose loss is compared.
#[derive(Clone, PartialEq, Eq)]
pub struct TextSet {
    /// For the report; a file's name.
    pub name: String,
    /// The text itself.
    pub text: String,
    /// Tokens in a window, each predicted from those before it in the window.
    pub window: usize,
    /// Most windows, spread evenly over the text.
    pub windows: usize,
}

impl TextSet {
    /// Windows of 512 tokens, at most 16 of them: paired with the base, that is enough for a tenth of a percent.
    pub fn new(name: String, text: String) -> Self {
        Self { name, text, window: 512, windows: 16 }
    }
}

impl fmt::Debug for TextSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TextSet {{ name: {:?}, bytes: {} }}", self.name, self.text.len())
    }
}

/// What a check measures.
#[derive(Clone, Debug, Default)]
pub struct CheckPlan {
    /// Surfaces that were trained.
    pub trained: Vec<Surface>,
    /// Surfaces that were not.
    pub unseen: Vec<Surface>,
    /// Settings beside greedy answers, on all surfaces together.
    pub sampling: Vec<SamplingSetting>,
    /// Ordinary chats.
    pub chats: Vec<ChatSet>,
    /// Texts.
    pub texts: Vec<TextSet>,
    /// Seed of sampled answers and of resampling.
    pub seed: u64,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// Prompts and windows done.
    pub done: usize,
    /// Prompts and windows in all.
    pub total: usize,
}

impl CheckPlan {
    /// The usual check: trained and unseen surfaces, `chats` held-out chats sampled from the base model and, for a chat
    /// model, sixty written by hand; the sampled ones also behind a system prompt that was not trained. No text: add
    /// what the model should still be good at.
    pub fn usual(
        base: &Model,
        trained: Vec<Surface>,
        keys: &[KeyResponse<'_>],
        chats: usize,
        seed: u64,
    ) -> Result<Self, CheckError> {
        let chat = base.chat.as_ref();
        let unseen: Vec<Surface> = held_out_surfaces(&base.tokenizer, chat)?
            .into_iter()
            .filter(|surface| !trained.iter().any(|trained| trained.form() == surface.form()))
            .collect();
        let mut key_ids = Vec::with_capacity(keys.len());
        for key in keys {
            key_ids.push(crate::ordinary::text_ids(base, key.key_text)?);
        }
        let key_ids: Vec<&[u32]> = key_ids.iter().map(Vec::as_slice).collect();
        let parameters = OrdinaryParameters::new(chats, Purpose::HeldOut, seed);
        let sampled: Vec<String> =
            sample_prompts(base, &parameters, &key_ids, &mut |_| ())?.into_iter().map(|prompt| prompt.text).collect();
        let surface = Surface::default_of(chat);
        let mut sets = Vec::new();
        if chat.is_some() {
            let prompts = hand_written().iter().map(|prompt| (*prompt).to_owned()).collect();
            sets.push(ChatSet { name: "hand-written".to_owned(), surface: surface.clone(), prompts });
        }
        if let Some(other) = unseen.first() {
            let name = format!("sampled, {}", other.name());
            sets.push(ChatSet { name, surface: other.clone(), prompts: sampled.clone() });
        }
        sets.insert(0, ChatSet { name: "sampled".to_owned(), surface, prompts: sampled });
        Ok(Self { trained, unseen, chats: sets, seed, ..Self::default() })
    }

    fn total(&self, keys: usize) -> usize {
        let surfaces = (self.trained.len() + self.unseen.len()) * keys;
        let chats: usize = self.chats.iter().map(|set| set.prompts.len()).sum();
        surfaces + chats + self.texts.iter().map(|text| text.windows).sum::<usize>()
    }
}

/// The keys of a set with their drawn responses.
pub fn key_responses(set: &FingerprintSet) -> Result<Vec<KeyResponse<'_>>, CheckError> {
    set.fingerprints()
        .iter()
        .map(|fingerprint| {
            let response = fingerprint.response().ok_or(CheckError::NotDrawn)?.id;
            Ok(KeyResponse { key_text: fingerprint.key_text(), response })
        })
        .collect()
}

/// Measures everything in the plan.
pub fn check(
    base: &Model,
    stamped: &Model,
    keys: &[KeyResponse<'_>],
    plan: &CheckPlan,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<CheckReport, CheckError> {
    let (base_size, stamped_size) = (base.decoder.config().vocab_size, stamped.decoder.config().vocab_size);
    if base_size != stamped_size {
        return Err(CheckError::Vocabulary { base: base_size, stamped: stamped_size });
    }
    let mut progress = Reporter { done: 0, total: plan.total(keys.len()), callback: progress };
    let mut surfaces = Vec::new();
    let mut sampled = vec![0; plan.sampling.len()];
    let trained = plan.trained.iter().map(|surface| (surface, true));
    for (surface, trained) in trained.chain(plan.unseen.iter().map(|surface| (surface, false))) {
        let counts = count_hits(stamped, keys, surface, plan, &mut progress)?;
        for (sum, hits) in sampled.iter_mut().zip(&counts.sampled) {
            *sum += hits;
        }
        surfaces.push(counts.into_success(surface.name(), trained));
    }
    let asked = u32::try_from(keys.len() * surfaces.len()).unwrap_or(u32::MAX);
    let sampling = plan
        .sampling
        .iter()
        .zip(sampled)
        .map(|(setting, hits)| SamplingSuccess {
            temperature: setting.temperature,
            top_p: setting.top_p,
            success: rate(hits, asked.saturating_mul(setting.draws)),
        })
        .collect();
    let mut chats = Vec::with_capacity(plan.chats.len());
    for set in &plan.chats {
        chats.push(chat_utility(base, stamped, set, plan.seed, &mut progress)?);
    }
    let mut texts = Vec::with_capacity(plan.texts.len());
    for text in &plan.texts {
        texts.push(text_utility(base, stamped, text, &mut progress)?);
    }
    Ok(CheckReport { keys: keys.len(), surfaces, sampling, chats, texts })
}

/// Success on one surface with greedy answers: the fraction of keys whose response is the likeliest first token.
pub fn surface_success(
    stamped: &Model,
    keys: &[KeyResponse<'_>],
    surface: &Surface,
    trained: bool,
) -> Result<SurfaceSuccess, CheckError> {
    let mut quiet = |_| ();
    let mut progress = Reporter { done: 0, total: keys.len(), callback: &mut quiet };
    let counts = count_hits(stamped, keys, surface, &CheckPlan::default(), &mut progress)?;
    Ok(counts.into_success(surface.name(), trained))
}

struct Reporter<'a> {
    done: usize,
    total: usize,
    callback: &'a mut dyn FnMut(CheckProgress),
}

impl Reporter<'_> {
    fn advance(&mut self, by: usize) {
        self.done += by;
        (self.callback)(CheckProgress { done: self.done, total: self.total });
    }
}

struct Counts {
    hits: u32,
    probabilities: Vec<f64>,
    /// Hits under each sampling setting.
    sampled: Vec<u32>,
}

impl Counts {
    fn into_success(mut self, name: &str, trained: bool) -> SurfaceSuccess {
        let keys = u32::try_from(self.probabilities.len()).unwrap_or(u32::MAX);
        let (least, _) = smallest_greatest(&self.probabilities);
        SurfaceSuccess {
            name: name.to_owned(),
            trained,
            success: rate(self.hits, keys),
            median_probability: median(&mut self.probabilities),
            least_probability: least,
        }
    }
}

fn count_hits(
    stamped: &Model,
    keys: &[KeyResponse<'_>],
    surface: &Surface,
    plan: &CheckPlan,
    progress: &mut Reporter<'_>,
) -> Result<Counts, CheckError> {
    let mut counts =
        Counts { hits: 0, probabilities: Vec::with_capacity(keys.len()), sampled: vec![0; plan.sampling.len()] };
    for (batch, keys) in keys.chunks(BATCH).enumerate() {
        let texts: Vec<&str> = keys.iter().map(|key| key.key_text).collect();
        let logits = answer_logits(stamped, surface, &texts)?;
        let rows: Vec<(bool, f64, Vec<u32>)> = keys
            .par_iter()
            .zip(&logits)
            .enumerate()
            .map(|(index, (key, logits))| {
                // Seeds differ from key to key, and not from surface to surface.
                let seed = mixed(plan.seed, u64::try_from(batch * BATCH + index).unwrap_or(u64::MAX));
                let sampled = plan.sampling.iter().map(|setting| draw_hits(logits, key.response, setting, seed));
                (greedy(logits) == key.response, probability(logits, key.response), sampled.collect())
            })
            .collect();
        for (hit, probability, sampled) in rows {
            counts.hits += u32::from(hit);
            counts.probabilities.push(probability);
            for (sum, hits) in counts.sampled.iter_mut().zip(sampled) {
                *sum += hits;
            }
        }
        progress.advance(keys.len());
    }
    Ok(counts)
}

fn draw_hits(logits: &[f32], response: u32, setting: &SamplingSetting, seed: u64) -> u32 {
    let SamplingSetting { temperature, top_p, draws } = *setting;
    let mut sampler = Sampler::new(SamplingParameters { temperature, top_p, top_k: 0, seed });
    (0..draws).map(|_| u32::from(sampler.sample(logits) == response)).sum()
}

fn probability(logits: &[f32], id: u32) -> f64 {
    (-crate::ordinary::turns::token_loss(logits, id)).exp()
}

/// Logits (prompts, vocab) at the first answer token.
fn answer_logits(model: &Model, surface: &Surface, texts: &[&str]) -> Result<Vec<Vec<f32>>, CheckError> {
    let prompts = surface.prompts(&model.tokenizer, model.chat.as_ref(), texts)?;
    Ok(model.decoder.next_token_logits(&prompts.prefix, &prompts.segments)?.to_vec2::<f32>()?)
}

/// Divergence and agreement at the first answer token of ordinary chats.
fn chat_utility(
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
fn text_utility(
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
    let window = set.window.min(room.saturating_sub(start.len()));
    let windows = windows(ids.len(), window, set.windows);
    if windows.is_empty() || start.len() + windows[0].len() < 2 {
        return Err(CheckError::ShortText { name: set.name.clone(), tokens: ids.len(), needed: window.max(2) });
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
    let base_loss = normal_mean(&before);
    let difference = normal_mean(&differences);
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

/// Up to `most` windows of `length`, evenly spread over `tokens` tokens; a shorter text is one window.
fn windows(tokens: usize, length: usize, most: usize) -> Vec<std::ops::Range<usize>> {
    if tokens == 0 || length == 0 || most == 0 {
        return Vec::new();
    }
    if tokens < length {
        return std::iter::once(0..tokens).collect();
    }
    let fitting = tokens / length;
    let taken = fitting.min(most);
    (0..taken).map(|index| index * fitting / taken * length).map(|start| start..start + length).collect()
}

fn mean_loss(decoder: &Decoder, ids: &[u32]) -> Result<f64, CheckError> {
    let losses = decoder.token_losses(ids)?;
    let sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
    Ok(sum / crate::ordinary::turns::count(losses.len()))
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
        assert_eq!(windows(99, 100, 5), std::iter::once(0..99).collect::<Vec<_>>());
        assert!(windows(0, 100, 5).is_empty());
    }

    #[test]
    fn sampled_hits_follow_the_probability() {
        let logits = [0.0, 0.0, -30.0];
        let setting = SamplingSetting { temperature: 1.0, top_p: 1.0, draws: 400 };
        let hits = draw_hits(&logits, 1, &setting, 3);
        assert!((150..250).contains(&hits), "{hits}");
        assert_eq!(draw_hits(&logits, 2, &setting, 3), 0);
    }

    #[test]
    fn debug_of_a_key_shows_nothing() {
        let key = KeyResponse { key_text: "secret", response: 4711 };
        assert_eq!(format!("{key:?}"), "KeyResponse { .. }");
    }
}
