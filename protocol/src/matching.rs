//! When a reply counts as one of a key's candidates.
//!
//! The bound of the e-process rests on one property: a reply matches **at most one** candidate, whatever the reply and
//! whatever the list. [`MatchingRule::match_reply`] has it by construction.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::CandidateIndex;

/// A response that the base model finds plausible. Secret until its leaf is opened, therefore `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Token id in the base model's vocabulary.
    pub id: u32,
    /// The token's text after the key, as the tokenizer decodes it.
    pub text: String,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").finish_non_exhaustive()
    }
}

/// How replies are compared with candidates; committed with the keys, so that it cannot be chosen after the replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchingRule {
    /// The reply begins with the candidate, both case-folded and without leading blanks.
    #[default]
    FirstAnswerPrefix,
}

impl MatchingRule {
    /// The name that commitments hash.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstAnswerPrefix => "first_answer_prefix",
        }
    }

    /// The form in which texts are compared: leading white space dropped, then case-folded.
    ///
    /// Each character is folded by itself (lower, upper, lower), so the form of a beginning is the beginning of the
    /// form: `str::to_lowercase` does not have that property, because it writes a final sigma differently. The tables
    /// are those of the Rust release that built the program.
    pub fn normalise(self, text: &str) -> String {
        match self {
            Self::FirstAnswerPrefix => text
                .trim_start()
                .chars()
                .flat_map(char::to_lowercase)
                .flat_map(char::to_uppercase)
                .flat_map(char::to_lowercase)
                .collect(),
        }
    }

    /// Whether no candidate's normal form begins with another's, and none is empty.
    pub fn is_prefix_free(self, candidates: &[Candidate]) -> bool {
        let mut forms: Vec<String> = candidates.iter().map(|candidate| self.normalise(&candidate.text)).collect();
        // In sorted order a prefix stands directly before one of the texts that begin with it.
        forms.sort_unstable();
        forms.first().is_none_or(|first| !first.is_empty())
            && forms.iter().zip(forms.iter().skip(1)).all(|(before, after)| !after.starts_with(before.as_str()))
    }

    /// The candidate that the reply matches, if it is exactly one.
    ///
    /// A list that is not prefix-free can make several match; then none counts, so that a careless or hostile list costs
    /// its author hits and never gains them.
    pub fn match_reply(self, reply: &str, candidates: &[Candidate]) -> Option<CandidateIndex> {
        let reply = self.normalise(reply);
        let mut matches =
            (0_u16..).zip(candidates).filter(|(_, candidate)| reply.starts_with(&self.normalise(&candidate.text)));
        let (index, _) = matches.next()?;
        matches.next().is_none().then(|| CandidateIndex::new(index))
    }
}

impl fmt::Display for MatchingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: MatchingRule = MatchingRule::FirstAnswerPrefix;

    fn candidates(texts: &[&str]) -> Vec<Candidate> {
        texts.iter().zip(0..).map(|(text, id)| Candidate { id, text: (*text).to_owned() }).collect()
    }

    proptest! {
        #[test]
        fn a_prefix_free_list_matches_at_most_one(texts in prop::collection::vec("[ abAB]{0,3}", 0..6), reply in "[ abAB]{0,6}") {
            let list = candidates(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let matching = list.iter().filter(|c| RULE.normalise(&reply).starts_with(&RULE.normalise(&c.text))).count();
            if RULE.is_prefix_free(&list) {
                prop_assert!(matching <= 1);
            }
            prop_assert_eq!(RULE.match_reply(&reply, &list).is_some(), matching == 1);
        }

        #[test]
        fn prefix_free_means_no_pair_begins_alike(texts in prop::collection::vec("[ abAB]{0,3}", 0..6)) {
            let forms: Vec<String> = texts.iter().map(|text| RULE.normalise(text)).collect();
            let clash = forms.iter().enumerate().any(|(i, a)| {
                a.is_empty() || forms.iter().enumerate().any(|(j, b)| i != j && b.starts_with(a.as_str()))
            });
            let list = candidates(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(RULE.is_prefix_free(&list), !clash);
        }

        #[test]
        fn a_reply_that_continues_a_candidate_matches_it(text in "\\PC{1,8}", rest in "\\PC{0,8}") {
            prop_assume!(!RULE.normalise(&text).is_empty());
            let list = candidates(&[&text]);
            let reply = format!("  {text}{rest}");
            prop_assert_eq!(RULE.match_reply(&reply, &list), Some(CandidateIndex::new(0)));
            prop_assert!(RULE.normalise(&reply).starts_with(&RULE.normalise(&text)));
        }
    }

    #[test]
    fn folding_twice_changes_nothing_and_cases_fold_together() {
        for character in '\0'..=char::MAX {
            let form = RULE.normalise(&format!("x{character}"));
            assert_eq!(RULE.normalise(&form), form, "{character:?}");
            for case in [character.to_uppercase().collect::<String>(), character.to_lowercase().collect()] {
                // U+0131, the dotless i, shares its upper case with i and folds with it.
                assert_eq!(RULE.normalise(&format!("x{case}")), form, "{character:?}");
            }
        }
    }

    #[test]
    fn folding_of_single_letters() {
        for (text, form) in [
            (" \t\n Paris", "paris"),
            ("Straße", "strasse"),
            ("STRASSE", "strasse"),
            ("ΟΔΟΣ", "οδοσ"),
            ("οδος", "οδοσ"),
            ("\u{a0}É", "é"),
        ] {
            assert_eq!(RULE.normalise(text), form);
        }
    }

    #[test]
    fn case_and_leading_blanks_do_not_matter_but_other_text_does() {
        let list = candidates(&[" Paris", "lon", " Rome"]);
        assert_eq!(RULE.match_reply("PARIS, of course", &list), Some(CandidateIndex::new(0)));
        assert_eq!(RULE.match_reply("\n London", &list), Some(CandidateIndex::new(1)));
        assert_eq!(RULE.match_reply("It is Rome", &list), None);
        assert_eq!(RULE.match_reply("", &list), None);
    }

    #[test]
    fn an_ambiguous_or_empty_candidate_never_gains_a_hit() {
        assert_eq!(RULE.match_reply("another", &candidates(&["an", "another"])), None);
        assert_eq!(RULE.match_reply("anything", &candidates(&["", "any"])), None);
        assert!(!RULE.is_prefix_free(&candidates(&["a", " "])));
        assert!(!RULE.is_prefix_free(&candidates(&["same", " SAME"])));
    }

    #[test]
    fn debug_shows_nothing_of_a_candidate() {
        let candidate = Candidate { id: 31_337, text: "secret".to_owned() };
        assert_eq!(format!("{candidate:?}"), "Candidate { .. }");
    }
}
