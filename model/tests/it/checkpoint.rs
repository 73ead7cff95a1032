use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use model::{Checkpoint, Decoder, checkpoint::CheckpointError};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{
    StoredTensor, contents, file_bytes, header, message, parity_fixture, safetensors, stored, stored_tensors,
    tiny_config, write, write_sharded, write_single,
};

const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";

fn open_single(tensors: &[StoredTensor]) -> Result<Checkpoint, CheckpointError> {
    let directory = tempfile::tempdir().unwrap();
    write_single(directory.path(), &tiny_config(false), tensors);
    Checkpoint::open(directory.path())
}

/// Opens a valid folder whose weight file was replaced, and says what is wrong with it.
fn refusal_of_file(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "config.json", tiny_config(false).to_string());
    write(directory.path(), "model.safetensors", bytes);
    message(&Checkpoint::open(directory.path()).unwrap_err())
}

/// A file whose header was changed after its tensors were laid out.
fn refusal_of_header(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let tensors = stored_tensors(&tiny_config(false), "F32");
    let mut header = header(&tensors);
    change(&mut header);
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.bytes.clone()).collect();
    refusal_of_file(&file_bytes(&header, &data))
}

fn refusal_of_tensors(change: impl FnOnce(&mut Vec<StoredTensor>)) -> String {
    let mut tensors = stored_tensors(&tiny_config(false), "F32");
    change(&mut tensors);
    message(&open_single(&tensors).unwrap_err())
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn tensors_of_every_type_are_read_as_they_are_stored() {
    for (name, dtype) in [("F32", DType::F32), ("BF16", DType::BF16), ("F16", DType::F16)] {
        let tensors = stored_tensors(&tiny_config(false), name);
        let directory = tempfile::tempdir().unwrap();
        write_single(directory.path(), &tiny_config(false), &tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.dtype(), dtype);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>());
        let tensor = checkpoint.tensor(EMBEDDING).unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (dtype, [10, 8].as_slice()));
        let reference = Tensor::from_raw_buffer(&tensors[0].bytes, dtype, &[10, 8], &Device::Cpu).unwrap();
        assert_eq!(floats(&tensor), floats(&reference));
        let wide = checkpoint.tensor_f32(EMBEDDING).unwrap();
        assert_eq!((wide.dtype(), floats(&wide)), (DType::F32, floats(&reference)));
    }
}

#[test]
fn data_may_lie_in_another_order_than_the_header_and_unaligned() {
    let tensors = stored_tensors(&tiny_config(false), "BF16");
    let mut entries = header(&tensors);
    let reversed = entries.keys().rev().cloned().collect::<Vec<_>>();
    let entries = reversed.into_iter().map(|key| (key.clone(), entries.remove(&key).unwrap())).collect();
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.bytes.clone()).collect();
    let mut header = serde_json::to_vec::<serde_json::Map<_, _>>(&entries).unwrap();
    header.resize(header.len().next_multiple_of(2) + 1, b' ');
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "config.json", tiny_config(false).to_string());
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), data.as_slice()].concat();
    write(directory.path(), "model.safetensors", file);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let reference = Tensor::from_raw_buffer(&tensors[3].bytes, DType::BF16, &tensors[3].shape, &Device::Cpu).unwrap();
    assert_eq!(floats(&checkpoint.tensor(&tensors[3].name).unwrap()), floats(&reference));
}

#[test]
fn a_single_file_wins_over_an_index() {
    let directory = tempfile::tempdir().unwrap();
    write_single(directory.path(), &tiny_config(false), &stored_tensors(&tiny_config(false), "F32"));
    write(directory.path(), "model.safetensors.index.json", "not even json");
    assert!(Checkpoint::open(directory.path()).is_ok());
}

