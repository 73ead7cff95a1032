//! What a decoder looks like: `config.json` and `generation_config.json` of a Hugging Face folder.
//!
//! Both spellings are read: transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and transformers 5
//! (`rope_parameters`, `dtype`). Defaults for absent keys are those of the configuration classes in transformers
//! (`models/{llama,mistral,qwen2,qwen3}/configuration_*.py`). Anything that would change the result and is not
//! implemented is refused here, so that no model runs with silently wrong mathematics.

mod parse;

use std::{
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use candle_core::DType;
use thiserror::Error;

/// Configuration files are small; anything larger is not one.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The decoder families that are implemented. All are pre-norm decoders with rotary positions, grouped-query
/// attention and a gated SiLU feed-forward layer; the differences are fields of [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1, 2, 3, and SmolLM2 which uses the same class.
    Llama,
    /// Mistral: Llama with a sliding window over the keys.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMS norm on every query and key head before the rotation.
    Qwen3,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        })
    }
}

/// Rotary position embedding: base and scaling of its frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are changed for long contexts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are changed (transformers, `modeling_rope_utils.py`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1 and later: low frequencies divided by `factor`, high ones kept, those between interpolated.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Wavelengths longer than `original_max_positions / low_frequency_factor` are scaled in full.
        low_frequency_factor: f64,
        /// Wavelengths shorter than `original_max_positions / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// Context length of the pre-training, in tokens.
        original_max_positions: usize,
    },
}

/// The shape of a decoder and what its forward pass needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family; everything that differs in the forward pass is also spelled out in the fields below.
    pub architecture: Architecture,
    /// Rows of the embedding, which may exceed the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even, and not necessarily `hidden_size / heads`.
    pub head_dim: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f32,
    /// Rotary positions, over the whole head.
    pub rope: Rope,
    /// Longest sequence, in tokens, that the model was made for.
    pub max_positions: usize,
    /// The output projection is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The query, key and value projections have biases.
    pub attention_bias: bool,
    /// The attention's output projection has a bias.
    pub output_bias: bool,
    /// The three feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Every query and key head is RMS-normalised before the rotation (`q_norm`, `k_norm`).
    pub qk_norm: bool,
    /// One entry per block. With `Some(w)` position `i` sees positions `j` with `i - w < j <= i`; with `None` all `j <= i`.
    pub sliding_window: Vec<Option<usize>>,
    /// First token of a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text: those of `generation_config.json` first, then those that only `config.json` names.
    pub eos_token_ids: Vec<u32>,
    /// Padding token, if one is named.
    pub pad_token_id: Option<u32>,
    /// What `config.json` says about the weights' type; the files themselves decide ([`crate::Checkpoint::dtype`]).
    pub dtype: Option<DType>,
}

