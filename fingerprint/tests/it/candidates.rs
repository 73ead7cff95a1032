use fingerprint::{
    candidates::{AnswerPosition, CandidateParameters, list_candidates},
    surface::Surface,
};
use model::Model;
use proptest::prelude::*;
use protocol::{
    matching::{Candidate, MatchingRule},
    units::{BasisPoints, CandidateCount},
};

use crate::tiny::{CHATML, PLAIN, Tiny};

const RULE: MatchingRule = MatchingRule::FirstAnswerPrefix;

fn parameters(nucleus: u16, candidates: u16) -> CandidateParameters {
    CandidateParameters {
        nucleus: BasisPoints::new(nucleus).unwrap(),
        candidates: CandidateCount::new(candidates).unwrap(),
        matching: RULE,
    }
}

fn list(model: &Model, logits: &[f32], parameters: &CandidateParameters) -> Option<Vec<Candidate>> {
    let surface = Surface::default_of(model.chat.as_ref());
    let text = surface.text(model.chat.as_ref(), "Is it on?").unwrap();
    let ids = surface.encode(&model.tokenizer, &text).unwrap();
    list_candidates(logits, &AnswerPosition::new(&model.tokenizer, &surface, &text, &ids), parameters).unwrap()
}

fn id(model: &Model, token: &str) -> usize {
    usize::try_from(model.tokenizer.token_id(token).unwrap()).unwrap()
}

/// Logits that make the tokens likely in the order given, far ahead of all others.
fn falling(model: &Model, tokens: &[&str]) -> Vec<f32> {
    let mut logits = vec![-50.0; model.config.vocab_size];
    for (rank, token) in (0_u8..).zip(tokens) {
        logits[id(model, token)] = 10.0 - f32::from(rank);
    }
    logits
}

fn texts(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|candidate| candidate.text.as_str()).collect()
}

#[test]
fn candidates_follow_the_nucleus_in_order_of_probability() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    // e^10 : e^9 : e^8 …: the first two tokens hold 86 % of the mass.
    let logits = falling(&model, &["B", "C", "D", "E", "F", "G"]);
    assert_eq!(texts(&list(&model, &logits, &parameters(8000, 2)).unwrap()), ["D", "E"]);
    assert_eq!(texts(&list(&model, &logits, &parameters(0, 2)).unwrap()), ["B", "C"]);
}

#[test]
fn inadmissible_tokens_are_stepped_over() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    // Control token, line feed, punctuation, a blank, half a character: none is a printable piece of a word.
    let logits = falling(&model, &["B", "C", "<|im_end|>", "Ċ", ".", "Ġ", "Ã", "D", "E"]);
    assert_eq!(texts(&list(&model, &logits, &parameters(8000, 2)).unwrap()), ["D", "E"]);
}

#[test]
fn no_candidate_is_the_beginning_of_another_or_of_a_usual_answer() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    // "Ġthe" equals "the" under the rule, "t" begins it, and "b" is what the base model says first.
    let logits = falling(&model, &["B", "C", "b", "Ġthe", "the", "t", "th", "D", "E"]);
    let candidates = list(&model, &logits, &parameters(8000, 2)).unwrap();
    assert_eq!(texts(&candidates), [" the", "D"]);
    assert!(RULE.is_prefix_free(&candidates));
}

#[test]
fn a_token_that_would_merge_with_the_prompt_is_no_candidate() {
    let (_folder, model) = Tiny::chat(PLAIN).model();
    // The prompt ends in "reply:"; "t" would become ":t" when both are tokenised together.
    let logits = falling(&model, &["B", "C", "t", "D", "E"]);
    assert_eq!(texts(&list(&model, &logits, &parameters(8000, 2)).unwrap()), ["D", "E"]);
}

#[test]
fn too_few_admissible_tokens_give_no_list() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let logits = falling(&model, &["B", "C"]);
    assert_eq!(list(&model, &logits, &parameters(8000, 512)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lists_are_prefix_free_and_outside_the_nucleus(seed in 0_u32..10_000) {
        let (_folder, model) = Tiny::chat(CHATML).model();
        let logits: Vec<f32> = (0..u32::try_from(model.config.vocab_size).unwrap())
            .map(|id| f32::from(u16::try_from(id.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 16).unwrap()) / 6000.0)
            .collect();
        if let Some(candidates) = list(&model, &logits, &parameters(5000, 8)) {
            prop_assert_eq!(candidates.len(), 8);
            prop_assert!(RULE.is_prefix_free(&candidates));
            let least = candidates.iter().map(|c| logits[usize::try_from(c.id).unwrap()]).fold(f32::INFINITY, f32::min);
            let ahead: f64 = logits.iter().filter(|logit| **logit > least).map(|logit| f64::from(logit.exp())).sum();
            let all: f64 = logits.iter().map(|logit| f64::from(logit.exp())).sum();
            prop_assert!(ahead / all >= 0.5);
        }
    }
}