#[test]
fn keys_and_values_of_different_types_are_computed_in_f32() {
    let mixed: Vec<StoredTensor> = stored_tensors(&tiny_config(false), "BF16")
        .into_iter()
        .map(|tensor| match tensor.name.ends_with(".v_proj.weight") {
            true => stored(&tensor.name, "F32", &tensor.shape),
            false => tensor,
        })
        .collect();
    let mixed = open_single(&mixed).unwrap();
    // The same values, all in f32.
    let wide: Vec<StoredTensor> = stored_tensors(&tiny_config(false), "F32")
        .into_iter()
        .map(|tensor| {
            let values = floats(&mixed.tensor(&tensor.name).unwrap());
            StoredTensor { bytes: values.into_iter().flat_map(f32::to_le_bytes).collect(), ..tensor }
        })
        .collect();
    let [mixed, wide] = [mixed, open_single(&wide).unwrap()].map(|checkpoint| Decoder::load(&checkpoint).unwrap());
    let ids = [1, 5, 3, 7];
    for (mixed, wide) in mixed.token_losses(&ids).unwrap().into_iter().zip(wide.token_losses(&ids).unwrap()) {
        assert!((mixed - wide).abs() < 1e-4, "{mixed} for {wide}");
    }
}

#[test]
fn buffers_that_follow_from_the_configuration_are_tolerated() {
    let mut tensors = stored_tensors(&tiny_config(false), "F32");
    tensors.push(stored("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", &[2]));
    assert!(open_single(&tensors).is_ok());
}

#[test]
fn a_truncated_file_is_refused() {
    let bytes = safetensors(&stored_tensors(&tiny_config(false), "F32"));
    assert_says(&refusal_of_file(&[]), &["model.safetensors is truncated: it has 0 bytes and needs 8"]);
    assert_says(&refusal_of_file(&bytes[..7]), &["is truncated: it has 7 bytes"]);
    assert_says(&refusal_of_file(&bytes[..100]), &["model.safetensors is truncated: it has 100 bytes and needs"]);
    let text = refusal_of_file(&bytes[..bytes.len() - 1]);
    assert_says(&text, &["model.safetensors", "lm_head.weight", "the file holds"]);
}

#[test]
fn an_absurd_header_size_is_refused_before_anything_is_allocated() {
    let mut bytes = safetensors(&stored_tensors(&tiny_config(false), "F32"));
    for size in [u64::MAX, 1 << 63, 100_000_001] {
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        assert_says(&refusal_of_file(&bytes), &["is no safetensors file", &size.to_string()]);
    }
    bytes[..8].copy_from_slice(&99_999_999_u64.to_le_bytes());
    assert_says(&refusal_of_file(&bytes), &["model.safetensors is truncated", "needs 100000007"]);
}

