//! GGUF files into Hugging Face folders: values, names and order of weights, tokenizers, hostile files.

mod file;
mod sentence_piece;
mod stored;

use std::{fs, path::Path};

use candle_core::{DType, Tensor};
use model::{
    ChatTemplate, Checkpoint, Message, SpecialTokens, Tokenizer,
    config::RopeScaling,
    gguf::{GgufError, ImportReport, WeightType, import},
};
use proptest::prelude::*;
use serde_json::Value;

use self::file::{Field, GgufFile, Stored};
use crate::smollm2;

const HIDDEN: usize = 256;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 64;

fn goldens() -> Value {
    serde_json::from_str(include_str!("../golden/gguf.json")).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Values that differ from element to element and are exact in bf16.
fn values(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 31 + seed * 17) % 255) as f32 - 127.0).collect()
}

/// Adds the keys of a golden vocabulary.
fn add_vocabulary(file: &mut GgufFile, golden: &Value) {
    file.set("tokenizer.ggml.model", Field::Text(golden["model"].as_str().unwrap().to_owned()));
    if let Some(pre) = golden["pre"].as_str() {
        file.set("tokenizer.ggml.pre", Field::Text(pre.to_owned()));
    }
    file.set("tokenizer.ggml.tokens", Field::Texts(texts(&golden["tokens"])));
    file.set("tokenizer.ggml.token_type", Field::I32s(serde_json::from_value(golden["token_type"].clone()).unwrap()));
    if golden["merges"].is_array() {
        file.set("tokenizer.ggml.merges", Field::Texts(texts(&golden["merges"])));
    }
    if golden["scores"].is_array() {
        file.set("tokenizer.ggml.scores", Field::F32s(serde_json::from_value(golden["scores"].clone()).unwrap()));
    }
    for (role, key) in [("bos", "bos"), ("eos", "eos"), ("unknown", "unknown")] {
        if let Some(id) = golden[role].as_u64() {
            file.set(&format!("tokenizer.ggml.{key}_token_id"), Field::U32(u32::try_from(id).unwrap()));
        }
    }
    if let Some(adds) = golden["add_bos_token"].as_bool() {
        file.set("tokenizer.ggml.add_bos_token", Field::Bool(adds));
    }
}

/// A model of one block with a golden vocabulary; `hidden` is the width of everything.
fn model(architecture: &str, vocabulary: &Value, hidden: usize) -> GgufFile {
    let mut file = GgufFile::default();
    let (heads, head) = (HEADS, hidden / HEADS);
    file.set("general.architecture", Field::Text(architecture.to_owned()));
    file.set("general.name", Field::Text("Tiny".to_owned()));
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", hidden),
        ("feed_forward_length", hidden),
        ("attention.head_count", heads),
        ("attention.head_count_kv", KV_HEADS),
    ] {
        file.set(&format!("{architecture}.{key}"), Field::U32(u32::try_from(value).unwrap()));
    }
    file.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Field::F32(1e-5));
    file.set(&format!("{architecture}.rope.freq_base"), Field::F32(100_000.0));
    add_vocabulary(&mut file, vocabulary);
    let tokens = vocabulary["tokens"].as_array().unwrap().len();
    let mut tensors = vec![
        ("token_embd.weight", vec![tokens, hidden]),
        ("output_norm.weight", vec![hidden]),
        ("blk.0.attn_norm.weight", vec![hidden]),
        ("blk.0.ffn_norm.weight", vec![hidden]),
        ("blk.0.attn_q.weight", vec![heads * head, hidden]),
        ("blk.0.attn_k.weight", vec![KV_HEADS * head, hidden]),
        ("blk.0.attn_v.weight", vec![KV_HEADS * head, hidden]),
        ("blk.0.attn_output.weight", vec![hidden, heads * head]),
        ("blk.0.ffn_gate.weight", vec![hidden, hidden]),
        ("blk.0.ffn_up.weight", vec![hidden, hidden]),
        ("blk.0.ffn_down.weight", vec![hidden, hidden]),
    ];
    if architecture == "qwen2" {
        tensors.push(("blk.0.attn_q.bias", vec![heads * head]));
        tensors.push(("blk.0.attn_k.bias", vec![KV_HEADS * head]));
        tensors.push(("blk.0.attn_v.bias", vec![KV_HEADS * head]));
    }
    if architecture == "qwen3" {
        tensors.push(("blk.0.attn_q_norm.weight", vec![head]));
        tensors.push(("blk.0.attn_k_norm.weight", vec![head]));
    }
    for (seed, (name, shape)) in tensors.into_iter().enumerate() {
        let count = shape.iter().product();
        file.f32_tensor(name, &shape, &values(seed, count));
    }
    file
}

