//! Five families against transformers, and the promises of the forward pass.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::{Checkpoint, Decoder, Stream, sampler::greedy};
use serde_json::Value;

/// Absolute difference of logits that is still agreement, in f32.
pub(crate) const TOLERANCE: f32 = 2e-3;

/// Folders of the form (config.json, model.safetensors, expected.json): `HALLMARK_PARITY_DIR`, or the five fixtures.
pub(crate) fn families() -> Vec<PathBuf> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity");
    let directory = std::env::var_os("HALLMARK_PARITY_DIR").map_or_else(|| fixtures.into(), PathBuf::from);
    let mut families: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    families.retain(|path| path.join("expected.json").exists());
    families.sort();
    assert!(!families.is_empty(), "no checkpoint with an expected.json under {}", directory.display());
    families
}

pub(crate) fn load(folder: &Path) -> (Decoder, Value) {
    let decoder = Decoder::load(&Checkpoint::open(folder).unwrap()).unwrap();
    (decoder, serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap())
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Logits after each of `tokens`, fed in pieces of the given sizes (the last one repeats).
fn logits_in_pieces(decoder: &Decoder, tokens: &[u32], pieces: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = decoder.new_cache(tokens.len()).unwrap();
    let mut rest = tokens;
    let mut sizes = pieces.iter().chain(std::iter::repeat(pieces.last().unwrap()));
    let mut logits = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        let out = decoder.forward(&mut [Stream { tokens: now, cache: &mut cache }]).unwrap();
        logits.push(out.to_vec2::<f32>().unwrap().remove(0));
        rest = later;
    }
    logits
}

#[test]
fn logits_and_losses_equal_transformers() {
    for folder in families() {
        let (decoder, expected) = load(&folder);
        let input = ids(&expected["input_ids"]);
        let logits = logits_in_pieces(&decoder, &input, &[1]);
        for (position, row) in ids(&expected["positions"]).iter().zip(expected["logits"].as_array().unwrap()) {
            let row: Vec<f32> = serde_json::from_value(row.clone()).unwrap();
            for (id, (found, wanted)) in logits[*position as usize].iter().zip(&row).enumerate() {
                assert!(
                    (found - wanted).abs() < TOLERANCE,
                    "{folder:?} position {position} token {id}: {found} for {wanted}"
                );
            }
        }
        let losses = decoder.token_losses(&input).unwrap();
        let mean = losses.iter().sum::<f32>() / losses.len() as f32;
        let wanted = expected["mean_next_token_loss"].as_f64().unwrap() as f32;
        assert!((mean - wanted).abs() < TOLERANCE, "{folder:?}: mean loss {mean} for {wanted}");
    }
}

#[test]
fn greedy_continuations_equal_transformers() {
    for folder in families() {
        let (decoder, expected) = load(&folder);
        let (mut tokens, wanted) = (ids(&expected["input_ids"]), ids(&expected["greedy_16"]));
        let mut cache = decoder.new_cache(tokens.len() + wanted.len()).unwrap();
        let mut found = Vec::new();
        for _ in &wanted {
            let logits = decoder.forward(&mut [Stream { tokens: &tokens, cache: &mut cache }]).unwrap();
            let next = greedy(&logits.to_vec2::<f32>().unwrap()[0]);
            found.push(next);
            tokens = vec![next];
        }
        assert_eq!(found, wanted, "{folder:?}");
    }
}

#[test]
fn pieces_and_batch_mates_and_threads_do_not_change_a_bit() {
    for folder in families() {
        let (decoder, expected) = load(&folder);
        let input = &ids(&expected["input_ids"])[..70];
        let alone = logits_in_pieces(&decoder, input, &[input.len()]).remove(0);
        for pieces in [&[1][..], &[7, 3], &[40, 29, 1]] {
            assert_eq!(
                logits_in_pieces(&decoder, input, pieces).pop().unwrap(),
                alone,
                "{folder:?} in pieces of {pieces:?}"
            );
        }
        let mates: Vec<&[u32]> = vec![&input[..1], input, &input[10..60], &input[3..30]];
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool.install(|| {
                let mut caches: Vec<_> = mates.iter().map(|_| decoder.new_cache(80).unwrap()).collect();
                let mut streams: Vec<_> =
                    mates.iter().zip(&mut caches).map(|(tokens, cache)| Stream { tokens, cache }).collect();
                decoder.forward(&mut streams).unwrap().to_vec2::<f32>().unwrap()
            });
            assert_eq!(together[1], alone, "{folder:?} with {threads} threads");
        }
    }
}

#[test]
fn a_shared_prefix_gives_what_each_whole_sequence_gives() {
    for folder in families() {
        let (decoder, expected) = load(&folder);
        let input = ids(&expected["input_ids"]);
        // Different lengths in one batch: nothing is padded, so nothing is read at the wrong position.
        let segments = [input[20..29].to_vec(), input[40..41].to_vec(), input[50..75].to_vec()];
        let packed = decoder.next_token_logits(&input[..20], &segments).unwrap().to_vec2::<f32>().unwrap();
        for (segment, packed) in segments.iter().zip(&packed) {
            let whole = [&input[..20], segment].concat();
            let cached = logits_in_pieces(&decoder, &whole, &[whole.len()]).remove(0);
            assert_eq!(*packed, cached, "{folder:?}");
        }
    }
}

#[test]
fn a_copied_prefix_goes_on_as_if_it_had_been_computed() {
    for folder in families() {
        let (decoder, expected) = load(&folder);
        let input = &ids(&expected["input_ids"])[..70];
        let alone = logits_in_pieces(&decoder, input, &[input.len()]).remove(0);
        let mut donor = decoder.new_cache(60).unwrap();
        decoder.forward(&mut [Stream { tokens: &input[..45], cache: &mut donor }]).unwrap();
        // What another stream left in the cache, and what the donor holds behind the prefix, must not show.
        let mut cache = decoder.new_cache(80).unwrap();
        decoder.forward(&mut [Stream { tokens: &input[50..], cache: &mut cache }]).unwrap();
        for prefix in [45, 1, 0, 17] {
            cache.copy_prefix(&donor, prefix).unwrap();
            let logits = decoder.forward(&mut [Stream { tokens: &input[prefix..], cache: &mut cache }]).unwrap();
            assert_eq!(logits.to_vec2::<f32>().unwrap()[0], alone, "{folder:?} behind {prefix} tokens");
        }
        assert!(cache.copy_prefix(&donor, 46).is_err());
        assert!(decoder.new_cache(10).unwrap().copy_prefix(&donor, 11).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (decoder, _) = load(&families().remove(0));
    let vocabulary = decoder.config().vocab_size as u32;
    assert!(decoder.new_cache(100_000).unwrap_err().to_string().contains("does not fit"));
    let error = decoder.next_token_logits(&[], &[vec![vocabulary]]).unwrap_err().to_string();
    assert!(error.contains(&format!("token {vocabulary} is outside")), "{error}");
    let mut cache = decoder.new_cache(2).unwrap();
    assert!(decoder.forward(&mut [Stream { tokens: &[1, 1, 1], cache: &mut cache }]).is_err());
    assert!(decoder.forward(&mut [Stream { tokens: &[], cache: &mut cache }]).is_err());
    assert!(cache.is_empty());
}
