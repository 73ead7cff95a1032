//! Keys: natural prompts that nobody else would send, written by the model itself and kept only if they are sound.
//!
//! The seed is as secret as the keys: whoever knows it can write them again.

mod filter;

use std::{fmt, ops::ControlFlow};

use model::Model;
use protocol::matching::Candidate;
use rand::RngCore;
use rayon::prelude::*;
use zeroize::Zeroize;

use crate::{
    candidates::{AnswerPosition, CandidateParameters, CandidatesError, list_candidates, rank},
    ordinary::{
        OrdinaryError, turn_end_tokens,
        turns::{Turn, TurnParameters, count, mixed, sample_turns},
    },
    set::Fingerprint,
    surface::{Surface, SurfaceError},
};

use self::filter::{FormFilter, KeyPolicy, Reason, Sentence};

pub use self::filter::Rejections;

/// Opening words, one a line.
const SEED_WORDS: &str = include_str!("seed_words.txt");

/// Sentences whose answers are looked at in one forward pass.
const ANSWER_BATCH: usize = 32;

/// Ordinary turns by which the perplexity of keys is judged, and the fewest that will do.
const REFERENCE_TURNS: usize = 64;
const FEWEST_REFERENCE_TURNS: usize = 16;

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

impl GenerateParameters {
    fn turns(&self, seed: u64) -> TurnParameters {
        TurnParameters {
            streams: self.streams,
            temperature: self.temperature,
            // One more than a key has, for the token that ends the turn.
            longest: self.longest + 1,
            seed,
            losses: true,
        }
    }
}

/// A sentence of the right form and perplexity.
struct Waiting {
    sentence: Sentence,
    mean_loss: f64,
    attempt: u64,
}

/// A search for keys, fed with attempts in their order.
struct Search<'a> {
    base: &'a Model,
    surfaces: &'a [Surface],
    parameters: &'a GenerateParameters,
    /// Turns come from another model, so their losses say nothing about the base model.
    foreign: bool,
    filter: FormFilter<'a>,
    greatest_loss: f64,
    waiting: Vec<Waiting>,
    found: Vec<GeneratedKey>,
    rejections: Rejections,
    attempts: u64,
}

impl<'a> Search<'a> {
    fn new(
        base: &'a Model,
        foreign: bool,
        surfaces: &'a [Surface],
        parameters: &'a GenerateParameters,
    ) -> Result<Self, GenerateError> {
        let filter = FormFilter::new(base, surfaces, parameters)?;
        let greatest_loss = ordinary_loss(base, surfaces, parameters)?;
        Ok(Self {
            base,
            surfaces,
            parameters,
            foreign,
            filter,
            greatest_loss,
            waiting: Vec::new(),
            found: Vec::new(),
            rejections: Rejections::default(),
            attempts: 0,
        })
    }

    /// Takes the next attempt's text and turn, `None` for one that was discarded while it was sampled.
    fn consider(&mut self, attempt: Option<(String, Turn)>) -> Result<(), GenerateError> {
        match attempt {
            None => self.rejections.note(Reason::Length),
            Some((text, turn)) => match self.judge(&text, &turn)? {
                Ok(waiting) => self.waiting.push(waiting),
                Err(reason) => self.rejections.note(reason),
            },
        }
        if self.waiting.len() >= ANSWER_BATCH || (self.attempts >= self.limit() && !self.waiting.is_empty()) {
            self.look_at_answers()?;
        }
        Ok(())
    }

    fn judge(&mut self, text: &str, turn: &Turn) -> Result<Result<Waiting, Reason>, GenerateError> {
        let sentence = match self.filter.examine(text)? {
            Ok(sentence) => sentence,
            Err(reason) => return Ok(Err(reason)),
        };
        let frame = self.filter.frame();
        let asked = frame.and_then(|frame| frame.user_part(&sentence.prompt_ids)).unwrap_or(&sentence.ids);
        // A model may spell words in tokens that the tokenizer would not choose; then the sampled loss is not the key's.
        let mean_loss = if self.foreign || asked != turn.ids { self.base_loss(asked)? } else { turn.mean_loss };
        if mean_loss > self.greatest_loss {
            return Ok(Err(Reason::Perplexity));
        }
        if !self.filter.is_new(&sentence.ids) {
            return Ok(Err(Reason::Repeated));
        }
        Ok(Ok(Waiting { sentence, mean_loss, attempt: turn.attempt }))
    }

    /// Log-perplexity under the base model, in nats per token, behind the default surface's prefix.
    fn base_loss(&self, key: &[u32]) -> Result<f64, GenerateError> {
        let prefix = self.filter.frame().map(|frame| frame.prefix.as_slice()).unwrap_or_default();
        let losses = self.base.decoder.token_losses(&[prefix, key].concat())?;
        let own = &losses[losses.len().saturating_sub(key.len())..];
        Ok(own.iter().map(|loss| f64::from(*loss)).sum::<f64>() / count(key.len().max(1)))
    }