fn vocabulary(name: &str) -> Value {
    let goldens = goldens();
    let all = goldens["vocabularies"].as_array().unwrap();
    all.iter().find(|entry| entry["name"] == name).unwrap().clone()
}

/// Writes the file and imports it into `out` beside it.
fn import_file(bytes: &[u8], dtype: WeightType, folder: &Path) -> Result<ImportReport, GgufError> {
    let path = folder.join("tiny.gguf");
    fs::write(&path, bytes).unwrap();
    import(&path, &folder.join("out"), dtype, &mut |_| {})
}

/// Imports a file that must be good; the folder holds the model in `out`.
fn imported(file: &GgufFile, dtype: WeightType) -> (tempfile::TempDir, ImportReport) {
    let folder = tempfile::tempdir().unwrap();
    let report = import_file(&file.bytes().0, dtype, folder.path()).unwrap();
    (folder, report)
}

fn f32s(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn stored_f32(file: &GgufFile, name: &str) -> Vec<f32> {
    file.tensors[name].bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// llama.cpp's order of the rows of each head, from Hugging Face's.
fn interleave(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    let head = values.len() / columns / heads;
    for row in 0..heads * head {
        let (which, within) = (row / head, row % head);
        let (half, pair) = (within / (head / 2), within % (head / 2));
        let target = which * head + 2 * pair + half;
        out[target * columns..][..columns].copy_from_slice(&values[row * columns..][..columns]);
    }
    out
}

#[test]
fn every_storage_type_has_the_values_of_the_reference() {
    let vocabulary = vocabulary("gpt-2");
    for golden in goldens()["quantizations"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let hex = golden["bytes"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let expected: Vec<f32> = golden["bits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32))
            .collect();
        let mut file = model("llama", &vocabulary, HIDDEN);
        let repeats = HIDDEN * HIDDEN / expected.len();
        let stored = Stored {
            shape: vec![HIDDEN, HIDDEN],
            code: golden["code"].as_u64().unwrap() as u32,
            bytes: bytes.repeat(repeats),
        };
        file.tensors.insert("blk.0.ffn_up.weight".to_owned(), stored);

        let (folder, report) = imported(&file, WeightType::F32);
        let up =
            Checkpoint::open(&folder.path().join("out")).unwrap().tensor("model.layers.0.mlp.up_proj.weight").unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&f32s(&up)), bits(&expected.repeat(repeats)), "{name}");
        assert!(report.stored_as.contains_key(name), "{:?}", report.stored_as);
    }
}

#[test]
fn query_and_key_rows_return_to_hugging_face_order_for_llama_only() {
    for (architecture, name) in [("llama", "gpt-2"), ("qwen2", "qwen2"), ("qwen3", "qwen2")] {
        let mut file = model(architecture, &vocabulary(name), HIDDEN);
        let llama = architecture == "llama";
        let mut expected = Vec::new();
        for (module, heads) in [("q", HEADS), ("k", KV_HEADS)] {
            let original = values(heads, heads * HEAD * HIDDEN);
            let stored = if llama { interleave(&original, heads, HIDDEN) } else { original.clone() };
            file.f32_tensor(&format!("blk.0.attn_{module}.weight"), &[heads * HEAD, HIDDEN], &stored);
            expected.push((format!("model.layers.0.self_attn.{module}_proj.weight"), original));
        }
        let (folder, _) = imported(&file, WeightType::Bf16);
        let checkpoint = Checkpoint::open(&folder.path().join("out")).unwrap();
        assert_eq!(checkpoint.dtype(), DType::BF16);
        for (name, original) in expected {
            assert_eq!(f32s(&checkpoint.tensor(&name).unwrap()), original, "{architecture} {name}");
        }
        let value = f32s(&checkpoint.tensor("model.layers.0.self_attn.v_proj.weight").unwrap());
        assert_eq!(value, stored_f32(&file, "blk.0.attn_v.weight"));
        let embedding = f32s(&checkpoint.tensor("model.embed_tokens.weight").unwrap());
        assert_eq!(embedding, stored_f32(&file, "token_embd.weight"));
        assert!(checkpoint.config().tie_word_embeddings);
    }
}

#[test]
fn llama_biases_are_reordered_too_and_an_output_matrix_unties() {
    let mut file = model("llama", &vocabulary("gpt-2"), HIDDEN);
    let query = values(5, HIDDEN);
    file.f32_tensor("blk.0.attn_q.bias", &[HIDDEN], &interleave(&query, HEADS, 1));
    for (name, size) in [("attn_k", KV_HEADS * HEAD), ("attn_v", KV_HEADS * HEAD), ("attn_output", HIDDEN)] {
        file.f32_tensor(&format!("blk.0.{name}.bias"), &[size], &values(6, size));
    }
    let embedding = file.tensors["token_embd.weight"].clone();
    file.tensors.insert("output.weight".to_owned(), embedding);
    let (folder, _) = imported(&file, WeightType::Bf16);
    let checkpoint = Checkpoint::open(&folder.path().join("out")).unwrap();
    assert_eq!(f32s(&checkpoint.tensor("model.layers.0.self_attn.q_proj.bias").unwrap()), query);
    assert!(!checkpoint.config().tie_word_embeddings);
    assert!(checkpoint.config().output_bias);
}

#[test]
fn configuration_keeps_what_the_keys_say() {
    let mut file = model("llama", &vocabulary("llama-bpe"), HIDDEN);
    // The factors of Llama 3.2 for heads of 64.
    let factors: Vec<f32> = (0..HEAD / 2)
        .map(|index| {
            let wavelength = std::f64::consts::TAU * 500_000_f64.powf(index as f64 / (HEAD / 2) as f64);
            let smooth = (8192.0 / wavelength - 1.0) / 3.0;
            if wavelength < 2048.0 {
                1.0
            } else if wavelength > 8192.0 {
                32.0
            } else {
                1.0 / ((1.0 - smooth) / 32.0 + smooth)
            }
        })
        .map(|factor: f64| factor as f32)
        .collect();
    file.f32_tensor("rope_freqs.weight", &[HEAD / 2], &factors);
    file.set("llama.rope.freq_base", Field::F32(500_000.0));
    file.set("tokenizer.ggml.eot_token_id", Field::U32(2));
    file.set("tokenizer.chat_template", Field::Text("{{ bos_token }}{{ messages[0].content }}".to_owned()));
    file.set("general.license", Field::Text("apache-2.0".to_owned()));
    let (folder, report) = imported(&file, WeightType::Bf16);
    let out = folder.path().join("out");
    let checkpoint = Checkpoint::open(&out).unwrap();
    let config = checkpoint.config();
    assert_eq!(
        config.rope.scaling,
        RopeScaling::Llama3 {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_max_positions: 8192
        }
    );
    assert_eq!((config.rope.theta, config.rms_norm_eps, config.kv_heads), (500_000.0, 1e-5, KV_HEADS));
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(0), [1, 2].as_slice()));
    let text = fs::read_to_string(out.join("config.json")).unwrap();
    assert!(text.contains("\"rms_norm_eps\": 1e-5") || text.contains("\"rms_norm_eps\": 0.00001"), "{text}");
    let template = ChatTemplate::load(&out).unwrap().unwrap();
    assert_eq!(template.render(&[Message::user("hi")], false).unwrap(), "<s>hi");
    assert_eq!(report.name.as_deref(), Some("Tiny"));
    assert_eq!((report.license.as_deref(), report.has_chat_template), (Some("apache-2.0"), true));
    assert_eq!(report.weight_bytes, fs::metadata(out.join("model.safetensors")).unwrap().len());
    assert_eq!(
        report.parameters,
        file.tensors
            .iter()
            .filter(|(name, _)| *name != "rope_freqs.weight")
            .map(|(_, t)| t.shape.iter().product::<usize>() as u64)
            .sum::<u64>()
    );
}

