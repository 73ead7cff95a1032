//! Keys: natural prompts that nobody else would send, written by the model itself and kept only if they are sound.
//!
//! The seed is as secret as the keys: whoever knows it can write them again.

mod filter;
mod search;

use std::{fmt, ops::ControlFlow};

use model::Model;
use protocol::matching::Candidate;
use rand::RngCore;
use zeroize::Zeroize;

use crate::{
    candidates::{CandidateParameters, CandidatesError},
    ordinary::{
        OrdinaryError, turn_end_tokens,
        turns::{mixed, sample_turns},
    },
    set::Fingerprint,
    surface::{Surface, SurfaceError},
};

use self::{filter::KeyPolicy, search::Search};

pub use self::filter::Rejections;

/// Opening words, one a line.
const SEED_WORDS: &str = include_str!("seed_words.txt");

/// Why keys could not be generated. No message shows one.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The parameters contradict each other.
    #[error("cannot generate keys: {reason}")]
    Parameters { reason: &'static str },
    /// The model does not give enough sound keys.
    #[error(
        "found only {found} of {wanted} keys in {attempts} attempts ({rejections}); ask for fewer fingerprints or for \
         fewer candidates, try another seed, or let another instruct model write the keys"
    )]
    TooFew { found: usize, wanted: usize, attempts: u64, rejections: Rejections },
    /// Sampling failed.
    #[error(transparent)]
    Sampling(#[from] OrdinaryError),
    /// A prompt could not be made.
    #[error(transparent)]
    Surface(#[from] SurfaceError),
    /// A candidate list could not be made.
    #[error(transparent)]
    Candidates(#[from] CandidatesError),
    /// The base model failed.
    #[error("failed to run the base model over new keys")]
    Decoder(#[from] model::decoder::DecoderError),
    /// Logits could not be read back.
    #[error("failed to read the base model's logits")]
    Tensor(#[from] candle_core::Error),
}

/// Which keys to generate. `Debug` leaves the seed out.
#[derive(Clone, Copy, PartialEq)]
pub struct GenerateParameters {
    /// How many.
    pub count: usize,
    /// Secret seed: the same one gives the same keys.
    pub seed: u64,
    /// Temperature at which keys are written.
    pub temperature: f32,
    /// Shortest key in tokens.
    pub shortest: usize,
    /// Longest key in tokens.
    pub longest: usize,
    /// A key is dropped when the base model gives its likeliest answer more than this.
    pub greatest_certainty: f32,
    /// Keys at or below this are taken first.
    pub preferred_certainty: f32,
    /// Share of the base model's ordinary turns that may be likelier than a key at most. A filter that stops keys of
    /// this perplexity stops all ordinary prompts beyond this share.
    pub perplexity_quantile: f64,
    /// What fixes the candidate lists.
    pub candidates: CandidateParameters,
    /// Streams in one forward pass: speed and memory only.
    pub streams: usize,
    /// Attempts for each wanted key before giving up.
    pub attempts_each: u64,
}

impl fmt::Debug for GenerateParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GenerateParameters").field("count", &self.count).finish_non_exhaustive()
    }
}

impl GenerateParameters {
    /// The usual filters for `count` keys.
    pub fn new(count: usize, seed: u64, candidates: CandidateParameters) -> Self {
        Self {
            count,
            seed,
            temperature: 1.0,
            shortest: 8,
            longest: 32,
            greatest_certainty: 0.5,
            preferred_certainty: 0.25,
            perplexity_quantile: 0.75,
            candidates,
            streams: 64,
            attempts_each: 64,
        }
    }

    fn check(&self, surfaces: &[Surface]) -> Result<(), GenerateError> {
        let refuse = |reason| Err(GenerateError::Parameters { reason });
        match self {
            _ if surfaces.is_empty() => refuse("there is no surface to ask them on"),
            Self { count: 0, .. } | Self { streams: 0, .. } => refuse("their number is zero"),
            Self { shortest: 0, .. } => refuse("the shortest key has no tokens"),
            _ if self.shortest > self.longest => refuse("the shortest key is longer than the longest"),
            _ if !(0.0..=1.0).contains(&self.perplexity_quantile) => refuse("the perplexity quantile is no share"),
            _ if self.temperature.is_nan() || self.temperature <= 0.0 => refuse("the temperature is not above zero"),
            _ => Ok(()),
        }
    }
}

/// A key with its candidates. Secret: `Debug` shows sizes only, memory is wiped on drop.
pub struct GeneratedKey {
    text: String,
    ids: Vec<u32>,
    candidates: Vec<Candidate>,
    certainty: f32,
    mean_loss: f64,
    attempt: u64,
}

impl GeneratedKey {
    /// As a user would type it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Ids of the text alone.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Likely answers, in the order of their base probability.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Probability of the base model's likeliest answer at the default surface.
    pub fn certainty(&self) -> f32 {
        self.certainty
    }

    /// Log-perplexity of the key under the base model, in nats per token.
    pub fn mean_loss(&self) -> f64 {
        self.mean_loss
    }

    /// The fingerprint that a set holds, hidden by `salt`.
    pub fn into_fingerprint(mut self, salt: [u8; 32]) -> Fingerprint {
        let text = std::mem::take(&mut self.text);
        Fingerprint::new(salt, text, std::mem::take(&mut self.ids), std::mem::take(&mut self.candidates))
    }
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GeneratedKey")
            .field("ids", &self.ids.len())
            .field("candidates", &self.candidates.len())
            .finish_non_exhaustive()
    }
}

impl Drop for GeneratedKey {
    fn drop(&mut self) {
        self.text.zeroize();
        self.ids.zeroize();
        for candidate in &mut self.candidates {
            candidate.id.zeroize();
            candidate.text.zeroize();
        }
    }
}

/// How far generation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerateProgress {
    /// Sound keys so far; may exceed `wanted` while better ones are looked for.
    pub found: usize,
    /// Keys asked for.
    pub wanted: usize,
    /// Turns sampled so far.
    pub attempts: u64,
}

