//! From GGUF's keys and tensor names to Hugging Face's.

use serde_json::{Map, Value, json};

use super::{
    error::{GgufError, bad_tensor, bad_value},
    reader::{Header, Metadata, TensorInfo, Value as Stored},
};

/// Frequency factors that llama.cpp precomputes from Llama 3's rope scaling.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Families whose metadata and tensors are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Llama and Mistral.
    Llama,
    Qwen2,
    Qwen3,
}

impl Family {
    pub(super) fn of(metadata: &Metadata) -> Result<Self, GgufError> {
        match metadata.string("general.architecture")? {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            other => Err(GgufError::Architecture { found: other.to_owned() }),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// `config.json`. `rope_scaling` is what [`rope_factors_scaling`] found, `dtype` the type that is written.
pub(super) fn config(
    family: Family,
    header: &Header,
    rope_scaling: Option<Value>,
    dtype: &str,
) -> Result<Map<String, Value>, GgufError> {
    let metadata = &header.metadata;
    let keys = Keys { family: family.name(), metadata };
    for unsupported in ["expert_count", "expert_used_count"] {
        if keys.unsigned_if_present(unsupported)?.is_some_and(|count| count > 0) {
            return Err(bad_value(
                keys.key(unsupported),
                "says that this is a mixture of experts, which is not supported",
            ));
        }
    }
    let hidden = keys.unsigned("embedding_length")?;
    let heads = keys.uniform("attention.head_count")?;
    let kv_heads = keys.uniform_if_present("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = match keys.unsigned_if_present("attention.key_length")? {
        Some(width) => width,
        None => hidden.checked_div(heads).ok_or_else(|| bad_value(keys.key("attention.head_count"), "is zero"))?,
    };
    for same in ["attention.value_length", "rope.dimension_count"] {
        if let Some(width) = keys.unsigned_if_present(same)?.filter(|width| *width != head_dim) {
            return Err(bad_value(
                keys.key(same),
                format!("is {width}; only the width of a head, {head_dim}, is supported"),
            ));
        }
    }
    let epsilon = keys.number("attention.layer_norm_rms_epsilon")?;
    let embedding = header
        .tensors
        .get("token_embd.weight")
        .ok_or_else(|| GgufError::MissingTensor { tensor: "token_embd.weight".to_owned() })?;

    let mut config = json!({
        "architectures": [family.class()], "model_type": family.name(), "torch_dtype": dtype, "hidden_act": "silu",
        "vocab_size": embedding.shape.first(), "hidden_size": hidden,
        "intermediate_size": keys.uniform("feed_forward_length")?, "num_hidden_layers": keys.unsigned("block_count")?,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "max_position_embeddings": keys.unsigned("context_length")?,
        "rope_theta": keys.number_if_present("rope.freq_base")?.unwrap_or(10_000.0),
        "rope_scaling": rope_scaling.or(keys.rope_scaling()?), "rms_norm_eps": epsilon,
        "tie_word_embeddings": !header.tensors.contains_key("output.weight"), "attention_dropout": 0.0, "use_cache": true,
    });
    if family == Family::Qwen2 {
        config["use_sliding_window"] = json!(false);
    } else {
        config["attention_bias"] = json!(header.tensors.contains_key("blk.0.attn_q.bias"));
    }
    if family == Family::Llama {
        config["mlp_bias"] = json!(header.tensors.contains_key("blk.0.ffn_gate.bias"));
    }
    match config {
        Value::Object(config) => Ok(config),
        _ => Ok(Map::new()),
    }
}

/// Keys that begin with the architecture's name.
struct Keys<'a> {
    family: &'static str,
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family)
    }

    fn unsigned(&self, name: &str) -> Result<u64, GgufError> {
        self.metadata.unsigned(&self.key(name))
    }

    fn unsigned_if_present(&self, name: &str) -> Result<Option<u64>, GgufError> {
        self.metadata.unsigned_if_present(&self.key(name))
    }

    fn number(&self, name: &str) -> Result<f64, GgufError> {
        self.number_if_present(name)?.ok_or_else(|| GgufError::MissingKey { key: self.key(name) })
    }

    fn number_if_present(&self, name: &str) -> Result<Option<f64>, GgufError> {
        self.metadata.number_if_present(&self.key(name))
    }

    fn uniform(&self, name: &str) -> Result<u64, GgufError> {
        self.uniform_if_present(name)?.ok_or_else(|| GgufError::MissingKey { key: self.key(name) })
    }

    /// A number that files may also give once for each block; blocks that differ are not supported.
    fn uniform_if_present(&self, name: &str) -> Result<Option<u64>, GgufError> {
        let key = self.key(name);
        let Some(Stored::Integers(values)) = self.metadata.get(&key) else {
            return self.metadata.unsigned_if_present(&key);
        };
        match values.split_first() {
            Some((first, rest)) if rest.iter().all(|value| value == first) => {
                u64::try_from(*first).map(Some).map_err(|_| bad_value(key, format!("is {first}, which is negative")))
            }
            _ => Err(bad_value(key, "differs between blocks, which is not supported")),
        }
    }