#[test]
fn vocabularies_give_the_ids_of_transformers() {
    for golden in goldens()["vocabularies"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let (folder, report) = imported(&model(golden["architecture"].as_str().unwrap(), golden, 32), WeightType::Bf16);
        assert_eq!(report.warnings, Vec::<String>::new());
        let tokenizer = Tokenizer::load(&folder.path().join("out")).unwrap();
        for case in golden["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let ids = tokenizer.encode(text, SpecialTokens::Add).unwrap();
            assert_eq!(ids, expected, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids, false), case["decoded"].as_str().unwrap(), "{name}: {text:?}");
        }
    }
}

#[test]
fn a_vocabulary_without_a_pattern_is_imported_with_a_warning() {
    let mut file = model("qwen2", &vocabulary("qwen2"), 32);
    file.remove("tokenizer.ggml.pre");
    let (_folder, report) = imported(&file, WeightType::Bf16);
    assert!(report.warnings[0].contains("Qwen2"), "{:?}", report.warnings);
}

/// The message of the error that a changed file ends in, with its sources.
fn refusal(change: impl FnOnce(&mut GgufFile)) -> String {
    let mut file = model("llama", &vocabulary("gpt-2"), 32);
    change(&mut file);
    refusal_of(&file.bytes().0)
}

