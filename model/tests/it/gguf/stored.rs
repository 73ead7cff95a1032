//! GGUF files that are served as they are.

use std::{fs, path::Path};

use candle_core::Device;
use model::{
    Checkpoint, Decoder, DecoderError, DeviceDecoder, Error, Manifest, Model, Stream, WeightFiles,
    checkpoint::CheckpointError,
    decoder::device::Precision,
    gguf::{GgufError, WeightType},
    train::{AdamW, Scope, Trainer},
};

use super::{GgufFile, HEAD, HIDDEN, KV_HEADS, Stored, goldens, import_file, model, values, vocabulary};
use crate::smollm2;

/// Matrices in every storage type that there is, beginning with the one at `turn`.
fn mixed(architecture: &str, vocabulary_name: &str, turn: usize) -> GgufFile {
    let mut file = model(architecture, &vocabulary(vocabulary_name), HIDDEN);
    let goldens = goldens();
    let mut kinds = goldens["quantizations"].as_array().unwrap().iter().cycle().skip(turn);
    for (name, tensor) in &mut file.tensors {
        if tensor.shape.len() == 1 {
            let scale = if name.ends_with("norm.weight") { 128.0 } else { 1024.0 };
            let values = values(3, tensor.shape[0]).into_iter().map(|value| value / scale);
            tensor.bytes = values.flat_map(f32::to_le_bytes).collect();
            continue;
        }
        let kind = kinds.next().unwrap();
        let hex = kind["bytes"].as_str().unwrap();
        let block: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let elements: usize = tensor.shape.iter().product();
        let size = block.len() * elements / kind["bits"].as_array().unwrap().len();
        let bytes = block.iter().copied().cycle().take(size).collect();
        *tensor = Stored { shape: tensor.shape.clone(), code: kind["code"].as_u64().unwrap() as u32, bytes };
    }
    file
}

fn logits(decoder: &Decoder, ids: &[u32]) -> Vec<u32> {
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let logits = decoder.forward(&mut [Stream { tokens: ids, cache: &mut cache }]).unwrap();
    logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The file as f32 and as it is; both decoders.
fn both(file: &Path, folder: &Path) -> [Decoder; 2] {
    ["wide", "stored"].map(|name| {
        let dtype = if name == "wide" { WeightType::F32 } else { WeightType::Stored };
        model::gguf::import(file, &folder.join(name), dtype, &mut |_| {}).unwrap();
        WeightFiles::open(&folder.join(name)).unwrap().load().unwrap()
    })
}

#[test]
fn logits_are_those_of_the_values_to_the_bit_for_every_family_and_type() {
    for (architecture, name) in [("llama", "gpt-2"), ("qwen2", "qwen2"), ("qwen3", "qwen2")] {
        let folder = tempfile::tempdir().unwrap();
        for turn in 0..goldens()["quantizations"].as_array().unwrap().len() {
            let path = folder.path().join(format!("{turn}.gguf"));
            fs::write(&path, mixed(architecture, name, turn).bytes().0).unwrap();
            let here = folder.path().join(turn.to_string());
            fs::create_dir(&here).unwrap();
            let [wide, stored] = both(&path, &here);
            let ids: Vec<u32> = (0..40).map(|at| at * 7 % 300).collect();
            assert_eq!(logits(&stored, &ids), logits(&wide, &ids), "{architecture}, turn {turn}");
        }
    }
}

#[test]
fn a_device_computes_with_the_widened_values() {
    let folder = tempfile::tempdir().unwrap();
    import_file(&mixed("qwen3", "qwen2", 0).bytes().0, WeightType::Stored, folder.path()).unwrap();
    let files = WeightFiles::open(&folder.path().join("out")).unwrap();
    assert_eq!(Precision::of(&files), Precision::Bf16);
    let ids: Vec<u32> = (0..40).map(|at| at * 7 % 300).collect();
    let wanted = logits(&files.load().unwrap(), &ids);
    let largest = wanted.iter().fold(0.0_f32, |largest, logit| largest.max(f32::from_bits(*logit).abs()));
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.1)] {
        let decoder = DeviceDecoder::load(&files, &Device::Cpu, precision).unwrap();
        let mut cache = decoder.new_cache(ids.len()).unwrap();
        let found = decoder.forward(&mut [Stream { tokens: &ids, cache: &mut cache }]).unwrap();
        for (found, wanted) in found.to_vec2::<f32>().unwrap()[0].iter().zip(&wanted) {
            assert!((found - f32::from_bits(*wanted)).abs() <= tolerance * largest, "{precision:?}: {found}");
        }
    }
}

