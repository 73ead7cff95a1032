//! From the text of `config.json` to a checked [`Config`].

use std::path::Path;

use candle_core::DType;
use serde::Deserialize;
use serde_json::Value;

use super::{Architecture, Config, ConfigError, Rope, RopeScaling};

const SUPPORTED: &str = "use a Llama, Mistral, Qwen2, Qwen3 or SmolLM2 model";

/// Far above any model in existence; below these sizes no product of two of them overflows.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 4096;

/// The keys that are read, in either spelling. Unknown keys are ignored, as in transformers.
#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    /// Absent and null differ: absent takes the class's default.
    #[serde(default, deserialize_with = "present")]
    num_key_value_heads: Option<Option<usize>>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    pad_token_id: Option<Value>,
    dtype: Option<String>,
    torch_dtype: Option<String>,
    quantization_config: Option<Value>,
}

/// `rope_scaling` of transformers 4 or `rope_parameters` of transformers 5.
#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// Oldest spelling of `rope_type`.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
    /// Parameters for each type of layer, in families that are not implemented.
    full_attention: Option<Value>,
    sliding_attention: Option<Value>,
}

#[derive(Deserialize)]
struct RawGeneration {
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    pad_token_id: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Names the file in every error.
struct Source<'a> {
    file: &'a Path,
}

impl Source<'_> {
    fn json<'de, T: Deserialize<'de>>(&self, text: &'de [u8]) -> Result<T, ConfigError> {
        serde_json::from_slice(text).map_err(|source| ConfigError::Json { file: self.file.to_owned(), source })
    }

    fn invalid(&self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { file: self.file.to_owned(), key, problem: problem.into() }
    }

    fn unsupported(&self, what: impl Into<String>, instead: &'static str) -> ConfigError {
        ConfigError::Unsupported { file: self.file.to_owned(), what: what.into(), instead }
    }

    fn size(&self, key: &'static str, value: Option<usize>) -> Result<usize, ConfigError> {
        let value = value.ok_or_else(|| ConfigError::MissingKey { file: self.file.to_owned(), key })?;
        self.bounded(key, value, MAX_SIZE)
    }

    fn bounded(&self, key: &'static str, value: usize, most: usize) -> Result<usize, ConfigError> {
        if value == 0 || value > most {
            return Err(self.invalid(key, format!("is {value}; it must lie between 1 and {most}")));
        }
        Ok(value)
    }

    fn positive(&self, key: &'static str, value: f64) -> Result<f64, ConfigError> {
        if !(value.is_finite() && value > 0.0) {
            return Err(self.invalid(key, format!("is {value}; it must be a positive number")));
        }
        Ok(value)
    }

    /// Token ids may be absent, one number or a list; some old configurations write -1 for "none".
    fn token_ids(&self, key: &'static str, value: Option<&Value>) -> Result<Vec<u32>, ConfigError> {
        let values = match value {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values {
            match value.as_i64() {
                Some(number) if number < 0 => {}
                Some(number) => ids.push(
                    u32::try_from(number)
                        .map_err(|_| self.invalid(key, format!("names token {number}, which is no token id")))?,
                ),
                None => return Err(self.invalid(key, format!("holds {value}, which is no token id"))),
            }
        }
        Ok(ids)
    }
}