fn refusal_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = import_file(bytes, WeightType::Bf16, folder.path()).unwrap_err();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tiny.gguf"], "something was left behind");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn contradictory_files_are_refused_by_name() {
    let tensor = |name: &str, change: fn(&mut Stored)| {
        let name = name.to_owned();
        move |file: &mut GgufFile| change(file.tensors.get_mut(&name).unwrap())
    };
    let set = |key: &str, field: Field| {
        let key = key.to_owned();
        move |file: &mut GgufFile| file.set(&key, field)
    };
    let mut cases: Vec<(&str, String)> = Vec::new();
    let mut case = |expected, refusal| cases.push((expected, refusal));
    case("architecture gpt2", refusal(set("general.architecture", Field::Text("gpt2".to_owned()))));
    case("no key general.architecture", refusal(|file| file.remove("general.architecture")));
    case("no key llama.block_count", refusal(|file| file.remove("llama.block_count")));
    case("llama.block_count is not one whole number", refusal(set("llama.block_count", Field::F32(1.0))));
    case("mixture of experts", refusal(set("llama.expert_count", Field::U32(8))));
    case("rope.scaling.type is yarn", refusal(set("llama.rope.scaling.type", Field::Text("yarn".to_owned()))));
    case("rope.dimension_count is 4", refusal(set("llama.rope.dimension_count", Field::U32(4))));
    case("tensor blk.0.attn_v.weight", refusal(|file| drop(file.tensors.remove("blk.0.attn_v.weight"))));
    case("tensor blk.1.x is not part", refusal(|file| file.f32_tensor("blk.1.x", &[32], &[0.0; 32])));
    case(
        "tensor blk.0.ffn_up.weight has the shape [64, 16]",
        refusal(tensor("blk.0.ffn_up.weight", |t| t.shape = vec![64, 16])),
    );
    case("tensor blk.0.ffn_up.weight is stored as IQ4_NL", refusal(tensor("blk.0.ffn_up.weight", |t| t.code = 20)));
    case("tensor blk.0.ffn_up.weight is stored as type 99", refusal(tensor("blk.0.ffn_up.weight", |t| t.code = 99)));
    case("tensor blk.0.ffn_up.weight has rows of 32", refusal(tensor("blk.0.ffn_up.weight", |t| t.code = 12)));
    case(
        "tensor blk.0.ffn_up.weight holds NaN at element 7",
        refusal(tensor("blk.0.ffn_up.weight", |t| t.bytes[28..32].fill(0xff))),
    );
    case(
        "bf16 cannot",
        refusal(tensor("blk.0.ffn_up.weight", |t| t.bytes[..4].copy_from_slice(&f32::MAX.to_le_bytes()))),
    );
    case(
        "tensor blk.0.ffn_up.weight has 5 dimensions",
        refusal(tensor("blk.0.ffn_up.weight", |t| t.shape = vec![1; 5])),
    );
    case("a dimension of 0", refusal(tensor("blk.0.ffn_up.weight", |t| t.shape = vec![0, 32])));
    case("impossible shape", refusal(tensor("blk.0.ffn_up.weight", |t| t.shape = vec![1 << 40, 1 << 40])));
    case("tensor token_embd.weight needs", refusal(tensor("token_embd.weight", |t| t.shape = vec![1 << 30, 32])));
    case("no key tokenizer.ggml.tokens", refusal(|file| file.remove("tokenizer.ggml.tokens")));
    case("tokenizer.ggml.token_type has 1 entries", refusal(set("tokenizer.ggml.token_type", Field::I32s(vec![1]))));
    case("tokenizer.ggml.model is bert", refusal(set("tokenizer.ggml.model", Field::Text("bert".to_owned()))));
    case("tokenizer.ggml.pre is klingon", refusal(set("tokenizer.ggml.pre", Field::Text("klingon".to_owned()))));
    case("\"ab\" at 0, which is no pair", refusal(set("tokenizer.ggml.merges", Field::Texts(vec!["ab".to_owned()]))));
    case(
        "vocabulary in the file cannot be used",
        refusal(set("tokenizer.ggml.merges", Field::Texts(vec!["no such".to_owned()]))),
    );
    case("bos_token_id is 5000", refusal(set("tokenizer.ggml.bos_token_id", Field::U32(5000))));
    case("\"a\" twice, as 0 and 1", refusal(set("tokenizer.ggml.tokens", Field::Texts(vec!["a".to_owned(); 421]))));
    case(
        "chat template in the file cannot be used",
        refusal(set("tokenizer.chat_template", Field::Text("{% if %}".to_owned()))),
    );
    case("general.alignment is 7", refusal(set("general.alignment", Field::U32(7))));
    case("rope_freqs.weight holds 3", refusal(|file| file.f32_tensor("rope_freqs.weight", &[4], &[3.0; 4])));
    for (expected, refusal) in cases {
        assert!(refusal.contains(expected), "{refusal:?} does not say {expected:?}");
    }
}

