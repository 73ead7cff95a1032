//! The decoder for GPUs, on candle's CPU backend: the same operations in the same shapes, by other kernels. With feature
//! `cuda` and `--ignored` the same tests run on a GPU.

use std::path::Path;

use candle_core::Device;
use model::{
    Decoder, DeviceCache, DeviceDecoder, Model, Stream, WeightFiles,
    decoder::device::{ComputeDevice, Precision},
    sampler::greedy,
};
use serde_json::json;

use crate::{
    parity::{TOLERANCE, families, ids, load},
    support::{stored_tensors, tiny_config, write_single},
};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn on(device: &Device, folder: &Path, precision: Precision) -> DeviceDecoder {
    DeviceDecoder::load(&WeightFiles::open(folder).unwrap(), device, precision).unwrap()
}

fn step(decoder: &DeviceDecoder, tokens: &[u32], cache: &mut DeviceCache) -> Vec<f32> {
    decoder.forward(&mut [Stream { tokens, cache }]).unwrap().to_vec2().unwrap().remove(0)
}

/// Logits after each of `tokens`, fed in pieces of the given sizes (the last one repeats).
fn in_pieces(decoder: &DeviceDecoder, tokens: &[u32], pieces: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = decoder.new_cache(tokens.len()).unwrap();
    let mut rest = tokens;
    let mut sizes = pieces.iter().chain(std::iter::repeat(pieces.last().unwrap()));
    let mut logits = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        logits.push(step(decoder, now, &mut cache));
        rest = later;
    }
    logits
}

fn on_cpu(decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
    let mut cache = decoder.new_cache(tokens.len()).unwrap();
    let logits = decoder.forward(&mut [Stream { tokens, cache: &mut cache }]).unwrap();
    logits.to_vec2().unwrap().remove(0)
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A model with a window, and long enough for several tiles of attention.
fn windowed(window: usize) -> (tempfile::TempDir, Vec<u32>) {
    let mut config = tiny_config(false);
    for (key, value) in [
        ("architectures", json!(["MistralForCausalLM"])),
        ("model_type", json!("mistral")),
        ("sliding_window", json!(window)),
        ("max_position_embeddings", json!(400)),
    ] {
        config[key] = value;
    }
    let folder = tempfile::tempdir().unwrap();
    write_single(folder.path(), &config, &stored_tensors(&config, "F32"));
    (folder, (0..300).map(|at: u32| at * at % 7 + at % 3).collect())
}

fn logits_equal_transformers(device: &Device) {
    for folder in families() {
        let (_, expected) = load(&folder);
        let decoder = on(device, &folder, Precision::F32);
        let logits = in_pieces(&decoder, &ids(&expected["input_ids"]), &[1]);
        for (position, row) in ids(&expected["positions"]).iter().zip(expected["logits"].as_array().unwrap()) {
            let row: Vec<f32> = serde_json::from_value(row.clone()).unwrap();
            let apart = difference(&logits[*position as usize], &row);
            assert!(apart < TOLERANCE, "{folder:?} position {position}: {apart}");
        }
    }
}

fn greedy_tokens_equal(device: &Device) {
    for folder in families() {
        let (_, expected) = load(&folder);
        let decoder = on(device, &folder, Precision::F32);
        let (mut tokens, wanted) = (ids(&expected["input_ids"]), ids(&expected["greedy_16"]));
        let mut cache = decoder.new_cache(tokens.len() + wanted.len()).unwrap();
        let mut found = Vec::new();
        for _ in &wanted {
            let next = greedy(&step(&decoder, &tokens, &mut cache));
            found.push(next);
            tokens = vec![next];
        }
        assert_eq!(found, wanted, "{folder:?}");
    }
}

fn bf16_is_near(device: &Device) {
    for folder in families() {
        let (cpu, expected) = load(&folder);
        let input = ids(&expected["input_ids"]);
        let wanted = on_cpu(&cpu, &input);
        let decoder = on(device, &folder, Precision::Bf16);
        let found = step(&decoder, &input, &mut decoder.new_cache(input.len()).unwrap());
        // bf16 keeps 8 bits of a number.
        let largest = wanted.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
        let apart = difference(&found, &wanted);
        assert!(apart > 0.0 && apart < largest / 32.0, "{folder:?}: {apart} of {largest}");
    }
}

fn a_window_hides(device: &Device) {
    for window in [1, 5, 64, 70, 130] {
        let (folder, tokens) = windowed(window);
        let cpu = WeightFiles::open(folder.path()).unwrap().load().unwrap();
        let decoder = on(device, folder.path(), Precision::F32);
        for length in [1, 16, 17, 64, 65, 131, 300] {
            let found = step(&decoder, &tokens[..length], &mut decoder.new_cache(300).unwrap());
            let apart = difference(&found, &on_cpu(&cpu, &tokens[..length]));
            assert!(apart < TOLERANCE, "window {window}, {length} tokens: {apart}");
        }
    }
}

fn nothing_else_changes_a_bit(device: &Device) {
    let (folder, long) = windowed(70);
    let mut cases: Vec<_> = families()
        .into_iter()
        .map(|folder| {
            let input = ids(&load(&folder).1["input_ids"])[..70].to_vec();
            (folder, input)
        })
        .collect();
    cases.push((folder.path().to_owned(), long));
    for ((folder, input), precision) in cases.iter().flat_map(|case| PRECISIONS.map(|precision| (case, precision))) {
        let decoder = on(device, folder, precision);
        let alone = bits(&in_pieces(&decoder, input, &[input.len()])[0]);
        for pieces in [&[1][..], &[7, 3], &[40, 29, 1], &[16], &[65, 64]] {
            let last = in_pieces(&decoder, input, pieces).pop().unwrap();
            assert_eq!(bits(&last), alone, "{folder:?}, {precision:?}, in pieces of {pieces:?}");
        }
        let mates: Vec<&[u32]> = vec![&input[..1], input, &input[10..60], &input[3..30]];
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together: Vec<Vec<f32>> = pool.install(|| {
                let mut caches: Vec<_> = mates.iter().map(|mate| decoder.new_cache(mate.len() + 80).unwrap()).collect();
                let mut streams: Vec<_> =
                    mates.iter().zip(&mut caches).map(|(tokens, cache)| Stream { tokens, cache }).collect();
                decoder.forward(&mut streams).unwrap().to_vec2().unwrap()
            });
            assert_eq!(bits(&together[1]), alone, "{folder:?}, {precision:?}, with {threads} threads");
        }
    }
}

