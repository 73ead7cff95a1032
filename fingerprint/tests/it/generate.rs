use std::collections::BTreeSet;

use fingerprint::{
    candidates::CandidateParameters,
    generate::{GenerateError, GenerateParameters, GeneratedKey, generate},
    surface::{DEFAULT_SYSTEM_PROMPTS, Surface, trained_surfaces},
};
use model::{Model, SpecialTokens};
use protocol::{
    matching::MatchingRule,
    units::{BasisPoints, CandidateCount},
};

use crate::real::{BUNDLED, smollm2, stories, usual_lists};

fn surfaces(model: &Model) -> Vec<Surface> {
    trained_surfaces(&model.tokenizer, model.chat.as_ref(), DEFAULT_SYSTEM_PROMPTS).unwrap()
}

fn keys(model: &Model, parameters: &GenerateParameters) -> Vec<GeneratedKey> {
    generate(model, None, &surfaces(model), parameters, &mut |_| ()).unwrap()
}

/// What every key owes the design.
fn assert_sound(model: &Model, keys: &[GeneratedKey], parameters: &GenerateParameters) {
    let tokenizer = &model.tokenizer;
    let mut openings = BTreeSet::new();
    for key in keys {
        let text = key.text();
        assert!((parameters.shortest..=parameters.longest).contains(&key.ids().len()));
        assert_eq!(text.trim(), text);
        assert!(!text.chars().any(char::is_control));
        assert_eq!(tokenizer.encode(text, SpecialTokens::Omit).unwrap(), key.ids());
        assert_eq!(tokenizer.decode(key.ids(), false), text);
        assert!(key.ids().iter().all(|id| !tokenizer.is_special(*id)));
        assert!(key.certainty() <= parameters.greatest_certainty);
        assert!(openings.insert(key.ids()[..6].to_vec()), "two keys begin alike");
        assert_eq!(key.candidates().len(), parameters.candidates.candidates.as_usize());
        assert!(MatchingRule::FirstAnswerPrefix.is_prefix_free(key.candidates()));
        for surface in surfaces(model) {
            let prompt = surface.prompt(tokenizer, model.chat.as_ref(), text).unwrap();
            let frame = surface.frame(tokenizer, model.chat.as_ref()).unwrap();
            assert!(frame.user_part(&prompt.ids()).is_some(), "a token reaches over the boundary");
        }
        let surface = Surface::default_of(model.chat.as_ref());
        let prompt = surface.text(model.chat.as_ref(), text).unwrap();
        let ids = surface.encode(tokenizer, &prompt).unwrap();
        for candidate in key.candidates() {
            let together = surface.encode(tokenizer, &format!("{prompt}{}", candidate.text)).unwrap();
            assert_eq!(together, [ids.as_slice(), &[candidate.id]].concat(), "a response merges with its key");
        }
    }
}

/// Keys and candidate ids, for comparing runs.
fn outcome(keys: &[GeneratedKey]) -> Vec<(String, Vec<u32>)> {
    keys.iter()
        .map(|key| (key.text().to_owned(), key.candidates().iter().map(|candidate| candidate.id).collect()))
        .collect()
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Keys and lists depend on the seed: not on threads, and not on how many streams share a forward pass.
fn assert_reproducible(model: &Model, parameters: GenerateParameters) {
    let first = outcome(&with_threads(1, || keys(model, &parameters)));
    let more_threads = outcome(&with_threads(3, || keys(model, &parameters)));
    assert!(first == more_threads, "keys or lists depend on the number of threads");
    let fewer_streams = outcome(&keys(model, &GenerateParameters { streams: 7, ..parameters }));
    assert!(first == fewer_streams, "keys or lists depend on the number of streams");
    let other = outcome(&keys(model, &GenerateParameters { seed: parameters.seed + 1, ..parameters }));
    assert!(first != other, "another seed gives the same keys");
}

#[test]
fn bundled_keys_are_sound() {
    let parameters = GenerateParameters::new(8, 1, usual_lists());
    assert_sound(&BUNDLED, &keys(&BUNDLED, &parameters), &parameters);
}

#[test]
fn bundled_keys_and_lists_depend_on_the_seed_alone() {
    assert_reproducible(&BUNDLED, GenerateParameters::new(4, 1, usual_lists()));
}

#[test]
fn a_model_that_cannot_give_enough_keys_says_what_to_do() {
    // Hardly a token lies outside of the whole mass.
    let candidates = CandidateCount::new(1024).unwrap();
    let lists = CandidateParameters { nucleus: BasisPoints::WHOLE, candidates, ..usual_lists() };
    let parameters = GenerateParameters { attempts_each: 1, ..GenerateParameters::new(2, 1, lists) };
    let error = generate(&BUNDLED, None, &surfaces(&BUNDLED), &parameters, &mut |_| ()).unwrap_err();
    let GenerateError::TooFew { found: 0, wanted: 2, .. } = error else { panic!("{error}") };
    let said = error.to_string();
    assert!(said.contains("too few candidates") && said.contains("ask for fewer fingerprints"), "{said}");
}

#[test]
fn contradictory_parameters_are_refused() {
    let usual = GenerateParameters::new(4, 1, usual_lists());
    for wrong in [
        GenerateParameters { count: 0, ..usual },
        GenerateParameters { shortest: 33, ..usual },
        GenerateParameters { temperature: 0.0, ..usual },
        GenerateParameters { perplexity_quantile: 1.5, ..usual },
    ] {
        let error = generate(&BUNDLED, None, &surfaces(&BUNDLED), &wrong, &mut |_| ()).unwrap_err();
        assert!(matches!(error, GenerateError::Parameters { .. }), "{error}");
    }
}

#[test]
fn another_model_may_write_the_keys() {
    let parameters = GenerateParameters::new(4, 1, usual_lists());
    let keys = generate(&BUNDLED, Some(&BUNDLED), &surfaces(&BUNDLED), &parameters, &mut |_| ()).unwrap();
    assert_sound(&BUNDLED, &keys, &parameters);
}

#[test]
#[ignore = "needs shared data"]
fn keys_of_a_base_model_are_sound_and_reproducible() {
    let model = stories();
    let parameters = GenerateParameters::new(32, 1, usual_lists());
    assert_sound(&model, &keys(&model, &parameters), &parameters);
    assert_reproducible(&model, GenerateParameters::new(8, 1, usual_lists()));
    // Written by another model, losses come from the base model in one pass instead of from sampling.
    let written = generate(&model, Some(&model), &surfaces(&model), &parameters, &mut |_| ()).unwrap();
    for (own, foreign) in keys(&model, &parameters).iter().zip(&written) {
        assert_eq!(own.text(), foreign.text());
        assert!((own.mean_loss() - foreign.mean_loss()).abs() < 1e-3);
    }
}

#[test]
#[ignore = "needs SmolLM2-135M-Instruct"]
fn keys_of_smollm2_are_sound() {
    let model = smollm2();
    let parameters = GenerateParameters::new(64, 1, usual_lists());
    assert_sound(&model, &keys(&model, &parameters), &parameters);
}