/// A tensor that a model of some configuration has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Hugging Face name.
    pub name: String,
    /// Row-major shape; projections are (out, in).
    pub shape: Vec<usize>,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be opened or read.
    #[error("failed to read {}", file.display())]
    Read {
        /// File that was to be read.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is no such file.
    #[error("{} does not exist; a model folder holds config.json, tokenizer.json and safetensors files", file.display())]
    Missing {
        /// File that was looked for.
        file: PathBuf,
    },
    /// The file is too large to be a configuration.
    #[error("{} is larger than {MAX_CONFIG_BYTES} bytes and cannot be a configuration", file.display())]
    TooLarge {
        /// File that was to be read.
        file: PathBuf,
    },
    /// The file is not the JSON that it should be.
    #[error("{} is not a valid configuration", file.display())]
    Json {
        /// File that was read.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A value that is needed is absent.
    #[error("{} has no {key}", file.display())]
    MissingKey {
        /// File that was read.
        file: PathBuf,
        /// Key that is absent.
        key: &'static str,
    },
    /// A value contradicts another or lies outside what is possible.
    #[error("{}: {key} {problem}", file.display())]
    Invalid {
        /// File that was read.
        file: PathBuf,
        /// Key with the value.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A valid model that is not implemented.
    #[error("{}: {what} is not supported; {instead}", file.display())]
    Unsupported {
        /// File that was read.
        file: PathBuf,
        /// What the model would need.
        what: String,
        /// What would work.
        instead: &'static str,
    },
}

impl Config {
    /// Reads `config.json`, and `generation_config.json` if there is one, from a model folder.
    ///
    /// # Errors
    /// When a file is absent, is not JSON, contradicts itself or describes a model that is not implemented.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let file = directory.join("config.json");
        let config = read(&file)?;
        let generation_file = directory.join("generation_config.json");
        let generation = match read(&generation_file) {
            Ok(text) => Some((generation_file.as_path(), text)),
            Err(ConfigError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let generation = generation.as_ref().map(|(file, text)| (*file, text.as_slice()));
        parse::config(&file, &config, generation)
    }

    /// Parses the text of a `config.json` alone.
    ///
    /// # Errors
    /// As [`Config::load`]; the errors name the file `config.json`.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        parse::config(Path::new("config.json"), text, None)
    }

    /// Width of all query heads together, `heads * head_dim`.
    pub fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, `kv_heads * head_dim`; the value heads are as wide.
    pub fn key_value_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Every tensor that a checkpoint of this configuration holds, by its Hugging Face name, in the order of the
    /// forward pass. With tied embeddings `lm_head.weight` is not among them.
    pub fn expected_tensors(&self) -> Vec<ExpectedTensor> {
        let mut tensors = vec![expected("model.embed_tokens.weight", &[self.vocab_size, self.hidden_size])];
        for layer in 0..self.layers {
            self.push_block(&mut tensors, &format!("model.layers.{layer}"));
        }
        tensors.push(expected("model.norm.weight", &[self.hidden_size]));
        if !self.tie_word_embeddings {
            tensors.push(expected("lm_head.weight", &[self.vocab_size, self.hidden_size]));
        }
        tensors
    }

    /// Trainable parameters of the whole model; a tied output projection counts once.
    pub fn parameter_count(&self) -> u64 {
        // `Config` is only made by `parse`, which bounds every size so that this sum fits.
        self.expected_tensors().iter().map(|tensor| tensor.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    }

    fn push_block(&self, tensors: &mut Vec<ExpectedTensor>, block: &str) {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let (query, key_value) = (self.query_size(), self.key_value_size());
        let mut push = |name: &str, shape: &[usize]| tensors.push(expected(&format!("{block}.{name}"), shape));
        push("input_layernorm.weight", &[hidden]);
        for (name, width) in [("q_proj", query), ("k_proj", key_value), ("v_proj", key_value)] {
            push(&format!("self_attn.{name}.weight"), &[width, hidden]);
            if self.attention_bias {
                push(&format!("self_attn.{name}.bias"), &[width]);
            }
        }
        if self.qk_norm {
            push("self_attn.q_norm.weight", &[self.head_dim]);
            push("self_attn.k_norm.weight", &[self.head_dim]);
        }
        push("self_attn.o_proj.weight", &[hidden, query]);
        if self.output_bias {
            push("self_attn.o_proj.bias", &[hidden]);
        }
        push("post_attention_layernorm.weight", &[hidden]);
        for (name, rows, columns) in [
            ("gate_proj", intermediate, hidden),
            ("up_proj", intermediate, hidden),
            ("down_proj", hidden, intermediate),
        ] {
            push(&format!("mlp.{name}.weight"), &[rows, columns]);
            if self.mlp_bias {
                push(&format!("mlp.{name}.bias"), &[rows]);
            }
        }
    }
}

fn expected(name: &str, shape: &[usize]) -> ExpectedTensor {
    ExpectedTensor { name: name.to_owned(), shape: shape.to_vec() }
}

/// Whole file, bounded, so that a wrong path cannot fill the memory.
fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { file: file.to_owned() },
        _ => ConfigError::Read { file: file.to_owned(), source },
    };
    let mut text = Vec::new();
    fs::File::open(file).map_err(failed)?.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { file: file.to_owned() });
    }
    Ok(text)
}