fn a_copied_prefix_goes_on(device: &Device) {
    for (folder, precision) in families().iter().flat_map(|folder| PRECISIONS.map(|precision| (folder, precision))) {
        let decoder = on(device, folder, precision);
        let input = &ids(&load(folder).1["input_ids"])[..70];
        let alone = bits(&in_pieces(&decoder, input, &[input.len()])[0]);
        let mut donor = decoder.new_cache(60).unwrap();
        step(&decoder, &input[..45], &mut donor);
        // What another stream left in the cache, and what the donor holds behind the prefix, must not show.
        let mut cache = decoder.new_cache(80).unwrap();
        step(&decoder, input, &mut cache);
        for prefix in [45, 1, 0, 17] {
            cache.copy_prefix(&donor, prefix).unwrap();
            let logits = step(&decoder, &input[prefix..], &mut cache);
            assert_eq!(bits(&logits), alone, "{folder:?}, {precision:?}, behind {prefix} tokens");
        }
        cache.clear();
        assert!(cache.is_empty());
        assert_eq!(bits(&step(&decoder, input, &mut cache)), alone);
        assert!(cache.copy_prefix(&donor, 46).is_err());
        assert!(decoder.new_cache(10).unwrap().copy_prefix(&donor, 11).is_err());
    }
}

#[test]
fn logits_equal_transformers_for_every_family() {
    logits_equal_transformers(&Device::Cpu);
}

#[test]
fn greedy_tokens_equal_those_of_the_cpu() {
    greedy_tokens_equal(&Device::Cpu);
}

#[test]
fn bf16_is_near_f32() {
    bf16_is_near(&Device::Cpu);
}

#[test]
fn a_window_hides_what_it_hides_on_the_cpu() {
    a_window_hides(&Device::Cpu);
}

#[test]
fn pieces_and_batch_mates_and_threads_and_room_do_not_change_a_bit() {
    nothing_else_changes_a_bit(&Device::Cpu);
}

#[test]
fn a_copied_prefix_goes_on_as_if_it_had_been_computed() {
    a_copied_prefix_goes_on(&Device::Cpu);
}

#[test]
fn what_does_not_fit_is_refused() {
    let decoder = on(&Device::Cpu, &families()[0], Precision::F32);
    let vocabulary = decoder.config().vocab_size as u32;
    assert!(decoder.new_cache(100_000).unwrap_err().to_string().contains("does not fit"));
    let mut cache = decoder.new_cache(2).unwrap();
    for (tokens, wanted) in
        [(&[1, 1, 1][..], "3 tokens does not fit"), (&[], "no tokens"), (&[vocabulary], "outside of the model's")]
    {
        let error = decoder.forward(&mut [Stream { tokens, cache: &mut cache }]).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(cache.is_empty());
    assert!(decoder.forward(&mut []).is_err());
}

#[test]
fn a_whole_model_says_how_it_is_computed() {
    let model = Model::load_on("bundled", ComputeDevice::Cpu).unwrap();
    let stored = WeightFiles::open(&model.directory).unwrap().stored_as().to_lowercase();
    assert_eq!(model.decoder.class(), format!("candle-cpu {stored}"));
    let ids = model.tokenizer.encode_template("Who goes there?").unwrap();
    let mut cache = model.decoder.new_cache(64).unwrap();
    let found = step(&model.decoder, &ids, &mut cache);
    assert_eq!(greedy(&found), greedy(&on_cpu(&Model::load("bundled").unwrap().decoder, &ids)));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_is_refused_before_the_model_is_looked_for() {
    let error = Model::load_on("no/such/folder", ComputeDevice::Cuda { ordinal: 0 }).unwrap_err();
    assert!(matches!(error, model::Error::Device(_)), "{error}");
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::*;

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn logits_equal_transformers_for_every_family() {
        logits_equal_transformers(&ComputeDevice::Cuda { ordinal: 0 }.open().unwrap());
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn greedy_tokens_equal_those_of_the_cpu() {
        greedy_tokens_equal(&ComputeDevice::Cuda { ordinal: 0 }.open().unwrap());
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn bf16_is_near_f32() {
        bf16_is_near(&ComputeDevice::Cuda { ordinal: 0 }.open().unwrap());
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn a_window_hides_what_it_hides_on_the_cpu() {
        a_window_hides(&ComputeDevice::Cuda { ordinal: 0 }.open().unwrap());
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn pieces_and_batch_mates_and_threads_and_room_do_not_change_a_bit() {
        nothing_else_changes_a_bit(&ComputeDevice::Cuda { ordinal: 0 }.open().unwrap());
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn a_copied_prefix_goes_on_as_if_it_had_been_computed() {
        a_copied_prefix_goes_on(&ComputeDevice::Cuda { ordinal: 0 }.open().unwrap());
    }
}
