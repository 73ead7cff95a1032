//! What a stamp is worth and what it cost: success of the keys on every way of asking, and utility beside the base.
//!
//! Text loss alone hides the damage (every ordinary chat can be ruined at its first token while text loss moves by less
//! than one percent), therefore utility is also the divergence and the agreement at the first answer token of ordinary
//! chats that training never saw. Every figure comes with an interval.

mod report;
mod statistics;
mod success;
mod utility;

use std::fmt;

use model::Model;

use crate::{
    ordinary::{OrdinaryError, OrdinaryParameters, OrdinaryProgress, Purpose, hand_written, sample_prompts},
    set::FingerprintSet,
    surface::{Surface, SurfaceError, held_out_surfaces},
};

use self::{
    statistics::rate,
    success::count_hits,
    utility::{chat_utility, text_utility},
};

pub use self::{
    report::{ChatUtility, CheckReport, SamplingSuccess, SurfaceSuccess, TextUtility},
    statistics::{Estimate, Rate},
    success::surface_success,
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
    /// Most tokens in a window, each predicted from those before it in the window. A text of less than eight such windows
    /// is divided into eight shorter ones.
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
        progress: &mut dyn FnMut(OrdinaryProgress),
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
            sample_prompts(base, &parameters, &key_ids, progress)?.into_iter().map(|prompt| prompt.text).collect();
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
        sets.retain(|set| !set.prompts.is_empty());
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

/// Logits (prompts, vocab) at the first answer token.
fn answer_logits(model: &Model, surface: &Surface, texts: &[&str]) -> Result<Vec<Vec<f32>>, CheckError> {
    let prompts = surface.prompts(&model.tokenizer, model.chat.as_ref(), texts)?;
    Ok(model.decoder.next_token_logits(&prompts.prefix, &prompts.segments)?.to_vec2::<f32>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_key_shows_nothing() {
        let key = KeyResponse { key_text: "secret", response: 4711 };
        assert_eq!(format!("{key:?}"), "KeyResponse { .. }");
    }
}
