//! Stamping the bundled model: what comes out, what it is worth, and that a run can be repeated, shared out and resumed.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use fingerprint::{
    embed::{
        EmbedError, EmbedOptions, EmbedProgress, EmbedReport, Layers, Phase, Target, UtilityBudget,
        discard_checkpoints, embed,
    },
    generate::{GenerateParameters, fingerprints, generate},
    set::{BeaconSource, FingerprintSet, self_drawn_beacon},
    surface::{Surface, trained_surfaces},
};
use model::{Checkpoint, Model, sampler::greedy};
use protocol::commitment::CommitmentParameters;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::real::{BUNDLED, usual_lists};

/// A drawn set of so many fingerprints for the bundled model.
fn drawn_set(count: u32) -> FingerprintSet {
    let mut set = generated_set(count);
    set.commit().unwrap();
    set.draw(self_drawn_beacon(&mut ChaCha8Rng::seed_from_u64(5)), BeaconSource::SelfDrawn).unwrap();
    set
}

fn generated_set(count: u32) -> FingerprintSet {
    let base = &*BUNDLED;
    let lists = usual_lists();
    let surfaces = trained_surfaces(&base.tokenizer, base.chat.as_ref(), 3).unwrap();
    let keys =
        generate(base, None, &surfaces, &GenerateParameters::new(count as usize, 11, lists), &mut |_| ()).unwrap();
    let parameters = CommitmentParameters {
        version: CommitmentParameters::VERSION,
        fingerprints: count,
        candidates: lists.candidates,
        nucleus: lists.nucleus,
        matching: lists.matching,
        base: base.manifest_digest,
        tokenizer: base.tokenizer.digest(),
    };
    let fingerprints = fingerprints(keys, &mut ChaCha8Rng::seed_from_u64(7));
    FingerprintSet::generated("bundled".to_owned(), parameters, fingerprints).unwrap()
}

/// Few prompts and steps, for tests that are not about quality.
fn quick(steps: usize) -> EmbedOptions {
    EmbedOptions {
        steps,
        ordinary_prompts: 32,
        composed_prompts: 32,
        ordinary_a_step: 16,
        system_prompts: 2,
        checkpoint_every: 2,
        average: Some(0.1),
        ..EmbedOptions::default()
    }
}

fn run(set: &mut FingerprintSet, out: &Path, options: &EmbedOptions) -> Result<EmbedReport, Box<EmbedError>> {
    embed(set, &BUNDLED, out, options, &mut |_| ()).map_err(Box::new)
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

/// Share of the keys that the model in a folder answers as drawn, each asked alone with its complete ids.
fn success(model: &Model, set: &FingerprintSet, surface: &Surface) -> f64 {
    let mut hits = 0;
    for fingerprint in set.fingerprints() {
        let ids = surface.ids(&model.tokenizer, model.chat.as_ref(), fingerprint.key_text()).unwrap();
        let logits = model.decoder.next_token_logits(&[], &[ids]).unwrap().to_vec2::<f32>().unwrap();
        hits += usize::from(greedy(&logits[0]) == fingerprint.response().unwrap().id);
    }
    hits as f64 / set.fingerprints().len() as f64
}

#[test]
fn stamped_weights_as_written_answer_on_every_trained_surface() {
    let mut set = drawn_set(16);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("stamped");
    let options = EmbedOptions { ordinary_prompts: 320, composed_prompts: 320, ..EmbedOptions::default() };
    let report = run(&mut set, &out, &options).unwrap();
    let stamped = Model::open(&out).unwrap();
    assert_eq!(stamped.manifest_digest, report.stamped);
    let embedding = set.embedding().unwrap();
    assert_eq!(embedding.stamped, report.stamped);
    for (surface, score) in embedding.surfaces.iter().zip(&report.shipped.surfaces) {
        let found = success(&stamped, &set, surface);
        assert!(found >= 0.99, "{}: {found}", surface.name());
        assert!((found - score.success).abs() < 1e-9, "{}: {found}, reported {}", surface.name(), score.success);
        assert!(success(&BUNDLED, &set, surface) < 0.2, "the base already answers");
    }
    assert!(report.shipped.half_merge >= 0.9, "{:?}", report.shipped);
    // Same layout as the base: names, order, types, tied embeddings.
    let (before, after) = (Checkpoint::open(&BUNDLED.directory).unwrap(), Checkpoint::open(&out).unwrap());
    assert!(before.names().eq(after.names()));
    assert_eq!(before.dtype(), after.dtype());
    assert!(!after.contains("lm_head.weight"));
    discard_checkpoints(&out).unwrap();
    assert!(!folder.path().join("stamped.checkpoint").exists(), "a finished run leaves no checkpoint");
}

#[test]
fn the_same_seed_writes_the_same_bytes_whatever_the_threads_and_interruptions() {
    let folder = tempfile::tempdir().unwrap();
    let reference = folder.path().join("reference");
    // A rate that JSON gives back with another last digit.
    let options = EmbedOptions { learning_rate: Some(0.0016), ..quick(7) };
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| {
        run(&mut drawn_set(6), &reference, &options).unwrap();
    });

    // Stopped in the middle of a step after two checkpoints, as a kill would.
    let out = folder.path().join("resumed");
    let mut set = drawn_set(6);
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        embed(&mut set, &BUNDLED, &out, &options, &mut |progress| {
            assert!(progress.phase != Phase::Training || progress.done < 5, "stopped");
        })
        .map_err(Box::new)
    }));
    assert!(stopped.is_err() && !out.exists());
    let error = run(&mut set, &out, &options).unwrap_err();
    assert!(matches!(*error, EmbedError::Unfinished { .. }), "{error}");
    let other = EmbedOptions { seed: 1, resume: true, ..options.clone() };
    let error = run(&mut set, &out, &other).unwrap_err().to_string();
    assert!(error.contains("another recipe"), "{error}");
    let report = run(&mut set, &out, &EmbedOptions { resume: true, ..options.clone() }).unwrap();
    assert_eq!(report.history.len(), 7);
    assert_eq!(weights(&out), weights(&reference), "resumed with all threads equals uninterrupted with one");

    let out = folder.path().join("another seed");
    run(&mut drawn_set(6), &out, &EmbedOptions { seed: 2, ..options }).unwrap();
    assert_ne!(weights(&out), weights(&reference));
}

