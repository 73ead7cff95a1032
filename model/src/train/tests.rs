//! Gradients against differences of the loss, for every parameter of every family.

use std::path::Path;

use super::*;
use crate::Checkpoint;

const FAMILIES: [&str; 5] = ["llama2-gqa", "llama3-rope-scaling", "mistral", "qwen2", "qwen3"];

fn decoder(family: &str) -> Decoder {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity"));
    Decoder::load(&Checkpoint::open(&fixtures.join(family)).unwrap()).unwrap()
}

/// Two groups, one with a shared prefix, and a loss at some rows only.
fn batch() -> (Pack, Vec<usize>) {
    let mut pack = Pack::new();
    let shared = pack.push(&[5, 17, 200], [[3, 40, 9].as_slice(), &[8], &[77, 31]]);
    let alone = pack.push(&[], [[12, 13, 14, 15, 16, 18].as_slice()]);
    let mut rows: Vec<usize> = shared.iter().map(|rows| rows.end - 1).collect();
    rows.extend([alone[0].start + 1, alone[0].end - 1]);
    (pack, rows)
}

/// Cross-entropy of a token that depends on the row.
fn cross_entropy(row: usize, logits: &mut [f32]) -> f64 {
    let target = (row * 31 + 7) % logits.len();
    log_softmax(logits);
    let loss = f64::from(-logits[target]);
    logits.iter_mut().for_each(|l| *l = l.exp());
    logits[target] -= 1.0;
    loss
}

fn loss(trainer: &Trainer<'_>, pack: &Pack, rows: &[usize], alpha: f32) -> f64 {
    let (weights, hidden) = (trainer.effective(alpha).unwrap(), trainer.boundary(pack).unwrap());
    let mut total = 0.0;
    trainer.read_logits(&weights, &hidden, pack, rows, |row, logits| total += cross_entropy(row, logits)).unwrap();
    total
}

/// Moves every parameter along its own gradient, one after the other, and compares the change of the loss with what the
/// gradient promises.
fn check(decoder: &Decoder, scope: Scope, alpha: f32) {
    let (pack, rows) = batch();
    let mut trainer = Trainer::new(decoder, scope.clone(), AdamW::default()).unwrap();
    // Off the starting point, so that alpha and the thin matrices matter.
    let hidden = trainer.boundary(&pack).unwrap();
    for _ in 0..2 {
        let weights = trainer.effective(1.0).unwrap();
        trainer.accumulate(&weights, &hidden, &pack, &rows, &cross_entropy).unwrap();
        trainer.step(2e-3).unwrap();
    }
    let weights = trainer.effective(alpha).unwrap();
    let found = trainer.accumulate(&weights, &hidden, &pack, &rows, &cross_entropy).unwrap();
    assert!((found - loss(&trainer, &pack, &rows, alpha)).abs() < 1e-4);
    drop(weights);
    for trained in trainer.trained_mut() {
        trained.collect_gradient().unwrap();
    }
    let count = trainer.trained().flat_map(Trained::parameters).count();
    assert!(count > 0);
    for index in 0..count {
        let gradient = trainer.trained().flat_map(Trained::parameters).nth(index).unwrap().gradient.clone();
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 1e-7, "parameter {index} of {scope:?} has no gradient");
        let original = trainer.trained().flat_map(Trained::parameters).nth(index).unwrap().value.clone();
        let direction = Tensor::from_vec(gradient, original.shape(), &Device::Cpu).unwrap();
        // A step that changes the loss by about 0.02, far above rounding and far below curvature.
        let size = (0.02 / norm).min(0.05) / norm;
        let mut at = |sign: f64| {
            let moved = (&original + (&direction * (sign * size)).unwrap()).unwrap();
            trainer.trained_mut().flat_map(Trained::parameters_mut).nth(index).unwrap().value = moved;
            loss(&trainer, &pack, &rows, alpha)
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * size);
        trainer.trained_mut().flat_map(Trained::parameters_mut).nth(index).unwrap().value = original;
        assert!((slope / (norm * norm) - 1.0).abs() < 0.03, "parameter {index}, {alpha}: {slope} for {}", norm * norm);
    }
}

#[test]
fn gradients_are_slopes_for_every_family_and_parameter() {
    for family in FAMILIES {
        check(&decoder(family), Scope { first_block: 0, embeddings: true, low_rank: None }, 1.0);
    }
}

#[test]
fn gradients_are_slopes_under_noise_and_for_top_blocks() {
    for family in ["llama2-gqa", "qwen3"] {
        check(&decoder(family), Scope { first_block: 1, embeddings: false, low_rank: None }, 0.4);
    }
}

#[test]
fn gradients_are_slopes_for_low_rank_updates() {
    let low_rank = Some(LowRank { rank: 4, scale: 2.0, seed: 3 });
    check(&decoder("llama2-gqa"), Scope { first_block: 0, embeddings: false, low_rank }, 0.7);
}

/// Some training, at so many threads.
fn trained(decoder: &Decoder, steps: usize, threads: usize) -> BTreeMap<String, Tensor> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (pack, rows) = batch();
        let scope = Scope { first_block: 0, embeddings: true, low_rank: None };
        let mut trainer = Trainer::new(decoder, scope, AdamW::default()).unwrap();
        run(&mut trainer, &pack, &rows, steps);
        trainer.tensors(0.0).unwrap()
    })
}

fn run(trainer: &mut Trainer<'_>, pack: &Pack, rows: &[usize], steps: usize) {
    for _ in 0..steps {
        let (weights, hidden) = (trainer.effective(0.6).unwrap(), trainer.boundary(pack).unwrap());
        trainer.accumulate(&weights, &hidden, pack, rows, &cross_entropy).unwrap();
        drop(weights);
        trainer.step(1e-3).unwrap();
    }
}