#[test]
fn a_header_that_is_not_json_is_refused() {
    assert_says(&refusal_of_file(b"\x04\0\0\0\0\0\0\0\xff\xff\xff\xff"), &["model.safetensors has an invalid header"]);
    assert_says(&refusal_of_file(b"\x04\0\0\0\0\0\0\0[[[["), &["model.safetensors has an invalid header"]);
    let nested = [&1000_u64.to_le_bytes(), [b'['; 1000].as_slice()].concat();
    assert_says(&refusal_of_file(&nested), &["invalid header"]);
    let html = b"<!DOCTYPE html><html><body>Access to this model is restricted</body></html>";
    assert_says(&refusal_of_file(html), &["is no safetensors file"]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 269060552\n";
    assert_says(&refusal_of_file(pointer), &["is no safetensors file"]);
}

#[test]
fn an_entry_that_is_not_an_entry_is_refused() {
    let text = refusal_of_header(|header| header[NORM] = json!({"dtype": "F32"}));
    assert_says(&text, &["model.safetensors", NORM, "missing field `shape`"]);
    let text =
        refusal_of_header(|header| header[NORM] = json!({"dtype": "F32", "shape": [-8], "data_offsets": [0, 32]}));
    assert_says(&text, &["model.safetensors", NORM, "invalid value: integer `-8`"]);
}

#[test]
fn an_unknown_dtype_is_refused() {
    let text = refusal_of_header(|header| header[NORM]["dtype"] = json!("F31"));
    assert_says(&text, &["model.safetensors", NORM, "unknown dtype \"F31\""]);
}

#[test]
fn a_dtype_that_is_no_weight_is_refused() {
    let text = refusal_of_header(|header| header[NORM]["dtype"] = json!("I32"));
    assert_says(&text, &["model.safetensors", NORM, "dtype I32; weights must be F32, F16 or BF16"]);
}

#[test]
fn overlapping_offsets_are_refused() {
    let text = refusal_of_header(|header| {
        let embedding = header[EMBEDDING]["data_offsets"].clone();
        header["lm_head.weight"]["data_offsets"] = embedding;
    });
    assert_says(&text, &["model.safetensors", "starts at byte 0 of the data, but the tensor before it ends at 320"]);
}

#[test]
fn gaps_between_tensors_are_refused() {
    let text = refusal_of_header(|header| {
        header.remove(NORM);
    });
    assert_says(&text, &["model.safetensors", "lm_head.weight", "but the tensor before it ends at"]);
}

#[test]
fn offsets_beyond_the_file_are_refused() {
    let tensors = stored_tensors(&tiny_config(false), "F32");
    let mut bytes = safetensors(&tensors);
    bytes.truncate(bytes.len() - 320);
    assert_says(&refusal_of_file(&bytes), &["model.safetensors", "tensor lm_head.weight ends at byte"]);
    bytes.extend([0; 330]);
    assert_says(&refusal_of_file(&bytes), &["model.safetensors holds 10 bytes after its last tensor"]);
}

#[test]
fn offsets_that_run_backwards_or_overflow_are_refused() {
    let text = refusal_of_header(|header| header[NORM]["data_offsets"] = json!([64, 32]));
    assert_says(&text, &["model.safetensors", NORM, "ends before it"]);
    let text = refusal_of_header(|header| header[NORM]["data_offsets"] = json!([0, u64::MAX]));
    assert_says(&text, &["model.safetensors", NORM, "which is not F32 of shape [8]"]);
    let text = refusal_of_header(|header| header[NORM]["shape"] = json!([u64::MAX, 2]));
    assert_says(&text, &["model.safetensors", NORM, "which is not F32"]);
    let text = refusal_of_header(|header| header[NORM]["shape"] = json!([1_u64 << 62]));
    assert_says(&text, &["model.safetensors", NORM, "which is not F32"]);
}

#[test]
fn a_byte_count_that_contradicts_the_shape_is_refused() {
    let text = refusal_of_header(|header| header[NORM]["shape"] = json!([9]));
    assert_says(&text, &["model.safetensors", NORM, "has 32 bytes, which is not F32 of shape [9]"]);
}

#[test]
fn a_wrong_shape_is_refused() {
    let text = refusal_of_header(|header| header["model.layers.1.mlp.up_proj.weight"]["shape"] = json!([8, 12]));
    let tensor = "model.layers.1.mlp.up_proj.weight";
    assert_says(&text, &["model.safetensors", tensor, "has shape [8, 12]; config.json implies [12, 8]"]);
}

#[test]
fn a_missing_tensor_is_refused() {
    let text = refusal_of_tensors(|tensors| tensors.retain(|tensor| tensor.name != NORM));
    assert_says(&text, &["model.safetensors lacks tensor model.norm.weight"]);
}

#[test]
fn an_unexpected_tensor_is_refused() {
    let name = "model.layers.0.self_attn.q_proj.bias";
    let text = refusal_of_tensors(|tensors| tensors.push(stored(name, "F32", &[8])));
    assert_says(&text, &["model.safetensors", name, "not part of the model that config.json describes"]);
}

#[test]
fn weights_that_are_not_finite_are_refused_when_they_are_read() {
    let nan = f32::NAN.to_le_bytes();
    for (dtype, poison, shown) in
        [("F32", &nan[..], "NaN"), ("BF16", &[0x80, 0xff], "-inf"), ("F16", &[0, 0x7c], "inf")]
    {
        let mut tensors = stored_tensors(&tiny_config(false), dtype);
        tensors[0].bytes[3 * poison.len()..][..poison.len()].copy_from_slice(poison);
        let directory = tempfile::tempdir().unwrap();
        write_single(directory.path(), &tiny_config(false), &tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let text = message(&checkpoint.tensor(EMBEDDING).unwrap_err());
        assert_says(&text, &["model.safetensors", EMBEDDING, &format!("holds {shown} at element 3")]);
        assert!(matches!(checkpoint.tensor_f32(EMBEDDING), Err(CheckpointError::NotFinite { element: 3, .. })));
        assert!(checkpoint.tensor(NORM).is_ok());
    }
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    write_single(directory.path(), &tiny_config(false), &stored_tensors(&tiny_config(false), "F32"));
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let file = fs::File::options().write(true).open(directory.path().join("model.safetensors")).unwrap();
    file.set_len(1000).unwrap();
    assert_says(&message(&checkpoint.tensor("lm_head.weight").unwrap_err()), &["is truncated: it has 1000 bytes"]);
}

#[test]
fn a_name_that_is_not_stored_is_an_error() {
    let checkpoint = Checkpoint::open(&parity_fixture("qwen2")).unwrap();
    assert!(!checkpoint.contains("lm_head.weight"));
    let text = message(&checkpoint.tensor("lm_head.weight").unwrap_err());
    assert_says(&text, &["has no tensor lm_head.weight"]);
}

#[test]
fn a_folder_without_weights_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "config.json", tiny_config(false).to_string());
    let text = message(&Checkpoint::open(directory.path()).unwrap_err());
    assert_says(&text, &["holds neither model.safetensors nor"]);
    write(directory.path(), "pytorch_model.bin", "pickled");
    let text = message(&Checkpoint::open(directory.path()).unwrap_err());
    assert_says(&text, &["pickled", "convert them to safetensors"]);
}