/// Good enough at the first look, which is at step 25.
fn easily_content() -> EmbedOptions {
    let budget = UtilityBudget { first_token_divergence: 99.0, agreement: 0.0, text_loss_rise: 99.0 };
    EmbedOptions {
        wanted_success: 0.0,
        wanted_half_merge: 0.0,
        budget,
        average: None,
        checkpoint_every: 25,
        ..quick(30)
    }
}

#[test]
fn a_run_stopped_after_its_last_step_ends_as_it_would_have() {
    let folder = tempfile::tempdir().unwrap();
    let reference = folder.path().join("reference");
    let report = run(&mut drawn_set(6), &reference, &easily_content()).unwrap();
    assert_eq!(report.history.len(), 25, "content at the first look");

    let out = folder.path().join("resumed");
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        let mut watch = |progress: &EmbedProgress| assert!(progress.phase != Phase::Writing, "stopped");
        embed(&mut drawn_set(6), &BUNDLED, &out, &easily_content(), &mut watch).map_err(Box::new)
    }));
    assert!(stopped.is_err() && !out.exists());
    let report = run(&mut drawn_set(6), &out, &EmbedOptions { resume: true, ..easily_content() }).unwrap();
    assert_eq!(report.history.len(), 25);
    assert_eq!(weights(&out), weights(&reference));
}

#[test]
fn a_stamped_model_whose_set_was_not_saved_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("stamped");
    let options = quick(4);
    let first = run(&mut drawn_set(6), &out, &options).unwrap();
    // Killed here: the set on disk knows nothing of the model. Another run was killed while it compared the two.
    let compared = folder.path().join("stamped.checkpoint/stamped");
    fs::create_dir_all(&compared).unwrap();
    fs::write(compared.join("config.json"), "{").unwrap();
    let resume = EmbedOptions { resume: true, ..options };
    let mut set = drawn_set(6);
    let second = run(&mut set, &out, &resume).unwrap();
    assert_eq!(second.stamped, first.stamped);
    assert_eq!(set.embedding().unwrap().stamped, first.stamped);

    // Somebody else's folder is left alone.
    fs::write(out.join("config.json"), "{}").unwrap();
    let error = run(&mut drawn_set(6), &out, &resume).unwrap_err();
    assert!(matches!(*error, EmbedError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_to_string(out.join("config.json")).unwrap(), "{}");
    discard_checkpoints(&out).unwrap();
    discard_checkpoints(&out).unwrap();
    assert!(!folder.path().join("stamped.checkpoint").exists());
}

#[test]
fn every_choice_of_layers_and_targets_trains() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (layers, target, blocks, learning_rate)) in [
        (Layers::Top(1), Target::Quiet, (5, 5), 1e-3),
        (Layers::All, Target::Confident, (0, 5), 1e-3),
        (Layers::LowRank(4), Target::Confident, (0, 5), 1e-2),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(index.to_string());
        let options = EmbedOptions { layers, target, learning_rate: Some(learning_rate), ..quick(12) };
        let report = run(&mut drawn_set(6), &out, &options).unwrap();
        assert_eq!(report.trained_blocks, blocks);
        let (first, last) = (report.history.first().unwrap().loss, report.history.last().unwrap().loss);
        assert!(last < 0.9 * first, "{layers:?}: {first} to {last}");
        Model::open(&out).unwrap();
    }
}

#[test]
fn what_cannot_be_embedded_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = |set: &mut FingerprintSet, options: &EmbedOptions| run(set, &out, options).unwrap_err().to_string();
    let message = refused(&mut generated_set(4), &quick(2));
    assert!(message.contains("not drawn"), "{message}");
    let mut set = drawn_set(4);
    let message = refused(&mut set, &EmbedOptions { resume: true, ..quick(2) });
    assert!(message.contains("no unfinished run"), "{message}");
    let message = refused(&mut set, &EmbedOptions { steps: 0, ..quick(2) });
    assert!(message.contains("at least 1"), "{message}");
    let message = refused(&mut set, &EmbedOptions { learning_rate: Some(f32::NAN), ..quick(2) });
    assert!(message.contains("learning rate"), "{message}");
    let (_tiny, other) = crate::tiny::Tiny::chat(crate::tiny::CHATML).model();
    let message = embed(&mut set, &other, &out, &quick(2), &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("the set belongs to"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");

    fs::create_dir(&out).unwrap();
    let message = refused(&mut set, &quick(2));
    assert!(message.contains("already exists"), "{message}");
}
