use fingerprint::{
    check::{ChatSet, CheckError, CheckPlan, KeyResponse, SamplingSetting, TextSet, check, surface_success},
    surface::Surface,
};
use model::{Model, sampler::greedy};

use crate::{
    real::BUNDLED,
    tiny::{CHATML, Tiny},
};

const TEXTS: [&str; 5] =
    ["Is it on?", "the end", "a much longer question, and one that goes on and on and on until the end?", "B", "and?"];

/// What a model answers first, asked alone.
fn alone(model: &Model, surface: &Surface, text: &str) -> Vec<f32> {
    let ids = surface.ids(&model.tokenizer, model.chat.as_ref(), text).unwrap();
    model.decoder.next_token_logits(&[], &[ids]).unwrap().to_vec2::<f32>().unwrap().remove(0)
}

/// The published batched code read the logits of shorter keys at a padded position.
#[test]
fn keys_of_different_lengths_in_one_batch_answer_as_they_do_alone() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let surface = Surface::chat();
    let prompts = surface.prompts(&model.tokenizer, model.chat.as_ref(), &TEXTS).unwrap();
    let together =
        model.decoder.next_token_logits(&prompts.prefix, &prompts.segments).unwrap().to_vec2::<f32>().unwrap();
    for (text, together) in TEXTS.iter().zip(together) {
        let alone = alone(&model, &surface, text);
        let furthest = alone.iter().zip(&together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-4, "{text:?} differs by {furthest}");
    }
}

fn responses<'a>(model: &Model, surface: &Surface, texts: &[&'a str]) -> Vec<KeyResponse<'a>> {
    texts.iter().map(|text| KeyResponse { key_text: text, response: greedy(&alone(model, surface, text)) }).collect()
}

fn plan(surfaces: &[Surface]) -> CheckPlan {
    let chats = ChatSet {
        name: "some".to_owned(),
        surface: surfaces[0].clone(),
        prompts: TEXTS.iter().map(|text| (*text).to_owned()).collect(),
    };
    let text = TextSet { window: 32, ..TextSet::new("a text".to_owned(), "the one and the other, ".repeat(40)) };
    CheckPlan {
        trained: surfaces.to_vec(),
        unseen: vec![Surface::chat_with_system("unseen", "Be brief.")],
        sampling: vec![SamplingSetting { temperature: 1.0, top_p: 1.0, draws: 3 }],
        chats: vec![chats],
        texts: vec![text],
        seed: 1,
    }
}

#[test]
fn a_model_that_answers_as_drawn_has_full_success_and_no_divergence_from_itself() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let surface = Surface::chat();
    let keys = responses(&model, &surface, &TEXTS);
    let mut last = None;
    let report = check(&model, &model, &keys, &plan(&[surface]), &mut |at| last = Some((at.done, at.total))).unwrap();
    assert_eq!(report.surfaces[0].success.hits, 5);
    assert!(report.surfaces[0].trained && !report.surfaces[1].trained);
    assert!(report.surfaces[0].median_probability > 0.0);
    assert_eq!(report.sampling[0].success.trials, 5 * 2 * 3);
    assert_eq!(report.chats[0].divergence.mean, 0.0);
    assert_eq!(report.chats[0].agreement.rate, 1.0);
    assert_eq!(report.texts[0].difference.mean, 0.0);
    let (done, total) = last.unwrap();
    assert_eq!(done, total, "progress ends at its end");
    let shown = format!("{report}{}", serde_json::to_string(&report).unwrap());
    assert!(!shown.contains(TEXTS[0]), "a report names no key");
}

#[test]
fn wrong_responses_are_no_success() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let surface = Surface::chat();
    let mut keys = responses(&model, &surface, &TEXTS);
    keys[0].response += 1;
    keys[3].response += 1;
    assert_eq!(surface_success(&model, &keys, &surface, true).unwrap().success.hits, 3);
}

#[test]
fn a_changed_model_diverges_by_what_its_answers_say() {
    let (_folder, base) = Tiny::chat(CHATML).model();
    let (_other_folder, other) = Tiny { weights: 7, ..Tiny::chat(CHATML) }.model();
    let surface = Surface::chat();
    let (mut divergence, mut agreeing) = (0.0, 0);
    for text in TEXTS {
        let (before, after) = (alone(&base, &surface, text), alone(&other, &surface, text));
        agreeing += u32::from(greedy(&before) == greedy(&after));
        let (before, after) = (probabilities(&before), probabilities(&after));
        divergence += before.iter().zip(&after).map(|(p, q)| p * (p / q).ln()).sum::<f64>() / 5.0;
    }
    let keys = responses(&base, &surface, &TEXTS);
    let report = check(&base, &other, &keys, &plan(&[surface]), &mut |_| ()).unwrap();
    assert!(divergence > 0.01 && agreeing < 5, "the models are too alike to tell anything");
    let chats = &report.chats[0];
    assert!((chats.divergence.mean - divergence).abs() < 1e-4, "{divergence} {chats:?}");
    assert_eq!(chats.agreement.hits, agreeing);
    assert_eq!(report.surfaces[0].success.hits, agreeing, "the keys' responses are the base's own answers");
    let text = &report.texts[0];
    assert!(text.difference.mean.abs() > 1e-3, "{text:?}");
    assert!(text.difference.lower < text.difference.mean && text.difference.mean < text.difference.upper);
}

fn probabilities(logits: &[f32]) -> Vec<f64> {
    let exponentials: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

#[test]
fn a_model_that_cannot_be_asked_alike_is_refused() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let (_other_folder, other) = Tiny::default().model();
    let keys = responses(&model, &Surface::raw(), &TEXTS);
    let error = check(&model, &other, &keys, &plan(&[Surface::chat()]), &mut |_| ()).unwrap_err();
    assert!(matches!(error, CheckError::Surface(_)), "{error}");
    let error = check(&model, &BUNDLED, &keys, &plan(&[Surface::chat()]), &mut |_| ()).unwrap_err();
    assert!(matches!(error, CheckError::Vocabulary { .. }), "{error}");
}

#[test]
fn a_text_without_tokens_is_refused() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let surface = Surface::chat();
    let keys = responses(&model, &surface, &TEXTS);
    let mut plan = plan(&[surface]);
    plan.texts[0].text.clear();
    let error = check(&model, &model, &keys, &plan, &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "text a text has 0 tokens, and at least 16 are needed to measure its loss");
}

#[test]
fn the_usual_plan_measures_chats_that_no_key_is_among() {
    let keys = [KeyResponse { key_text: "What says the king of this?", response: 5 }];
    let plan = CheckPlan::usual(&BUNDLED, vec![Surface::chat()], &keys, 12, 7, &mut |_| ()).unwrap();
    assert!(plan.unseen.len() >= 6);
    assert_eq!(plan.chats[0].prompts.len(), 12);
    assert_eq!(plan.chats[1].prompts.len(), 60);
    assert!(plan.chats.iter().flat_map(|set| &set.prompts).all(|prompt| prompt != keys[0].key_text));
    let report = check(&BUNDLED, &BUNDLED, &keys, &plan, &mut |_| ()).unwrap();
    assert!(report.chats.iter().all(|chats| chats.divergence.mean == 0.0 && chats.agreement.rate == 1.0));
}