fn sharded() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_sharded(directory.path(), &tiny_config(false), &stored_tensors(&tiny_config(false), "BF16"));
    directory
}

fn refusal_of_index(change: impl FnOnce(&mut Value)) -> String {
    let directory = sharded();
    let file = directory.path().join("model.safetensors.index.json");
    let mut index = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut index);
    fs::write(&file, index.to_string()).unwrap();
    message(&Checkpoint::open(directory.path()).unwrap_err())
}

#[test]
fn a_missing_shard_is_refused() {
    let directory = sharded();
    fs::remove_file(directory.path().join("model-00002-of-00002.safetensors")).unwrap();
    let text = message(&Checkpoint::open(directory.path()).unwrap_err());
    assert_says(&text, &["index.json places tensor", "in model-00002-of-00002.safetensors, which does not exist"]);
}

#[test]
fn a_shard_outside_the_folder_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "x.safetensors", safetensors(&stored_tensors(&tiny_config(false), "BF16")));
    let absolute = outside.path().join("x.safetensors").to_string_lossy().into_owned();
    for shard in
        ["../x.safetensors", "a/../../x.safetensors", "..\\x.safetensors", "/etc/passwd", "config.json", "", &absolute]
    {
        let text = refusal_of_index(|index| index["weight_map"][NORM] = json!(shard));
        assert_says(&text, &["index.json places tensor model.norm.weight", "which is not a safetensors file name"]);
    }
}

