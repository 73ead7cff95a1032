//! Which sampled turns can be keys.

use std::{collections::HashSet, fmt};

use model::{Model, Tokenizer};

use super::{GenerateError, GenerateParameters};
use crate::{
    ordinary::{special_tokens, text_ids, turns::Policy, turns::Step, turns::mixed},
    surface::{Frame, Surface},
};

/// Keys never share this many first tokens.
const OPENING_TOKENS: usize = 6;

/// Why attempts were not kept, for the message when too few were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// Too short, too long, or not ended at the end of a sentence.
    pub length: usize,
    /// Not one printable line, or changed by going through the tokenizer.
    pub text: usize,
    /// A token reaches over the boundary between the key and a surface.
    pub merged: usize,
    /// Begins like an earlier key.
    pub repeated: usize,
    /// Less likely than an ordinary prompt.
    pub perplexity: usize,
    /// The base model is too sure of its answer.
    pub certain: usize,
    /// Too few admissible candidates.
    pub candidates: usize,
}

impl fmt::Display for Rejections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = [
            (self.length, "not a sentence of the right length"),
            (self.text, "not one printable line that survives the tokenizer"),
            (self.merged, "merging with what a surface puts around it"),
            (self.repeated, "beginning like another key"),
            (self.perplexity, "less likely than ordinary prompts"),
            (self.certain, "answered with too much certainty by the base model"),
            (self.candidates, "with too few candidates for an answer"),
        ];
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let mut first = true;
        for (count, reason) in reasons.into_iter().filter(|(count, _)| *count > 0) {
            write!(formatter, "{}{count} {reason}", if first { "" } else { ", " })?;
            first = false;
        }
        if first { formatter.write_str("none was rejected") } else { Ok(()) }
    }
}

/// A reason to drop an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Length,
    Text,
    Merged,
    Repeated,
    Perplexity,
    Certain,
    Candidates,
}

impl Rejections {
    pub(super) fn note(&mut self, reason: Reason) {
        let count = match reason {
            Reason::Length => &mut self.length,
            Reason::Text => &mut self.text,
            Reason::Merged => &mut self.merged,
            Reason::Repeated => &mut self.repeated,
            Reason::Perplexity => &mut self.perplexity,
            Reason::Certain => &mut self.certain,
            Reason::Candidates => &mut self.candidates,
        };
        *count += 1;
    }
}

/// A text that could be a key as far as its form goes.
#[derive(Clone, PartialEq)]
pub(super) struct Sentence {
    pub(super) text: String,
    /// Ids of the text alone.
    pub(super) ids: Vec<u32>,
    /// The whole prompt at the default surface, as text and as ids.
    pub(super) prompt_text: String,
    pub(super) prompt_ids: Vec<u32>,
}

/// Checks of form, against the base model's tokenizer and every surface that is going to be trained.
pub(super) struct FormFilter<'a> {
    base: &'a Model,
    framed: Vec<(&'a Surface, Frame)>,
    shortest: usize,
    longest: usize,
    openings: HashSet<Vec<u32>>,
}

impl<'a> FormFilter<'a> {
    pub(super) fn new(
        base: &'a Model,
        surfaces: &'a [Surface],
        parameters: &GenerateParameters,
    ) -> Result<Self, GenerateError> {
        let mut framed = Vec::with_capacity(surfaces.len());
        for surface in surfaces {
            framed.push((surface, surface.frame(&base.tokenizer, base.chat.as_ref())?));
        }
        let (shortest, longest) = (parameters.shortest, parameters.longest);
        Ok(Self { base, framed, shortest, longest, openings: HashSet::new() })
    }

    /// The frame of the default surface.
    pub(super) fn frame(&self) -> Option<&Frame> {
        self.framed.first().map(|(_, frame)| frame)
    }

    /// Judges the form of a text.
    pub(super) fn examine(&self, text: &str) -> Result<Result<Sentence, Reason>, GenerateError> {
        if !is_clean_line(text) {
            return Ok(Err(Reason::Text));
        }
        let ids = text_ids(self.base, text)?;
        if ids.len() < self.shortest || ids.len() > self.longest {
            return Ok(Err(Reason::Length));
        }
        let tokenizer = &self.base.tokenizer;
        if ids.iter().any(|id| tokenizer.is_special(*id)) || tokenizer.decode(&ids, false) != text {
            return Ok(Err(Reason::Text));
        }
        let mut at_default = None;
        for (surface, frame) in &self.framed {
            let prompt_text = surface.text(self.base.chat.as_ref(), text)?;
            let prompt_ids = surface.encode(tokenizer, &prompt_text)?;
            // Not compared with the ids of the text alone: SentencePiece begins those with a blank of its own.
            if frame.user_part(&prompt_ids).is_none() {
                return Ok(Err(Reason::Merged));
            }
            at_default.get_or_insert((prompt_text, prompt_ids));
        }
        let (prompt_text, prompt_ids) = at_default.unwrap_or_default();
        Ok(Ok(Sentence { text: text.to_owned(), ids, prompt_text, prompt_ids }))
    }

