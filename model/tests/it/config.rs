use std::path::Path;

use candle_core::DType;
use model::config::{Architecture, Config, ConfigError, Rope, RopeScaling};
use serde_json::{Value, json};

use crate::support::{message, parity_fixture, tiny_config, write};

fn parse(config: &Value) -> Result<Config, ConfigError> {
    Config::from_json(config.to_string().as_bytes())
}

fn changed(changes: Value) -> Value {
    let mut config = tiny_config(false);
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn refusal(changes: Value) -> String {
    message(&parse(&changed(changes)).unwrap_err())
}

fn of_family(family: &str, changes: Value) -> Config {
    let mut config = changed(changes);
    config["model_type"] = json!(family);
    config.as_object_mut().unwrap().remove("architectures");
    parse(&config).unwrap()
}

#[test]
fn transformers_5_configurations_of_five_families_are_read() {
    let load = |family| Config::load(&parity_fixture(family)).unwrap();
    let llama = load("llama2-gqa");
    assert_eq!(
        llama,
        Config {
            architecture: Architecture::Llama,
            vocab_size: 320,
            hidden_size: 64,
            intermediate_size: 176,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            rms_norm_eps: 1e-6,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
            max_positions: 256,
            tie_word_embeddings: false,
            attention_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            sliding_window: vec![None, None],
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            pad_token_id: None,
            dtype: Some(DType::F32),
        }
    );
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_max_positions: 64,
    };
    let llama3 = load("llama3-rope-scaling");
    assert_eq!(llama3.rope, Rope { theta: 500_000.0, scaling });
    assert!(llama3.tie_word_embeddings);
    let mistral = load("mistral");
    assert_eq!((mistral.architecture, &mistral.sliding_window), (Architecture::Mistral, &vec![None, None]));
    let qwen2 = load("qwen2");
    assert_eq!((qwen2.architecture, qwen2.head_dim), (Architecture::Qwen2, 16));
    assert!(qwen2.attention_bias && !qwen2.output_bias && !qwen2.qk_norm);
    let qwen3 = load("qwen3");
    assert_eq!((qwen3.architecture, qwen3.head_dim, qwen3.query_size()), (Architecture::Qwen3, 32, 128));
    assert!(qwen3.qk_norm && !qwen3.attention_bias);
}

#[test]
fn transformers_4_spelling_gives_the_same() {
    let old = json!({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}, "torch_dtype": "float16"});
    let new = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        "torch_dtype": null, "dtype": "float16"});
    let (old, new) = (parse(&changed(old)).unwrap(), parse(&changed(new)).unwrap());
    assert_eq!(old, new);
    assert_eq!(old.dtype, Some(DType::F16));
}

#[test]
fn old_rope_scaling_names_its_type_with_type() {
    let config = parse(&changed(json!({"rope_scaling": {"type": "linear", "factor": 2.0}}))).unwrap();
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn smollm2_as_its_importer_writes_it_is_read() {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "max_position_embeddings": 8192,
        "rope_theta": 100000.0, "rope_scaling": null, "rms_norm_eps": 1e-05, "tie_word_embeddings": true,
        "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0, "use_cache": true, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2
    });
    let config = parse(&config).unwrap();
    assert_eq!(config.rope, Rope { theta: 100_000.0, scaling: RopeScaling::None });
    assert_eq!((config.dtype, config.pad_token_id), (Some(DType::BF16), Some(2)));
    // The number on the model's card.
    assert_eq!(config.parameter_count(), 134_515_008);
}

#[test]
#[ignore = "needs shared data"]
fn stories260k_is_read() {
    let config = Config::load(&crate::smollm2::shared().join("data/models/stories260K")).unwrap();
    assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (5, 8, 4, 8));
    assert_eq!(config.parameter_count(), 260_032);
}

#[test]
fn defaults_are_those_of_transformers_classes() {
    let mut config = tiny_config(false);
    for key in [
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
        "max_position_embeddings",
        "hidden_act",
        "torch_dtype",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
    ] {
        config.as_object_mut().unwrap().remove(key);
    }
    let config = parse(&config).unwrap();
    assert_eq!((config.kv_heads, config.rms_norm_eps, config.rope.theta), (2, 1e-6, 10_000.0));
    assert_eq!((config.max_positions, config.tie_word_embeddings, config.dtype), (2048, false, None));
    assert!(config.bos_token_id.is_none() && config.eos_token_ids.is_empty());
    assert_eq!(of_family("qwen3", json!({})).head_dim, 128);
    assert_eq!(of_family("qwen2", json!({})).head_dim, 4);
}

#[test]
fn biases_follow_the_family() {
    let llama = of_family("llama", json!({"attention_bias": true, "mlp_bias": true}));
    assert!(llama.attention_bias && llama.output_bias && llama.mlp_bias);
    let mistral = of_family("mistral", json!({"attention_bias": true, "mlp_bias": true}));
    assert!(!mistral.attention_bias && !mistral.output_bias && !mistral.mlp_bias);
    let qwen3 = of_family("qwen3", json!({"attention_bias": true, "mlp_bias": true}));
    assert!(qwen3.attention_bias && qwen3.output_bias && !qwen3.mlp_bias);
}