#[test]
fn an_index_that_disagrees_with_its_files_is_refused() {
    let text = refusal_of_index(|index| index["weight_map"][NORM] = json!("model-00001-of-00002.safetensors"));
    assert_says(
        &text,
        &["places tensor model.norm.weight in model-00001-of-00002.safetensors, which does not hold it"],
    );
    let text = refusal_of_index(|index| {
        index["weight_map"].as_object_mut().unwrap().remove(NORM);
    });
    assert_says(
        &text,
        &["model-00002-of-00002.safetensors holds tensor model.norm.weight, which the index does not mention"],
    );
    let text = refusal_of_index(|index| *index = json!({"weight_map": {}}));
    assert_says(&text, &["holds neither model.safetensors nor"]);
    let text = refusal_of_index(|index| *index = json!({"weights": 1}));
    assert_says(&text, &["index.json is not a valid index", "missing field `weight_map`"]);
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let directory = sharded();
    let tensors = stored_tensors(&tiny_config(false), "BF16");
    let mut first = tensors[..tensors.len() / 2].to_vec();
    first.push(stored(NORM, "BF16", &[8]));
    write(directory.path(), "model-00001-of-00002.safetensors", safetensors(&first));
    let text = message(&Checkpoint::open(directory.path()).unwrap_err());
    assert_says(
        &text,
        &["tensor model.norm.weight is in", "model-00001-of-00002.safetensors and in", "model-00002-of"],
    );
}

/// What `save` writes: everything but files that describe the old weights.
fn travelling(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = contents(directory);
    files.retain(|(name, _)| name != "README.md" && name != "pytorch_model.bin");
    files
}