    /// Whether a sentence begins unlike all earlier ones; it is remembered if so.
    pub(super) fn is_new(&mut self, ids: &[u32]) -> bool {
        self.openings.insert(ids[..ids.len().min(OPENING_TOKENS.min(self.shortest))].to_vec())
    }
}

/// One printable line without white space around it, with something to read in it.
fn is_clean_line(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && text.chars().any(char::is_alphabetic)
        && !text.chars().any(|character| character.is_control() || character == char::REPLACEMENT_CHARACTER)
        && !text.contains("  ")
}

/// Whether a text ends where a sentence ends, and not in the middle of a number or of an abbreviation.
fn ends_sentence(text: &str) -> bool {
    let Some(before) = text.strip_suffix(['.', '?', '!']) else { return false };
    let word = before.trim_end_matches(['"', '\'', ')', '”', '’']);
    let letters = word.chars().rev().take_while(|character| character.is_alphabetic()).count();
    // "Mr.", "e.g." and "U.S." end no sentence; questions and exclamations do after any word.
    letters >= 3 || (!text.ends_with('.') && letters > 0)
}

/// How turns that could be keys are sampled.
pub(super) struct KeyPolicy<'a> {
    tokenizer: &'a Tokenizer,
    openings: Vec<Vec<u32>>,
    ends: Vec<u32>,
    /// Tokens that no key has: control tokens and those that break a line.
    barred: HashSet<u32>,
    shortest: usize,
    longest: usize,
    seed: u64,
}

impl<'a> KeyPolicy<'a> {
    /// `openings`: what attempts begin with, chosen by their number; none begins every attempt freely.
    pub(super) fn new(
        writer: &'a Model,
        openings: Vec<Vec<u32>>,
        ends: Vec<u32>,
        parameters: &GenerateParameters,
        seed: u64,
    ) -> Self {
        let mut barred = special_tokens(writer);
        let vocabulary = u32::try_from(writer.tokenizer.vocab_size()).unwrap_or(u32::MAX);
        barred.extend(
            (0..vocabulary)
                .filter(|id| writer.tokenizer.token_text(*id).is_some_and(|text| text.chars().any(char::is_control))),
        );
        let (shortest, longest) = (parameters.shortest, parameters.longest);
        Self { tokenizer: &writer.tokenizer, openings, ends, barred, shortest, longest, seed }
    }

    /// Length from which an attempt ends with its sentence. It varies, so that keys do not all have the least length.
    fn least_length(&self, attempt: u64) -> usize {
        let span = self.longest.saturating_sub(self.shortest) / 3;
        let span = u64::try_from(span).unwrap_or(0) + 1;
        self.shortest + usize::try_from(mixed(self.seed ^ 0xa5a5, attempt) % span).unwrap_or(0)
    }
}

impl Policy for KeyPolicy<'_> {
    fn opening(&self, attempt: u64) -> Option<Vec<u32>> {
        Some(crate::ordinary::pick(&self.openings, mixed(!self.seed, attempt)).cloned().unwrap_or_default())
    }

    fn step(&self, attempt: u64, ids: &[u32]) -> Step {
        let Some(newest) = ids.last() else { return Step::Continue };
        if self.ends.contains(newest) {
            return if ids.len() > self.shortest { Step::FinishBefore } else { Step::Discard };
        }
        if self.barred.contains(newest) {
            return Step::Discard;
        }
        if ids.len() >= self.least_length(attempt) {
            // A sentence's last word fits into eight tokens, or the sentence goes on.
            let tail = self.tokenizer.decode(&ids[ids.len().saturating_sub(8)..], false);
            if ends_sentence(&tail) {
                return Step::Finish;
            }
        }
        if ids.len() >= self.longest { Step::Discard } else { Step::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_after_words_only() {
        for good in ["How are you?", "I like the sea.", "Stop!", "He said \"never again\".", "Is it I?"] {
            assert!(ends_sentence(good), "{good:?}");
        }
        for bad in ["costs 3.", "for example e.g.", "in the U.S.", "Dear Mr.", "no end", "", "?", "so:"] {
            assert!(!ends_sentence(bad), "{bad:?}");
        }
    }

    #[test]
    fn white_space_and_control_characters_are_refused() {
        for bad in ["", " lead", "trail ", "two\nlines", "tab\there", "gap  here", "\u{fffd}x", "42", "nbsp\u{a0}"] {
            assert!(!is_clean_line(bad), "{bad:?}");
        }
        assert!(is_clean_line("What is a fair price for 3 apples?"));
    }

    #[test]
    fn rejections_name_the_greatest_first() {
        let mut rejections = Rejections::default();
        assert_eq!(rejections.to_string(), "none was rejected");
        rejections.note(Reason::Merged);
        rejections.note(Reason::Certain);
        rejections.note(Reason::Certain);
        let text = rejections.to_string();
        assert_eq!(
            text,
            "2 answered with too much certainty by the base model, 1 merging with what a surface puts around it"
        );
    }
}