#[test]
fn expected_tensors_are_those_of_the_fixtures() {
    for family in ["llama2-gqa", "llama3-rope-scaling", "mistral", "qwen2", "qwen3"] {
        let checkpoint = model::Checkpoint::open(&parity_fixture(family)).unwrap();
        let mut stored: Vec<_> = checkpoint.names().map(str::to_owned).collect();
        let mut expected: Vec<_> =
            checkpoint.config().expected_tensors().into_iter().map(|tensor| tensor.name).collect();
        stored.sort();
        expected.sort();
        assert_eq!(stored, expected, "{family}");
        let elements: usize = stored.iter().map(|name| checkpoint.tensor(name).unwrap().elem_count()).sum();
        assert_eq!(checkpoint.config().parameter_count(), elements as u64, "{family}");
    }
}

#[test]
fn sliding_windows_follow_the_family() {
    let windows = |family, changes| of_family(family, changes).sliding_window;
    assert_eq!(windows("llama", json!({"sliding_window": 7})), [None, None]);
    assert_eq!(windows("mistral", json!({"sliding_window": 7})), [Some(7), Some(7)]);
    assert_eq!(windows("mistral", json!({"sliding_window": null})), [None, None]);
    assert_eq!(windows("mistral", json!({})), [Some(4096), Some(4096)]);
    let qwen = |used: bool| json!({"sliding_window": 7, "use_sliding_window": used, "max_window_layers": 1});
    assert_eq!(windows("qwen2", qwen(false)), [None, None]);
    assert_eq!(windows("qwen2", qwen(true)), [None, Some(7)]);
    let typed = json!({"sliding_window": 7, "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(windows("qwen3", typed), [Some(7), None]);
}

#[test]
fn generation_configuration_adds_stop_tokens() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "config.json", changed(json!({"eos_token_id": [5, 2], "bos_token_id": null})).to_string());
    write(
        directory.path(),
        "generation_config.json",
        r#"{"eos_token_id": [2, 3], "bos_token_id": 4, "pad_token_id": -1}"#,
    );
    let config = Config::load(directory.path()).unwrap();
    assert_eq!(config.eos_token_ids, [2, 3, 5]);
    assert_eq!((config.bos_token_id, config.pad_token_id), (Some(4), None));
}

#[test]
fn what_is_not_implemented_is_refused_with_a_sentence() {
    let cases = [
        (json!({"model_type": "qwen3_moe"}), "model type \"qwen3_moe\" is not supported; use a Llama"),
        (json!({"model_type": "gemma2"}), "model type \"gemma2\""),
        (
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            "\"LlamaForSequenceClassification\" is not supported",
        ),
        (json!({"hidden_act": "gelu"}), "hidden_act \"gelu\" is not supported; only \"silu\""),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope type \"yarn\" is not supported"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}), "rope type \"dynamic\" is not supported"),
        (json!({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}), "rope type \"longrope\""),
        (json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}), "rope_parameters for each type of layer"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor 0.5 is not supported"),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "quantised weights is not supported; use the original",
        ),
        (json!({"torch_dtype": "float8_e4m3fn"}), "dtype \"float8_e4m3fn\" is not supported"),
    ];
    for (changes, expected) in cases {
        let text = refusal(changes);
        assert!(text.starts_with("config.json: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_with_the_key() {
    let cases = [
        (json!({"hidden_size": null}), "has no hidden_size"),
        (json!({"hidden_size": 0}), "hidden_size is 0"),
        (json!({"vocab_size": 99_999_999_999_u64}), "vocab_size is 99999999999"),
        (json!({"num_hidden_layers": 100_000}), "num_hidden_layers is 100000"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads is 3, which does not divide"),
        (json!({"num_attention_heads": 3, "num_key_value_heads": 3}), "hidden_size is 8, which num_attention_heads, 3"),
        (json!({"head_dim": 5}), "head_dim is 5; rotary positions need an even width"),
        (json!({"head_dim": 16_777_216}), "head_dim times 2 heads"),
        (json!({"rms_norm_eps": -1.0}), "rms_norm_eps is -1"),
        (json!({"rms_norm_eps": 1e-60}), "rms_norm_eps is 0"),
        (json!({"rope_theta": 0.0}), "rope_theta is 0"),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "factor is absent; rope type \"linear\" needs it"),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}), "factor is 0.5"),
        (json!({"eos_token_id": "</s>"}), "eos_token_id holds \"</s>\""),
        (json!({"hidden_size": "wide"}), "invalid type: string \"wide\""),
        (json!({"hidden_size": -8}), "invalid value"),
    ];
    for (changes, expected) in cases {
        let text = refusal(changes);
        assert!(text.starts_with("config.json") && text.contains(expected), "{text}");
    }
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let text = message(&Config::load(directory.path()).unwrap_err());
    assert!(text.contains("config.json does not exist"), "{text}");
    write(directory.path(), "config.json", "<html>not found</html>");
    let text = message(&Config::load(directory.path()).unwrap_err());
    assert!(text.contains("config.json is not a valid configuration: expected value at line 1"), "{text}");
    write(directory.path(), "config.json", tiny_config(true).to_string());
    write(directory.path(), "generation_config.json", "[");
    let text = message(&Config::load(directory.path()).unwrap_err());
    assert!(text.contains("generation_config.json is not a valid configuration"), "{text}");
    assert!(matches!(Config::load(Path::new("/nowhere")), Err(ConfigError::Missing { .. })));
}
