//! Small model folders, written byte by byte so that tests can break them in one place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::Config;
use serde_json::{Map, Value, json};

/// A checkpoint of one of the five families, with what transformers says about it.
pub(crate) fn parity_fixture(family: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity")).join(family)
}

/// A Llama of 2 blocks and a few hundred parameters.
pub(crate) fn tiny_config(tied: bool) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 10,
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"
    })
}

/// One tensor as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Values that differ from element to element and from tensor to tensor.
pub(crate) fn stored(name: &str, dtype: &'static str, shape: &[usize]) -> StoredTensor {
    let seed = name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let values = (0..shape.iter().product::<usize>() as u32).map(|index| {
        let mixed = seed.wrapping_add(index).wrapping_mul(2_654_435_761) >> 8;
        mixed as f32 / (1 << 23) as f32 - 1.0
    });
    let bytes = match dtype {
        "F32" => values.flat_map(f32::to_le_bytes).collect(),
        "BF16" => values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        "F16" => values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect(),
        other => panic!("no values for {other}"),
    };
    StoredTensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

/// All tensors of a configuration.
pub(crate) fn stored_tensors(config: &Value, dtype: &'static str) -> Vec<StoredTensor> {
    let config = Config::from_json(config.to_string().as_bytes()).unwrap();
    config.expected_tensors().iter().map(|tensor| stored(&tensor.name, dtype, &tensor.shape)).collect()
}

/// The header of a file with these tensors, one after the other.
pub(crate) fn header(tensors: &[StoredTensor]) -> Map<String, Value> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt", "made by": "a test"}));
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes.len();
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    header
}

/// A safetensors file from its parts.
pub(crate) fn file_bytes(header: &Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let mut header = serde_json::to_vec(header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
}

pub(crate) fn safetensors(tensors: &[StoredTensor]) -> Vec<u8> {
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.bytes.clone()).collect();
    file_bytes(&header(tensors), &data)
}

pub(crate) fn write(directory: &Path, name: &str, contents: impl AsRef<[u8]>) {
    fs::write(directory.join(name), contents).unwrap();
}

/// A folder with one weight file.
pub(crate) fn write_single(directory: &Path, config: &Value, tensors: &[StoredTensor]) {
    write(directory, "config.json", config.to_string());
    write(directory, "model.safetensors", safetensors(tensors));
}

/// A folder with two weight files and an index, and the files that travel with the weights.
pub(crate) fn write_sharded(directory: &Path, config: &Value, tensors: &[StoredTensor]) {
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut weight_map = Map::new();
    for (number, shard) in [(1, first), (2, second)] {
        let name = format!("model-0000{number}-of-00002.safetensors");
        write(directory, &name, safetensors(shard));
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    write(directory, "model.safetensors.index.json", index.to_string());
    write(directory, "config.json", config.to_string());
    for name in ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        write(directory, name, format!("{{\"eos_token_id\": 2, \"file\": \"{name}\"}}"));
    }
    write(directory, "chat_template.jinja", "{{ messages }}");
    write(directory, "LICENSE.txt", "terms");
    write(directory, "README.md", "about another model");
    write(directory, "pytorch_model.bin", "pickled");
}

/// Name and contents of every file of a folder, by name.
pub(crate) fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// An error and everything beneath it, as a user reads it.
pub(crate) fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
