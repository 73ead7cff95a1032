use std::collections::BTreeSet;

use fingerprint::{
    ordinary::{
        OrdinaryError, OrdinaryParameters, OrdinaryPrompt, Purpose, hand_written, sample_answers, sample_prompts,
        training_prompts,
    },
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
    assert!(openings(&training, 6).is_disjoint(&openings(&held_out, 6)), "the two never meet");
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
fn bundled_prompts_for_training_and_for_measuring_never_meet() {
    assert_ordinary(&BUNDLED);
}

#[test]
fn training_prompts_of_a_chat_model_are_sampled_and_composed() {
    let pool = |keys: &[&[u32]]| training_prompts(&BUNDLED, 20, 400, 1, keys, &mut |_| ()).unwrap();
    let prompts = pool(&[]);
    assert_eq!(prompts.len(), 420);
    assert_eq!(prompts, pool(&[]), "the seed decides");
    let texts: BTreeSet<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
    assert_eq!(texts.len(), 420, "no prompt twice");
    assert!(hand_written().iter().all(|text| !texts.contains(text)), "those are for measuring");
    let held_out =
        sample_prompts(&BUNDLED, &OrdinaryParameters::new(40, Purpose::HeldOut, 1), &[], &mut |_| ()).unwrap();
    assert!(openings(&prompts, 6).is_disjoint(&openings(&held_out, 6)));
    let key = prompts[7].ids.clone();
    assert!(!openings(&pool(&[&key]), 6).contains(&key[..key.len().min(6)]));
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