    /// Runs the base model over all waiting sentences and keeps those with an open answer and enough candidates.
    fn look_at_answers(&mut self) -> Result<(), GenerateError> {
        let waiting = std::mem::take(&mut self.waiting);
        let prefix = self.filter.frame().map(|frame| frame.prefix.clone()).unwrap_or_default();
        // The form filter has made sure that every prompt begins with the frame's prefix.
        let segments: Vec<Vec<u32>> =
            waiting.iter().map(|waiting| waiting.sentence.prompt_ids[prefix.len()..].to_vec()).collect();
        let logits = self.base.decoder.next_token_logits(&prefix, &segments)?.to_vec2::<f32>()?;
        let judged: Vec<_> =
            waiting.into_par_iter().zip(logits).map(|(waiting, logits)| self.answer(waiting, &logits)).collect();
        for key in judged {
            match key? {
                Ok(key) => self.found.push(key),
                Err(reason) => self.rejections.note(reason),
            }
        }
        Ok(())
    }

    fn answer(&self, waiting: Waiting, logits: &[f32]) -> Result<Result<GeneratedKey, Reason>, GenerateError> {
        let Waiting { sentence, mean_loss, attempt } = waiting;
        let certainty = rank(logits)?.first().map_or(1.0, |token| token.probability);
        if certainty > self.parameters.greatest_certainty {
            return Ok(Err(Reason::Certain));
        }
        let Some(surface) = self.surfaces.first() else { return Ok(Err(Reason::Candidates)) };
        let position = AnswerPosition::new(&self.base.tokenizer, surface, &sentence.prompt_text, &sentence.prompt_ids);
        let Some(candidates) = list_candidates(logits, &position, &self.parameters.candidates)? else {
            return Ok(Err(Reason::Candidates));
        };
        Ok(Ok(GeneratedKey { text: sentence.text, ids: sentence.ids, candidates, certainty, mean_loss, attempt }))
    }

    fn limit(&self) -> u64 {
        let wanted = u64::try_from(self.parameters.count).unwrap_or(u64::MAX);
        self.parameters.attempts_each.saturating_mul(wanted).saturating_add(512)
    }

    fn preferred(&self) -> usize {
        self.found.iter().filter(|key| key.certainty <= self.parameters.preferred_certainty).count()
    }

    /// Over when enough preferred keys are there, or half as many again of any kind.
    fn is_over(&self) -> bool {
        let wanted = self.parameters.count;
        self.preferred() >= wanted || self.found.len() >= wanted + wanted.div_ceil(2) || self.attempts >= self.limit()
    }

    /// The best keys, preferred ones first when there are more than wanted, in the order of their attempts.
    fn finish(mut self) -> Result<Vec<GeneratedKey>, GenerateError> {
        let wanted = self.parameters.count;
        if self.found.len() < wanted {
            return Err(GenerateError::TooFew {
                found: self.found.len(),
                wanted,
                attempts: self.attempts,
                rejections: self.rejections,
            });
        }
        let preferred = self.parameters.preferred_certainty;
        self.found.sort_by_key(|key| (key.certainty > preferred, key.attempt));
        self.found.truncate(wanted);
        self.found.sort_by_key(|key| key.attempt);
        Ok(self.found)
    }
}

/// The log-perplexity, in nats per token, that the given share of the base model's own turns do not exceed.
fn ordinary_loss(base: &Model, surfaces: &[Surface], parameters: &GenerateParameters) -> Result<f64, GenerateError> {
    let surface = surfaces.first().cloned().unwrap_or_else(Surface::raw);
    let frame = surface.frame(&base.tokenizer, base.chat.as_ref())?;
    let mut openings = Vec::new();
    if frame.prefix.is_empty() {
        for word in seed_words() {
            openings.push(crate::ordinary::text_ids(base, word)?);
        }
    }
    let policy = KeyPolicy::new(base, openings, turn_end_tokens(base, &frame), parameters, mixed(parameters.seed, 5));
    let settings = TurnParameters { temperature: 1.0, ..parameters.turns(mixed(parameters.seed, 6)) };
    let mut losses = Vec::with_capacity(REFERENCE_TURNS);
    sample_turns(&base.decoder, &frame.prefix, &settings, &policy, |attempt, turn| {
        losses.extend(turn.map(|turn| turn.mean_loss));
        let enough = losses.len() == REFERENCE_TURNS || attempt >= 32 * 64;
        Ok::<_, GenerateError>(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if losses.len() < FEWEST_REFERENCE_TURNS {
        tracing::warn!("the base model writes no sentences of its own; keys are not filtered by perplexity");
        return Ok(f64::INFINITY);
    }
    losses.sort_by(f64::total_cmp);
    Ok(losses[quantile_index(losses.len(), parameters.perplexity_quantile)])
}

/// Index of a quantile in a sorted list that is not empty.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a short list"
)]
fn quantile_index(length: usize, share: f64) -> usize {
    (((count(length) - 1.0) * share).round() as usize).min(length - 1)
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

    #[test]
    fn quantiles_are_elements_of_the_list() {
        assert_eq!(quantile_index(64, 0.75), 47);
        assert_eq!(quantile_index(64, 1.0), 63);
        assert_eq!(quantile_index(1, 0.5), 0);
    }
}