    fn rope_scaling(&self) -> Result<Option<Value>, GgufError> {
        const TYPE: &str = "rope.scaling.type";
        match self.metadata.string_if_present(&self.key(TYPE))? {
            None | Some("none") => Ok(None),
            Some("linear") => {
                let factor = self.number("rope.scaling.factor")?;
                Ok(Some(json!({"rope_type": "linear", "factor": factor})))
            }
            Some(other) => Err(bad_value(self.key(TYPE), format!("is {other}, which is not supported"))),
        }
    }
}

/// The `rope_scaling` whose frequency factors these are. llama.cpp stores the factors and not what they come from; all
/// Llama 3 models so far differ in `factor` only, so that is read off and the rest is verified.
///
/// Formula: transformers, `_compute_llama3_parameters` in `modeling_rope_utils.py`.
pub(super) fn rope_factors_scaling(factors: &[f32], theta: f64) -> Result<Value, GgufError> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const CONTEXT: f64 = 8192.0;
    let factor = factors.iter().copied().map(f64::from).fold(1.0, f64::max);
    let count = factors.len() as f64;
    for (index, found) in factors.iter().enumerate() {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(index as f64 / count);
        let expected = if wavelength < CONTEXT / HIGH {
            1.0
        } else if wavelength > CONTEXT / LOW {
            factor
        } else {
            let smooth = (CONTEXT / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        // Written so that a NaN fails.
        let close = (f64::from(*found) - expected).abs() <= 1e-3 * expected;
        if !close {
            return Err(bad_tensor(
                ROPE_FACTORS,
                format!("holds {found} at {index}, where Llama 3's scaling by {factor} has {expected:.4}"),
            ));
        }
    }
    Ok(json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
        "original_max_position_embeddings": CONTEXT as u64,
    }))
}

/// The name in GGUF of a tensor with a Hugging Face name; `None` for a name that no supported model has.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    Some(match name {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        "lm_head.weight" => "output.weight".to_owned(),
        _ => {
            let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
            let (module, kind) = rest.rsplit_once('.')?;
            let module = match module {
                "input_layernorm" => "attn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.o_proj" => "attn_output",
                "self_attn.q_norm" => "attn_q_norm",
                "self_attn.k_norm" => "attn_k_norm",
                "post_attention_layernorm" => "ffn_norm",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                _ => return None,
            };
            format!("blk.{layer}.{module}.{kind}")
        }
    })
}

/// Whether llama.cpp reordered a tensor's rows: it interleaves the two rotary halves of every query and key head of
/// Llama models (of the others it rotates the halves as they are).
pub(super) fn is_interleaved(family: Family, gguf_name: &str) -> bool {
    family == Family::Llama
        && [".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias"]
            .iter()
            .any(|suffix| gguf_name.ends_with(suffix))
}

/// Compares a tensor's shape with what the configuration asks for.
pub(super) fn check_shape(name: &str, info: &TensorInfo, expected: &[usize]) -> Result<(), GgufError> {
    if info.shape == expected {
        return Ok(());
    }
    Err(bad_tensor(name, format!("has the shape {:?}, and the configuration asks for {expected:?}", info.shape)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llama.cpp's converter computes them, for Llama 3.1 (head width 128, theta 500,000).
    fn llama3_factors(factor: f64) -> Vec<f32> {
        (0..64)
            .map(|index| {
                let frequency = 1.0 / 500_000_f64.powf(f64::from(index) / 64.0);
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength < 2048.0 {
                    1.0
                } else if wavelength > 8192.0 {
                    factor as f32
                } else {
                    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                    (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
                }
            })
            .collect()
    }

    #[test]
    fn rope_factors_give_back_the_scaling_they_came_from() {
        for factor in [8.0, 32.0] {
            let scaling = rope_factors_scaling(&llama3_factors(factor), 500_000.0).unwrap();
            assert_eq!(scaling["factor"], json!(factor));
            assert_eq!(scaling["original_max_position_embeddings"], json!(8192));
        }
    }

    #[test]
    fn other_rope_factors_are_refused() {
        let mut factors = llama3_factors(8.0);
        factors[40] *= 1.1;
        assert!(rope_factors_scaling(&factors, 500_000.0).is_err());
        assert!(rope_factors_scaling(&[f32::NAN, 1.0], 500_000.0).is_err());
    }

    #[test]
    fn names_are_mapped_and_unknown_ones_are_not() {
        assert_eq!(gguf_name("model.layers.12.self_attn.q_proj.bias").as_deref(), Some("blk.12.attn_q.bias"));
        assert_eq!(gguf_name("lm_head.weight").as_deref(), Some("output.weight"));
        assert_eq!(gguf_name("model.layers.1.mlp.router.weight"), None);
    }
}