pub(super) fn config(file: &Path, text: &[u8], generation: Option<(&Path, &[u8])>) -> Result<Config, ConfigError> {
    let source = Source { file };
    let raw: RawConfig = source.json(text)?;
    let architecture = architecture(&source, &raw)?;
    refuse_unsupported(&source, &raw)?;

    let hidden_size = source.size("hidden_size", raw.hidden_size)?;
    let layers = source.size("num_hidden_layers", raw.num_hidden_layers)?;
    let layers = source.bounded("num_hidden_layers", layers, MAX_LAYERS)?;
    let heads = source.size("num_attention_heads", raw.num_attention_heads)?;
    let (kv_heads, head_dim) = heads_of(&source, &raw, architecture, hidden_size, heads)?;
    let mut tokens = TokenIds {
        bos: source.token_ids("bos_token_id", raw.bos_token_id.as_ref())?,
        eos: source.token_ids("eos_token_id", raw.eos_token_id.as_ref())?,
        pad: source.token_ids("pad_token_id", raw.pad_token_id.as_ref())?,
    };
    if let Some((file, text)) = generation {
        tokens.add_generation(&Source { file }, text)?;
    }
    let declared_bias = raw.attention_bias.unwrap_or(false);
    Ok(Config {
        architecture,
        vocab_size: source.size("vocab_size", raw.vocab_size)?,
        hidden_size,
        intermediate_size: source.size("intermediate_size", raw.intermediate_size)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        rms_norm_eps: norm_epsilon(&source, &raw)?,
        rope: rope(&source, &raw)?,
        max_positions: max_positions(&source, &raw, architecture)?,
        // The class default is false in all four families, though the base class says true.
        tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
        attention_bias: match architecture {
            Architecture::Qwen2 => true,
            Architecture::Mistral => false,
            Architecture::Llama | Architecture::Qwen3 => declared_bias,
        },
        output_bias: matches!(architecture, Architecture::Llama | Architecture::Qwen3) && declared_bias,
        mlp_bias: architecture == Architecture::Llama && raw.mlp_bias.unwrap_or(false),
        qk_norm: architecture == Architecture::Qwen3,
        sliding_window: sliding_window(&source, &raw, architecture, layers)?,
        bos_token_id: tokens.bos.first().copied(),
        eos_token_ids: tokens.eos,
        pad_token_id: tokens.pad.first().copied(),
        dtype: dtype(&source, &raw)?,
    })
}

fn architecture(source: &Source<'_>, raw: &RawConfig) -> Result<Architecture, ConfigError> {
    const FAMILIES: [(&str, &str, Architecture); 4] = [
        ("llama", "LlamaForCausalLM", Architecture::Llama),
        ("mistral", "MistralForCausalLM", Architecture::Mistral),
        ("qwen2", "Qwen2ForCausalLM", Architecture::Qwen2),
        ("qwen3", "Qwen3ForCausalLM", Architecture::Qwen3),
    ];
    let class = raw.architectures.as_ref().and_then(|classes| classes.first());
    let (_, expected_class, family) = match (&raw.model_type, class) {
        (Some(kind), _) => FAMILIES
            .iter()
            .find(|(name, ..)| name == kind)
            .ok_or_else(|| source.unsupported(format!("model type {kind:?}"), SUPPORTED))?,
        (None, Some(class)) => FAMILIES
            .iter()
            .find(|(_, name, _)| name == class)
            .ok_or_else(|| source.unsupported(format!("architecture {class:?}"), SUPPORTED))?,
        (None, None) => {
            return Err(ConfigError::MissingKey { file: source.file.to_owned(), key: "model_type" });
        }
    };
    match class {
        Some(class) if class != expected_class => Err(source
            .unsupported(format!("architecture {class:?}"), "only causal language models (…ForCausalLM) can answer")),
        _ => Ok(*family),
    }
}

fn refuse_unsupported(source: &Source<'_>, raw: &RawConfig) -> Result<(), ConfigError> {
    if let Some(activation) = raw.hidden_act.as_deref().filter(|&name| name != "silu" && name != "swish") {
        return Err(source.unsupported(format!("hidden_act {activation:?}"), "only \"silu\" is implemented"));
    }
    if raw.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
        return Err(source.unsupported(
            "a model with quantised weights",
            "use the original f32, f16 or bf16 weights, or import a GGUF with `hallmark model import`",
        ));
    }
    if raw
        .rope_parameters
        .as_ref()
        .is_some_and(|rope| rope.full_attention.is_some() || rope.sliding_attention.is_some())
    {
        return Err(source.unsupported(
            "rope_parameters for each type of layer",
            "only one set of rotary positions for all layers is implemented",
        ));
    }
    let partial = [
        raw.partial_rotary_factor,
        raw.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor),
        raw.rope_scaling.as_ref().and_then(|rope| rope.partial_rotary_factor),
    ];
    if let Some(factor) = partial.into_iter().flatten().find(|&factor| factor != 1.0) {
        return Err(source.unsupported(
            format!("partial_rotary_factor {factor}"),
            "only rotary positions over the whole head are implemented",
        ));
    }
    Ok(())
}

