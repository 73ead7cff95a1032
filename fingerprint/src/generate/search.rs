//! The search for keys among what the model writes.

use std::ops::ControlFlow;

use model::Model;
use rayon::prelude::*;

use super::{
    GenerateError, GenerateParameters, GeneratedKey, Rejections,
    filter::{FormFilter, KeyPolicy, Reason, Sentence},
    seed_words,
};
use crate::{
    candidates::{AnswerPosition, list_candidates, rank},
    ordinary::{
        turn_end_tokens,
        turns::{Turn, TurnParameters, count, mixed, sample_turns},
    },
    surface::Surface,
};

/// Sentences whose answers are looked at in one forward pass.
const ANSWER_BATCH: usize = 32;

/// Ordinary turns by which the perplexity of keys is judged, and the fewest that will do.
const REFERENCE_TURNS: usize = 64;
const FEWEST_REFERENCE_TURNS: usize = 16;

impl GenerateParameters {
    pub(super) fn turns(&self, seed: u64) -> TurnParameters {
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
pub(super) struct Search<'a> {
    base: &'a Model,
    surfaces: &'a [Surface],
    parameters: &'a GenerateParameters,
    /// Turns come from another model, so their losses say nothing about the base model.
    foreign: bool,
    filter: FormFilter<'a>,
    greatest_loss: f64,
    waiting: Vec<Waiting>,
    pub(super) found: Vec<GeneratedKey>,
    rejections: Rejections,
    pub(super) attempts: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(
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
    pub(super) fn consider(&mut self, attempt: Option<(String, Turn)>) -> Result<(), GenerateError> {
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
    pub(super) fn is_over(&self) -> bool {
        let wanted = self.parameters.count;
        self.preferred() >= wanted || self.found.len() >= wanted + wanted.div_ceil(2) || self.attempts >= self.limit()
    }

    /// The best keys, preferred ones first when there are more than wanted, in the order of their attempts.
    pub(super) fn finish(mut self) -> Result<Vec<GeneratedKey>, GenerateError> {
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
    fn quantiles_are_elements_of_the_list() {
        assert_eq!(quantile_index(64, 0.75), 47);
        assert_eq!(quantile_index(64, 1.0), 63);
        assert_eq!(quantile_index(1, 0.5), 0);
    }
}