#[test]
fn a_stored_model_is_the_file_and_cannot_be_stamped() {
    let folder = tempfile::tempdir().unwrap();
    let file = mixed("llama", "gpt-2", 0).bytes().0;
    let report = import_file(&file, WeightType::Stored, folder.path()).unwrap();
    let out = folder.path().join("out");
    assert_eq!(fs::read(out.join("model.gguf")).unwrap(), file);
    assert_eq!((report.written_as, report.weight_bytes), (WeightType::Stored, file.len() as u64));
    let names: Vec<String> = Manifest::of(&out).unwrap().files().iter().map(|file| file.name.clone()).collect();
    assert!(names.contains(&"model.gguf".to_owned()), "{names:?}");

    assert!(matches!(Checkpoint::open(&out), Err(CheckpointError::Quantized { .. })));
    let model = Model::open(&out).unwrap();
    let scope = Scope { first_block: 0, embeddings: false, low_rank: None };
    let refused = Trainer::new(&model.decoder, scope, AdamW::default());
    assert!(matches!(refused, Err(DecoderError::Quantized)));
    assert!(WeightFiles::open(&out).unwrap().stored_as().contains("Q4_K"));
}

#[test]
fn safetensors_beside_the_file_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = mixed("llama", "gpt-2", 0).bytes().0;
    import_file(&file, WeightType::Bf16, folder.path()).unwrap();
    let out = folder.path().join("out");
    fs::write(out.join("model.gguf"), file).unwrap();
    assert!(matches!(WeightFiles::open(&out).unwrap(), WeightFiles::Safetensors(_)));
}

#[test]
fn a_value_that_is_no_number_is_refused_and_leaves_nothing() {
    let mut file = mixed("llama", "gpt-2", 0);
    let tensor = file.tensors.get_mut("blk.0.attn_k.weight").unwrap();
    tensor.code = 8;
    tensor.bytes = vec![1; KV_HEADS * HEAD * HIDDEN / 32 * 34];
    let last = tensor.bytes.len() - 34;
    tensor.bytes[last..last + 2].copy_from_slice(&0x7c00_u16.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let error = import_file(&file.bytes().0, WeightType::Stored, folder.path()).unwrap_err();
    let GgufError::Tensor { tensor, problem } = error else { panic!("{error}") };
    assert_eq!(tensor, "blk.0.attn_k.weight");
    assert!(problem.contains("inf") && problem.contains(&(KV_HEADS * HEAD * HIDDEN - 32).to_string()), "{problem}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_configuration_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    import_file(&mixed("llama", "gpt-2", 0).bytes().0, WeightType::Stored, folder.path()).unwrap();
    let config = folder.path().join("out/config.json");
    let text = fs::read_to_string(&config).unwrap();
    let other = text.replace("\"intermediate_size\": 256", "\"intermediate_size\": 512");
    assert_ne!(other, text);
    fs::write(&config, other).unwrap();
    let error = WeightFiles::open(&folder.path().join("out")).unwrap_err();
    assert!(matches!(&error, Error::Gguf(GgufError::Tensor { tensor, .. }) if tensor.contains("ffn")), "{error}");
}

#[test]
#[ignore = "needs shared data"]
fn smollm2_as_stored_has_the_logits_of_its_values() {
    let folder = tempfile::tempdir().unwrap();
    let [wide, stored] = both(&smollm2::folder().join("model.gguf"), folder.path());
    let ids: Vec<u32> = (1..50).map(|at| at * 991 % 49_000).collect();
    assert_eq!(logits(&stored, &ids), logits(&wide, &ids));
    assert_eq!(logits(&stored, &ids[..1]), logits(&wide, &ids[..1]));
}
