use std::collections::BTreeSet;

use fingerprint::{
    ordinary::{OrdinaryError, OrdinaryParameters, OrdinaryPrompt, Purpose, sample_answers, sample_prompts},
    surface::Surface,
};
use model::Model;

use crate::real::{BUNDLED, stories};

fn prompts(model: &Model, parameters: &OrdinaryParameters, keys: &[&[u32]]) -> Vec<OrdinaryPrompt> {
    sample_prompts(model, parameters, keys, &mut |_| ()).unwrap()
}

fn openings(prompts: &[OrdinaryPrompt], tokens: usize) -> BTreeSet<Vec<u32>> {
    prompts.iter().map(|prompt| prompt.ids[..prompt.ids.len().min(tokens)].to_vec()).collect()
}

fn assert_ordinary(model: &Model) {
    let training = prompts(model, &OrdinaryParameters::new(60, Purpose::Training, 1), &[]);
    let held_out = prompts(model, &OrdinaryParameters::new(20, Purpose::HeldOut, 1), &[]);
    assert_eq!((training.len(), held_out.len()), (60, 20));
    assert_eq!(openings(&training, 6).len(), 60, "no two begin alike");
    assert!(openings(&training, 3).is_disjoint(&openings(&held_out, 3)), "the halves never meet");
    // A key's beginning is left out.
    let key = training[0].ids.clone();
    let again = prompts(model, &OrdinaryParameters::new(60, Purpose::Training, 1), &[&key]);
    assert!(!openings(&again, 6).contains(&key[..key.len().min(6)]));
    // Any number of streams gives the same prompts.
    let narrow = OrdinaryParameters { streams: 5, ..OrdinaryParameters::new(20, Purpose::HeldOut, 1) };
    assert_eq!(prompts(model, &narrow, &[]), held_out);
}

fn assert_answers(model: &Model) {
    let surface = Surface::default_of(model.chat.as_ref());
    let texts = ["Who are you?", "Speak of the sea and of the night, my lord."];
    let answer = |texts: &[&str]| sample_answers(model, &surface, texts, 12, 3, &mut |_| ()).unwrap();
    let answers = answer(&texts);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| (1..=12).contains(&answer.len())));
    let ends = &model.config.eos_token_ids;
    assert!(answers.iter().all(|answer| answer.len() == 12 || answer.last().is_some_and(|id| ends.contains(id))));
    assert_eq!(answer(&texts[..1]), answers[..1], "an answer does not depend on the other prompts");
}

#[test]
fn bundled_prompts_fall_into_halves_that_never_meet() {
    assert_ordinary(&BUNDLED);
}

#[test]
fn bundled_answers_end_by_themselves_or_at_the_limit() {
    assert_answers(&BUNDLED);
}

#[test]
fn prompts_too_long_for_the_model_are_refused() {
    let parameters = OrdinaryParameters { longest: 1_000_000, ..OrdinaryParameters::new(4, Purpose::Training, 1) };
    let error = sample_prompts(&BUNDLED, &parameters, &[], &mut |_| ()).unwrap_err();
    assert!(matches!(error, OrdinaryError::TooLong { .. }), "{error}");
}

#[test]
#[ignore = "needs shared data"]
fn base_model_prompts_and_answers_are_ordinary() {
    assert_ordinary(&stories());
    assert_answers(&stories());
}
