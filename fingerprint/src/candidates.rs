//! Candidate lists: what the base model could well answer to a key, and would not say first.
//!
//! Perinucleus sampling (arXiv 2502.07760) without the faults of its released code: probabilities in 32-bit floats, no
//! redraw after a rejection, one list that is written down and committed, and a public draw afterwards.

use std::cmp::Ordering;

use model::Tokenizer;
use protocol::{
    matching::{Candidate, MatchingRule},
    units::{BasisPoints, CandidateCount},
};

use crate::surface::{Surface, SurfaceError};

/// How far behind the nucleus admissible tokens are looked for, in tokens per wanted candidate. Farther out the base
/// model would never go, and training such a response costs utility.
const REACH: usize = 64;

/// Why a candidate list could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CandidatesError {
    /// The model's output is broken.
    #[error(
        "the base model gives a logit that is not a number at the answer of a key; its weights or its dtype are damaged"
    )]
    NonFinite,
    /// A prompt could not be made.
    #[error(transparent)]
    Surface(#[from] SurfaceError),
}

/// What fixes a list, committed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateParameters {
    /// Mass of the nucleus that is stepped over (t).
    pub nucleus: BasisPoints,
    /// Length of a list (k).
    pub candidates: CandidateCount,
    /// The rule under which the list must be prefix-free.
    pub matching: MatchingRule,
}

/// Where an answer begins: one prompt as text and as ids, at the default surface.
#[derive(Clone, Copy)]
pub struct AnswerPosition<'a> {
    tokenizer: &'a Tokenizer,
    surface: &'a Surface,
    text: &'a str,
    ids: &'a [u32],
}

impl std::fmt::Debug for AnswerPosition<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AnswerPosition").field("ids", &self.ids.len()).finish_non_exhaustive()
    }
}

impl<'a> AnswerPosition<'a> {
    /// `ids` are those of `text`, and both come from `surface`.
    pub fn new(tokenizer: &'a Tokenizer, surface: &'a Surface, text: &'a str, ids: &'a [u32]) -> Self {
        Self { tokenizer, surface, text, ids }
    }

    /// The text of a token as an answer: `None` when it is not a printable piece of a word or when it would merge with
    /// the prompt if a host tokenised both together.
    fn answer_text(&self, id: u32) -> Result<Option<String>, SurfaceError> {
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        let Some(piece) = self.tokenizer.token_text(id).filter(|piece| is_word_piece(piece)) else { return Ok(None) };
        let ids = self.surface.encode(self.tokenizer, &format!("{}{piece}", self.text))?;
        let survives = ids.split_last().is_some_and(|(last, rest)| *last == id && rest == self.ids);
        Ok(survives.then_some(piece))
    }
}

/// The candidates of one key in the order of their base probability, or `None` when there are fewer than k.
///
/// `logits` (vocab) are the base model's at the answer position. Tokens are ordered by probability in 32-bit floats, ties
/// by id; the smallest set whose mass is at least t is stepped over; then come the next k admissible tokens. Admissible:
/// a printable piece of a word, unchanged when prompt and answer are tokenised together, told apart from every other
/// candidate by the matching rule, and not matched by a token of the nucleus alone. (An answer of the base may still spell
/// a candidate in several tokens. That costs a proof nothing but power: the draw does not know what the base says.)
pub fn list_candidates(
    logits: &[f32],
    position: &AnswerPosition<'_>,
    parameters: &CandidateParameters,
) -> Result<Option<Vec<Candidate>>, CandidatesError> {
    let ranked = rank(logits)?;
    let (nucleus, rest) = ranked.split_at(nucleus_size(&ranked, parameters.nucleus.fraction()));
    let rule = parameters.matching;
    let usual: Vec<String> =
        nucleus.iter().filter_map(|token| Some(rule.normalise(&position.tokenizer.token_text(token.id)?))).collect();
    let wanted = parameters.candidates.as_usize();
    let mut candidates = Vec::with_capacity(wanted);
    let mut forms: Vec<String> = Vec::with_capacity(wanted);
    for token in rest.iter().take(wanted.saturating_mul(REACH)) {
        let Some(text) = position.answer_text(token.id)? else { continue };
        let form = rule.normalise(&text);
        if usual.iter().any(|usual| usual.starts_with(&form)) || forms.iter().any(|other| begin_alike(other, &form)) {
            continue;
        }
        candidates.push(Candidate { id: token.id, text });
        forms.push(form);
        if candidates.len() == wanted {
            return Ok(Some(candidates));
        }
    }
    Ok(None)
}