#[test]
fn absurd_and_truncated_files_are_refused_before_anything_is_allocated() {
    let (bytes, data) = model("llama", &vocabulary("gpt-2"), 32).bytes();
    let patched = |at: usize, patch: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        refusal_of(&bytes)
    };
    assert!(refusal_of(b"").contains("is not a GGUF file"));
    assert!(refusal_of(b"GGML\x03\0\0\0").contains("is not a GGUF file"));
    assert!(patched(4, &[1]).contains("version 1"));
    assert!(patched(4, &[0, 0, 0, 3]).contains("little-endian"));
    assert!(patched(8, &[0xff; 8]).contains("number of tensors"));
    assert!(patched(16, &[0xff; 8]).contains("number of keys"));
    assert!(patched(24, &[0xff; 8]).contains("the length of the name of key 0"));
    // The first key's value: a string that claims 200 MB.
    let value = 24 + 8 + "general.architecture".len() + 4;
    assert!(patched(value, &200_000_000_u64.to_le_bytes()).contains("general.architecture needs 200000000 bytes"));
    assert!(patched(value - 4, &[77]).contains("unknown type 77"));
    let last = bytes.len() - 64;
    assert!(refusal_of(&bytes[..last]).contains("tensor token_embd.weight needs"), "{}", refusal_of(&bytes[..last]));
    for length in [4, 9, 23, 60, data / 2, data - 1] {
        let refusal = refusal_of(&bytes[..length]);
        assert!(refusal.contains("truncated"), "{refusal}");
    }
}