/// Number of key and value heads, and the width of a head.
fn heads_of(
    source: &Source<'_>,
    raw: &RawConfig,
    architecture: Architecture,
    hidden_size: usize,
    heads: usize,
) -> Result<(usize, usize), ConfigError> {
    let kv_heads = match raw.num_key_value_heads {
        Some(Some(number)) => number,
        Some(None) => heads,
        // The other families default to a number that fits one published model only.
        None if architecture == Architecture::Llama => heads,
        None => source.size("num_key_value_heads", None)?,
    };
    let kv_heads = source.size("num_key_value_heads", Some(kv_heads))?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(source.invalid(
            "num_key_value_heads",
            format!("is {kv_heads}, which does not divide num_attention_heads, {heads}"),
        ));
    }
    let head_dim = match raw.head_dim {
        Some(width) => width,
        None if architecture == Architecture::Qwen3 => 128,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(source.invalid(
                "hidden_size",
                format!("is {hidden_size}, which num_attention_heads, {heads}, does not divide"),
            ));
        }
    };
    let head_dim = source.size("head_dim", Some(head_dim))?;
    if !head_dim.is_multiple_of(2) {
        return Err(source.invalid("head_dim", format!("is {head_dim}; rotary positions need an even width")));
    }
    if heads * head_dim > MAX_SIZE {
        return Err(source.invalid("head_dim", format!("times {heads} heads is more than {MAX_SIZE}")));
    }
    Ok((kv_heads, head_dim))
}

fn norm_epsilon(source: &Source<'_>, raw: &RawConfig) -> Result<f32, ConfigError> {
    let epsilon = source.positive("rms_norm_eps", raw.rms_norm_eps.unwrap_or(1e-6))?;
    // Rounded to the precision in which the norm is computed; too small a value would become zero.
    let rounded = epsilon as f32;
    source.positive("rms_norm_eps", rounded.into())?;
    Ok(rounded)
}

fn max_positions(source: &Source<'_>, raw: &RawConfig, architecture: Architecture) -> Result<usize, ConfigError> {
    let default = match architecture {
        Architecture::Llama => 2048,
        Architecture::Mistral => 4096 * 32,
        Architecture::Qwen2 | Architecture::Qwen3 => 32_768,
    };
    source.size("max_position_embeddings", Some(raw.max_position_embeddings.unwrap_or(default)))
}

fn rope(source: &Source<'_>, raw: &RawConfig) -> Result<Rope, ConfigError> {
    // transformers 5 moved both into `rope_parameters`, which wins where both are written.
    let parameters = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    let theta = parameters.and_then(|rope| rope.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0);
    let theta = source.positive("rope_theta", theta)?;
    let Some(parameters) = parameters else { return Ok(Rope { theta, scaling: RopeScaling::None }) };

    let kind = parameters.rope_type.as_deref().or(parameters.old_type.as_deref()).unwrap_or("default");
    let number = |key: &'static str, value: Option<f64>| {
        let value = value.ok_or_else(|| source.invalid(key, format!("is absent; rope type {kind:?} needs it")))?;
        source.positive(key, value)
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: at_least_one(source, number("factor", parameters.factor)?)? },
        "llama3" => {
            let low_frequency_factor = number("low_freq_factor", parameters.low_freq_factor)?;
            let high_frequency_factor = number("high_freq_factor", parameters.high_freq_factor)?;
            if high_frequency_factor <= low_frequency_factor {
                return Err(source.invalid(
                    "high_freq_factor",
                    format!("is {high_frequency_factor}; it must exceed low_freq_factor, {low_frequency_factor}"),
                ));
            }
            RopeScaling::Llama3 {
                factor: at_least_one(source, number("factor", parameters.factor)?)?,
                low_frequency_factor,
                high_frequency_factor,
                original_max_positions: source.size(
                    "original_max_position_embeddings",
                    parameters.original_max_position_embeddings.or(raw.max_position_embeddings),
                )?,
            }
        }
        other => {
            return Err(source.unsupported(
                format!("rope type {other:?}"),
                "\"default\", \"linear\" and \"llama3\" are implemented",
            ));
        }
    };
    Ok(Rope { theta, scaling })
}