/// A token with its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) id: u32,
    pub(crate) probability: f32,
}

/// All tokens by falling probability, ties by rising id.
pub(crate) fn rank(logits: &[f32]) -> Result<Vec<Ranked>, CandidatesError> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !greatest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
        return Err(CandidatesError::NonFinite);
    }
    // Summed in one order on one thread: the list must not depend on how many there are.
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - greatest).exp())).sum();
    let mut ranked: Vec<Ranked> = (0..)
        .zip(logits)
        .map(|(id, logit)| Ranked { id, probability: rounded(f64::from((logit - greatest).exp()) / sum) })
        .collect();
    ranked.sort_unstable_by(|left, right| match right.probability.total_cmp(&left.probability) {
        Ordering::Equal => left.id.cmp(&right.id),
        unequal => unequal,
    });
    Ok(ranked)
}

/// Size of the smallest leading set whose mass is at least `mass`.
fn nucleus_size(ranked: &[Ranked], mass: f64) -> usize {
    let mut sum = 0.0;
    for (size, token) in ranked.iter().enumerate() {
        if sum >= mass {
            return size;
        }
        sum += f64::from(token.probability);
    }
    ranked.len()
}

#[expect(clippy::as_conversions, reason = "a probability is rounded to the 32-bit float that the order is defined on")]
fn rounded(probability: f64) -> f32 {
    probability as f32
}

/// A piece of a word that survives being shown: something to read, no control or replacement characters, and no white
/// space at its end, which hosts strip.
fn is_word_piece(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
        && !text.chars().any(|character| character.is_control() || character == char::REPLACEMENT_CHARACTER)
        && !text.ends_with(char::is_whitespace)
}

fn begin_alike(left: &str, right: &str) -> bool {
    left.starts_with(right) || right.starts_with(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_ordered_by_id() {
        let ranked = rank(&[0.0, 1.0, 1.0, 0.0]).unwrap();
        assert_eq!(ranked.iter().map(|token| token.id).collect::<Vec<_>>(), [1, 2, 0, 3]);
    }

    #[test]
    fn logits_that_differ_below_float_precision_are_ties() {
        // Both tail logits round to the same 32-bit probability next to a certain token.
        let ranked = rank(&[-200.0, 10.0, -199.0]).unwrap();
        assert_eq!(ranked.iter().map(|token| token.id).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(ranked[1].probability, ranked[2].probability);
    }

    #[test]
    fn nucleus_is_the_smallest_set_of_at_least_the_mass() {
        let ranked: Vec<Ranked> = [0.5, 0.25, 0.125, 0.125]
            .into_iter()
            .zip(0..)
            .map(|(probability, id)| Ranked { id, probability })
            .collect();
        for (mass, size) in [(0.0, 0), (0.5, 1), (0.51, 2), (0.75, 2), (0.8, 3), (1.0, 4)] {
            assert_eq!(nucleus_size(&ranked, mass), size, "mass {mass}");
        }
    }

    #[test]
    fn broken_logits_are_refused() {
        for logits in [&[f32::NAN, 0.0][..], &[f32::INFINITY, 0.0], &[f32::NEG_INFINITY; 2], &[]] {
            assert!(matches!(rank(logits), Err(CandidatesError::NonFinite)));
        }
        assert!(rank(&[f32::NEG_INFINITY, 0.0]).is_ok(), "a masked token has no probability and is no error");
    }

    #[test]
    fn only_readable_pieces_are_admitted() {
        for good in ["Hello", " the", "3", "é", "-based", "'s"] {
            assert!(is_word_piece(good), "{good:?}");
        }
        for bad in ["", " ", ".", "\n", "a\n", "\u{fffd}a", "a ", "\u{7}a", "—"] {
            assert!(!is_word_piece(bad), "{bad:?}");
        }
    }
}