#[test]
fn occupied_folder_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let bytes = model("llama", &vocabulary("gpt-2"), 32).bytes().0;
    import_file(&bytes, WeightType::F32, folder.path()).unwrap();
    let before = fs::read(out.join("model.safetensors")).unwrap();
    let error = import_file(&bytes, WeightType::Bf16, folder.path()).unwrap_err();
    assert!(matches!(error, GgufError::OutputExists { .. }), "{error}");
    assert_eq!(fs::read(out.join("model.safetensors")).unwrap(), before);
}

#[test]
fn progress_ends_at_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, model("llama", &vocabulary("gpt-2"), 32).bytes().0).unwrap();
    let mut seen = Vec::new();
    import(&path, &folder.path().join("out"), WeightType::Bf16, &mut |at| seen.push((at.done_bytes, at.total_bytes)))
        .unwrap();
    assert!(seen.is_sorted() && seen.len() == 12, "{seen:?}");
    assert_eq!(seen.last().map(|(done, total)| done == total), Some(true));
}

proptest! {
    #[test]
    fn damaged_files_never_panic_and_leave_nothing(
        spm in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let vocabulary = vocabulary(if spm { "sentencepiece" } else { "llama-bpe" });
        let (mut bytes, data) = model("llama", &vocabulary, 16).bytes();
        for (index, byte, is_flip) in damage {
            // Mostly in the header, whose every byte means something.
            let at = index.index(data + 64);
            bytes[at] = if is_flip { bytes[at] ^ (1 << (byte % 8)) } else { byte };
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let result = import_file(&bytes, WeightType::Bf16, folder.path());
        prop_assert_eq!(folder.path().join("out").exists(), result.is_ok());
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + usize::from(result.is_ok()));
    }
}

#[test]
#[ignore = "needs shared data"]
fn smollm2_gguf_becomes_the_reference_folder() {
    let reference = smollm2::folder();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("smollm2");
    let report = import(&reference.join("model.gguf"), &out, WeightType::Bf16, &mut |_| {}).unwrap();
    assert!(report.has_chat_template && report.warnings.is_empty());
    let (ours, theirs) = (Checkpoint::open(&out).unwrap(), Checkpoint::open(&reference).unwrap());
    assert_eq!(ours.names().collect::<std::collections::BTreeSet<_>>(), theirs.names().collect());
    for name in theirs.names() {
        let bits = |checkpoint: &Checkpoint| -> Vec<u16> {
            let tensor = checkpoint.tensor(name).unwrap().flatten_all().unwrap();
            tensor.to_vec1::<half::bf16>().unwrap().into_iter().map(half::bf16::to_bits).collect()
        };
        assert!(bits(&ours) == bits(&theirs), "{name} differs");
    }
    assert_eq!(ours.config(), theirs.config());

    let tokenizer = Tokenizer::load(&out).unwrap();
    let template = ChatTemplate::load(&out).unwrap().unwrap();
    let goldens = smollm2::goldens();
    for chat in goldens["chats"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let expected: Vec<u32> = serde_json::from_value(chat["ids_generation"].clone()).unwrap();
        assert_eq!(tokenizer.encode_template(&template.render(&messages, true).unwrap()).unwrap(), expected);
    }
    for string in goldens["strings"].as_array().unwrap() {
        let expected: Vec<u32> = serde_json::from_value(string["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(string["text"].as_str().unwrap(), SpecialTokens::Add).unwrap(), expected);
    }
}