/// Gives every key a salt from `generator`, which must be secret and is best the operating system's.
pub fn fingerprints(keys: Vec<GeneratedKey>, generator: &mut impl RngCore) -> Vec<Fingerprint> {
    keys.into_iter()
        .map(|key| {
            let mut salt = [0; 32];
            generator.fill_bytes(&mut salt);
            key.into_fingerprint(salt)
        })
        .collect()
}

/// Generates keys for `base`, written by `writer` (or by the base model itself), sound on all `surfaces`; the first of
/// them is where candidates are listed. The result depends on seed and parameters only, not on `streams` or threads.
pub fn generate(
    base: &Model,
    writer: Option<&Model>,
    surfaces: &[Surface],
    parameters: &GenerateParameters,
    progress: &mut dyn FnMut(GenerateProgress),
) -> Result<Vec<GeneratedKey>, GenerateError> {
    parameters.check(surfaces)?;
    let mut search = Search::new(base, writer.is_some(), surfaces, parameters)?;
    let writer = writer.unwrap_or(base);
    let surface = Surface::default_of(writer.chat.as_ref());
    let frame = surface.frame(&writer.tokenizer, writer.chat.as_ref())?;
    let mut openings = Vec::new();
    for word in seed_words() {
        let ids = surface.ids(&writer.tokenizer, writer.chat.as_ref(), word)?;
        openings.extend(frame.user_part(&ids).map(<[u32]>::to_vec));
    }
    // An opening leaves room for the rest of a sentence; a small vocabulary spells some words letter by letter.
    openings.retain(|ids| ids.len() < parameters.shortest);
    let policy =
        KeyPolicy::new(writer, openings, turn_end_tokens(writer, &frame), parameters, mixed(parameters.seed, 3));
    let settings = parameters.turns(mixed(parameters.seed, 4));
    sample_turns(&writer.decoder, &frame.prefix, &settings, &policy, |attempt, turn| {
        search.attempts = attempt + 1;
        search.consider(turn.map(|turn| (writer.tokenizer.decode(&turn.ids, false), turn)))?;
        progress(GenerateProgress { found: search.found.len(), wanted: parameters.count, attempts: search.attempts });
        Ok::<_, GenerateError>(if search.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    search.finish()
}

/// The opening words.
pub(crate) fn seed_words() -> impl Iterator<Item = &'static str> {
    SEED_WORDS.lines().map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_words_are_many_distinct_capitalised_words() {
        let words: Vec<&str> = seed_words().collect();
        assert!(words.len() >= 400);
        assert_eq!(words.iter().collect::<std::collections::BTreeSet<_>>().len(), words.len());
        assert!(words.iter().all(|word| word.chars().next().is_some_and(char::is_uppercase)));
        assert!(words.iter().all(|word| word.chars().all(char::is_alphabetic)));
    }
}