fn assert_equal(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) {
    assert!(a.keys().eq(b.keys()));
    for (name, tensor) in a {
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(tensor), flat(&b[name]), "{name}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let decoder = decoder("llama2-gqa");
    let one = trained(&decoder, 3, 1);
    assert_equal(&trained(&decoder, 3, 2), &one);
    assert_equal(&trained(&decoder, 3, 5), &one);
}

#[test]
fn a_restored_run_goes_on_as_if_never_stopped() {
    let decoder = decoder("qwen3");
    let (pack, rows) = batch();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let low_rank = Some(LowRank { rank: 2, scale: 1.0, seed: 9 });
    for scope in [
        Scope { first_block: 1, embeddings: false, low_rank: None },
        Scope { first_block: 0, embeddings: false, low_rank },
    ] {
        let fresh = || Trainer::new(&decoder, scope.clone(), AdamW::default()).unwrap();
        let mut whole = fresh();
        run(&mut whole, &pack, &rows, 5);
        let mut first = fresh();
        run(&mut first, &pack, &rows, 2);
        first.save(&file).unwrap();
        let mut second = fresh();
        second.restore(&file).unwrap();
        assert_eq!(second.steps(), 2);
        run(&mut second, &pack, &rows, 3);
        assert_equal(&second.tensors(0.1).unwrap(), &whole.tensors(0.1).unwrap());
    }
    assert!(
        Trainer::new(&decoder, Scope { first_block: 0, embeddings: true, low_rank: None }, AdamW::default())
            .unwrap()
            .restore(&file)
            .is_err()
    );
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    let decoder = decoder("llama2-gqa");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let scope = Scope { first_block: 1, embeddings: false, low_rank: None };
    let mut trainer = Trainer::new(&decoder, scope, AdamW::default()).unwrap();
    trainer.save(&file).unwrap();
    let sound = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    trainer.restore(&file).unwrap();

    let one = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    let two_steps = Tensor::new(&[1_u32, 2], &Device::Cpu).unwrap();
    for (name, tensor) in
        [("0.value", &one), ("0.mean", &one), ("1.square", &one), ("steps", &two_steps), ("99.mean", &one)]
    {
        let mut tensors = sound.clone();
        tensors.insert(name.to_owned(), tensor.clone());
        candle_core::safetensors::save(&tensors, &file).unwrap();
        let error = trainer.restore(&file).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(name), "{name}: {source}");
    }
}

#[test]
fn shipped_weights_are_rounded_as_each_is_stored() {
    let decoder = decoder("llama2-gqa");
    let (pack, rows) = batch();
    let scope = Scope { first_block: 1, embeddings: false, low_rank: None };
    let mut trainer = Trainer::new(&decoder, scope, AdamW::default()).unwrap();
    run(&mut trainer, &pack, &rows, 2);
    // Values share a matrix with keys in memory and not in the file.
    let stored = |name: &str| if name.ends_with("v_proj.weight") { DType::F32 } else { DType::BF16 };
    let shipped = trainer.shipped(0.0, |name| Ok(stored(name))).unwrap();
    let blocks = shipped.blocks.iter().enumerate();
    let shipped: BTreeMap<_, _> = blocks.flat_map(|(offset, block)| block.named(1 + offset).unwrap()).collect();
    let masters = trainer.tensors(0.0).unwrap();
    let rounded = masters.iter().map(|(name, tensor)| {
        let tensor = tensor.to_dtype(stored(name)).unwrap().to_dtype(DType::F32).unwrap();
        (name.clone(), tensor)
    });
    assert_equal(&shipped, &rounded.collect());
}

#[test]
fn averaging_starts_from_the_masters_and_ends_at_the_base() {
    let decoder = decoder("llama2-gqa");
    let (pack, rows) = batch();
    let mut trainer =
        Trainer::new(&decoder, Scope { first_block: 1, embeddings: false, low_rank: None }, AdamW::default()).unwrap();
    run(&mut trainer, &pack, &rows, 4);
    let (masters, half, base) =
        (trainer.tensors(0.0).unwrap(), trainer.tensors(0.5).unwrap(), trainer.tensors(1.0).unwrap());
    let name = "model.layers.1.mlp.down_proj.weight";
    let flat = |map: &BTreeMap<String, Tensor>| map[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for ((m, h), b) in flat(&masters).iter().zip(flat(&half)).zip(flat(&base)) {
        assert!((h - (m + b) / 2.0).abs() < 1e-6);
    }
    let stored = decoder.blocks[1].down.plain().unwrap();
    assert_eq!(flat(&base), stored.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    // Reading an average leaves the masters as they were.
    assert_equal(&trainer.tensors(0.0).unwrap(), &masters);
}

#[test]
fn a_merged_low_rank_update_equals_base_plus_update() {
    let decoder = decoder("llama2-gqa");
    let (pack, rows) = batch();
    let low_rank = Some(LowRank { rank: 3, scale: 0.5, seed: 1 });
    let mut trainer =
        Trainer::new(&decoder, Scope { first_block: 0, embeddings: false, low_rank }, AdamW::default()).unwrap();
    run(&mut trainer, &pack, &rows, 3);
    let merged = trainer.tensors(0.0).unwrap();
    let Trained::LowRank { up, down, scale, .. } = &trainer.blocks[0].down else { panic!("down is trained") };
    let update = (up.value.matmul(&down.value).unwrap() * f64::from(*scale)).unwrap();
    let expected = (decoder.blocks[0].down.plain().unwrap() + update).unwrap();
    let difference = (&merged["model.layers.0.mlp.down_proj.weight"] - expected).unwrap().abs().unwrap();
    assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6);
}