fn at_least_one(source: &Source<'_>, factor: f64) -> Result<f64, ConfigError> {
    if factor < 1.0 {
        return Err(source.invalid("factor", format!("is {factor}; it must be at least 1")));
    }
    Ok(factor)
}

fn sliding_window(
    source: &Source<'_>,
    raw: &RawConfig,
    architecture: Architecture,
    layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let window = || source.size("sliding_window", raw.sliding_window.unwrap_or(Some(4096)));
    match architecture {
        Architecture::Llama => Ok(vec![None; layers]),
        Architecture::Mistral => match raw.sliding_window {
            Some(None) => Ok(vec![None; layers]),
            // An absent key means 4096 in transformers' class.
            Some(Some(_)) | None => Ok(vec![Some(window()?); layers]),
        },
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let used = raw.use_sliding_window.unwrap_or(false) && raw.sliding_window != Some(None);
            let Some(types) = &raw.layer_types else {
                let first = raw.max_window_layers.unwrap_or(28);
                return (0..layers)
                    .map(|layer| if used && layer >= first { window().map(Some) } else { Ok(None) })
                    .collect();
            };
            if types.len() != layers {
                return Err(source.invalid("layer_types", format!("has {} entries for {layers} layers", types.len())));
            }
            types
                .iter()
                .map(|kind| match kind.as_str() {
                    "full_attention" => Ok(None),
                    "sliding_attention" if used => window().map(Some),
                    "sliding_attention" => {
                        Err(source.invalid("layer_types", "names sliding_attention, but sliding_window is not in use"))
                    }
                    other => Err(source.unsupported(
                        format!("layer type {other:?}"),
                        "\"full_attention\" and \"sliding_attention\" are implemented",
                    )),
                })
                .collect()
        }
    }
}

fn dtype(source: &Source<'_>, raw: &RawConfig) -> Result<Option<DType>, ConfigError> {
    let Some(name) = raw.dtype.as_deref().or(raw.torch_dtype.as_deref()) else { return Ok(None) };
    match name.strip_prefix("torch.").unwrap_or(name) {
        "float32" => Ok(Some(DType::F32)),
        "float16" => Ok(Some(DType::F16)),
        "bfloat16" => Ok(Some(DType::BF16)),
        "auto" => Ok(None),
        other => Err(source.unsupported(format!("dtype {other:?}"), "float32, float16 and bfloat16 are implemented")),
    }
}

struct TokenIds {
    bos: Vec<u32>,
    eos: Vec<u32>,
    pad: Vec<u32>,
}

impl TokenIds {
    fn add_generation(&mut self, source: &Source<'_>, text: &[u8]) -> Result<(), ConfigError> {
        let raw: RawGeneration = source.json(text)?;
        let read = |key, value: &Option<Value>| source.token_ids(key, value.as_ref());
        let mut eos = read("eos_token_id", &raw.eos_token_id)?;
        for id in std::mem::take(&mut self.eos) {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
        self.eos = eos;
        if self.bos.is_empty() {
            self.bos = read("bos_token_id", &raw.bos_token_id)?;
        }
        if self.pad.is_empty() {
            self.pad = read("pad_token_id", &raw.pad_token_id)?;
        }
        Ok(())
    }
}