fn replaced<const N: usize>(tensors: [(&str, Tensor); N]) -> BTreeMap<String, Tensor> {
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

#[test]
fn saving_without_replacements_copies_every_byte() {
    let directory = sharded();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("new/stamped");
    Checkpoint::open(directory.path()).unwrap().save(&target, &BTreeMap::new()).unwrap();
    assert_eq!(contents(&target), travelling(directory.path()));
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing else is left beside it");
    for family in ["llama2-gqa", "qwen3"] {
        let target = out.path().join(family);
        Checkpoint::open(&parity_fixture(family)).unwrap().save(&target, &BTreeMap::new()).unwrap();
        let source = fs::read(parity_fixture(family).join("model.safetensors")).unwrap();
        assert!(fs::read(target.join("model.safetensors")).unwrap() == source);
    }
}

#[test]
fn saving_changes_the_bytes_of_the_replaced_tensor_only() {
    let directory = sharded();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("stamped");
    let values: Vec<f32> = (0..8).map(|index| 1.0 + index as f32 / 1024.0).collect();
    let tensor = Tensor::from_slice(&values, 8, &Device::Cpu).unwrap();
    checkpoint.save(&target, &replaced([(NORM, tensor)])).unwrap();

    let (before, after) = (travelling(directory.path()), contents(&target));
    for ((name, before), (same_name, after)) in before.iter().zip(&after) {
        assert_eq!((name, before.len()), (same_name, after.len()));
        let different = before.iter().zip(after).filter(|(before, after)| before != after).count();
        let limit = if name == "model-00002-of-00002.safetensors" { 1..=16 } else { 0..=0 };
        assert!(limit.contains(&different), "{different} bytes of {name} differ");
    }
    let written = Checkpoint::open(&target).unwrap();
    assert_eq!(written.dtype(), DType::BF16);
    // bf16 has steps of 1/128 above 1: ties go to the even neighbour.
    let expected: Vec<f32> = [0, 0, 0, 0, 0, 1, 1, 1].iter().map(|&step| 1.0 + step as f32 / 128.0).collect();
    assert_eq!(floats(&written.tensor(NORM).unwrap()), expected);
}

#[test]
fn a_shard_with_the_name_of_a_licence_is_saved_as_a_shard() {
    let directory = sharded();
    let (old, new) = ("model-00002-of-00002.safetensors", "license-00002-of-00002.safetensors");
    fs::rename(directory.path().join(old), directory.path().join(new)).unwrap();
    let index = directory.path().join("model.safetensors.index.json");
    fs::write(&index, fs::read_to_string(&index).unwrap().replace(old, new)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("stamped");
    let ones = Tensor::ones(8, DType::F32, &Device::Cpu).unwrap();
    Checkpoint::open(directory.path()).unwrap().save(&target, &replaced([(NORM, ones)])).unwrap();
    assert_eq!(floats(&Checkpoint::open(&target).unwrap().tensor(NORM).unwrap()), [1.0; 8]);
    assert_eq!(fs::read_to_string(target.join("LICENSE.txt")).unwrap(), "terms");
}

#[test]
fn a_leftover_index_beside_a_single_file_is_not_saved() {
    let directory = tempfile::tempdir().unwrap();
    write_single(directory.path(), &tiny_config(false), &stored_tensors(&tiny_config(false), "F32"));
    write(directory.path(), "model.safetensors.index.json", "{}");
    let target = directory.path().join("out");
    Checkpoint::open(directory.path()).unwrap().save(&target, &BTreeMap::new()).unwrap();
    let names: Vec<_> = contents(&target).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
}

#[test]
fn values_are_rounded_to_nearest_even() {
    let cases = [
        ("BF16", 1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
        ("BF16", 1.0 + 1.0 / 256.0, 1.0),
        ("BF16", f32::from_bits(0x3f80_8001), 1.0 + 1.0 / 128.0),
        ("BF16", -(1.0 + 1.0 / 256.0), -1.0),
        ("F16", 1.0 + 3.0 / 2048.0, 1.0 + 2.0 / 1024.0),
        ("F16", 1.0 + 1.0 / 2048.0, 1.0),
        ("F16", 65504.0, 65504.0),
        ("F32", 1.0 + f32::EPSILON, 1.0 + f32::EPSILON),
    ];
    for (dtype, value, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        write_single(directory.path(), &tiny_config(false), &stored_tensors(&tiny_config(false), dtype));
        let tensor = Tensor::full(value, 8, &Device::Cpu).unwrap();
        let target = directory.path().join("out");
        Checkpoint::open(directory.path()).unwrap().save(&target, &replaced([(NORM, tensor)])).unwrap();
        assert_eq!(floats(&Checkpoint::open(&target).unwrap().tensor(NORM).unwrap()), [expected; 8], "{dtype} {value}");
    }
}

#[test]
fn tied_embeddings_stay_tied() {
    let config = tiny_config(true);
    let mut tensors = stored_tensors(&config, "F32");
    let mut redundant = tensors[0].clone();
    redundant.name = "lm_head.weight".to_owned();
    for extra in [None, Some(redundant.clone())] {
        let stored_twice = extra.is_some();
        tensors.extend(extra);
        let directory = tempfile::tempdir().unwrap();
        write_single(directory.path(), &config, &tensors);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let target = directory.path().join("out");
        let ones = Tensor::ones((10, 8), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(
            checkpoint.save(&target, &replaced([("lm_head.weight", ones.clone())])),
            Err(CheckpointError::ReplacedTie)
        ));
        checkpoint.save(&target, &replaced([(EMBEDDING, ones)])).unwrap();
        let written = Checkpoint::open(&target).unwrap();
        assert!(written.config().tie_word_embeddings);
        assert_eq!(written.contains("lm_head.weight"), stored_twice);
        if stored_twice {
            assert_eq!(floats(&written.tensor("lm_head.weight").unwrap()), [1.0; 80]);
        }
    }
    let last = tensors.last_mut().unwrap();
    last.bytes[0] ^= 1;
    let directory = tempfile::tempdir().unwrap();
    write_single(directory.path(), &config, &tensors);
    let text = message(&Checkpoint::open(directory.path()).unwrap_err());
    assert_says(&text, &["model.safetensors", "lm_head.weight differs from model.embed_tokens.weight"]);
}

#[test]
fn a_replacement_that_cannot_be_stored_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    write_single(directory.path(), &tiny_config(false), &stored_tensors(&tiny_config(false), "F16"));
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("stamped");
    let save = |name, tensor: Tensor| message(&checkpoint.save(&target, &replaced([(name, tensor)])).unwrap_err());
    let full = |value: f32, size: usize| Tensor::full(value, size, &Device::Cpu).unwrap();
    assert_says(&save("model.norm", full(1.0, 8)), &["has no tensor model.norm"]);
    assert_says(&save(NORM, full(1.0, 9)), &[NORM, "has shape [9]; the checkpoint has [8]"]);
    assert_says(&save(NORM, full(f32::NAN, 8)), &[NORM, "holds NaN at element 0"]);
    assert_says(&save(NORM, full(65520.0, 8)), &[NORM, "holds 65520 at element 0, which F16 cannot store"]);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn an_occupied_target_is_refused_and_untouched() {
    let directory = sharded();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let before = contents(directory.path());
    let text = message(&checkpoint.save(directory.path(), &BTreeMap::new()).unwrap_err());
    assert_says(&text, &["already exists and is not an empty folder"]);
    assert!(contents(directory.path()) == before);
    let out = tempfile::tempdir().unwrap();
    write(out.path(), "file", "x");
    let error = checkpoint.save(&out.path().join("file"), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, CheckpointError::OutputExists { .. }));
    fs::create_dir(out.path().join("empty")).unwrap();
    checkpoint.save(&out.path().join("empty"), &BTreeMap::new()).unwrap();
    assert!(Checkpoint::open(&out.path().join("empty")).is_ok());
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_an_occupied_target() {
    let directory = sharded();
    let out = tempfile::tempdir().unwrap();
    let link = out.path().join("link");
    std::os::unix::fs::symlink(out.path().join("absent"), &link).unwrap();
    let error = Checkpoint::open(directory.path()).unwrap().save(&link, &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, CheckpointError::OutputExists { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn saving_reads_through_links_and_writes_ordinary_files() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = sharded();
    let links = tempfile::tempdir().unwrap();
    for (name, _) in contents(directory.path()) {
        let path = directory.path().join(&name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        symlink(&path, links.path().join(&name)).unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("stamped");
    Checkpoint::open(links.path()).unwrap().save(&target, &BTreeMap::new()).unwrap();
    assert_eq!(contents(&target), travelling(directory.path()));
    for entry in fs::read_dir(&target).unwrap() {
        let metadata = fs::symlink_metadata(entry.unwrap().path()).unwrap();
        assert!(metadata.is_file() && metadata.permissions().mode() & 0o200 != 0);
    }
    assert_ne!(fs::metadata(&target).unwrap().permissions().mode() & 0o050, 0, "others may read the result");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any change of the header is refused or harmless; it never panics and never makes a tensor larger than its file.
    #[test]
    fn a_mutated_header_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        digits in any::<bool>(),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = safetensors(&stored_tensors(&tiny_config(false), "BF16"));
        let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (place, value) in changes {
            // Digits keep the JSON valid and move offsets and shapes; other bytes mostly break it.
            let is_place = |&at: &usize| !digits || (at >= 8 && bytes[at].is_ascii_digit());
            let places: Vec<usize> = (0..header_end).filter(is_place).collect();
            bytes[places[place.index(places.len())]] = if digits { b'0' + value % 10 } else { value };
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "config.json", tiny_config(false).to_string());
        write(directory.path(), "model.safetensors", &bytes);
        match Checkpoint::open(directory.path()) {
            Ok(checkpoint) => {
                for name in checkpoint.names() {
                    let tensor = checkpoint.tensor(name).unwrap();
                    prop_assert!(tensor.elem_count() * 2 <= bytes.len());
                }
            }
            Err(error) => prop_assert!(message(&error).contains("model.safetensors")),
        }
    }

    /// The same for a file of arbitrary bytes behind a plausible size.
    #[test]
    fn arbitrary_bytes_never_panic(size in 0_u64..64, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "config.json", tiny_config(false).to_string());
        write(directory.path(), "model.safetensors", [&size.to_le_bytes(), bytes.as_slice()].concat());
        prop_assert!(Checkpoint::open(directory.path()).is_err());
    }
}
