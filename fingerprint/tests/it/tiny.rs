//! Tiny model folders made on the spot: a byte-level tokenizer with a few merges, and a Llama of two blocks whose weights
//! come from a counter.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor};
use model::{Config, Model};
use serde_json::{Value, json};
use tempfile::TempDir;

/// ChatML with a default system prompt, as SmolLM2 has it.
pub(crate) const CHATML: &str = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}\
     {% endif %}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
     '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// No control tokens around the text: whatever merges, merges.
pub(crate) const PLAIN: &str = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}\
     {% endfor %}{{ 'reply:' }}";

/// Knows no system role.
pub(crate) const NO_SYSTEM: &str = "{% for message in messages %}{% if message['role'] == 'system' %}\
     {{ raise_exception('no system role') }}{% endif %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}";

/// Takes a system message and says nothing of it.
pub(crate) const DEAF: &str = "{% for message in messages %}{% if message['role'] != 'system' %}\
     {{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}";

/// What differs between tiny models.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tiny {
    pub(crate) template: Option<&'static str>,
    /// The tokenizer puts `<s>` before a text.
    pub(crate) bos: bool,
    /// Different weights for every number.
    pub(crate) weights: u32,
}

impl Tiny {
    pub(crate) fn chat(template: &'static str) -> Self {
        Self { template: Some(template), ..Self::default() }
    }

    /// The model, and the folder that it lives in.
    pub(crate) fn model(self) -> (TempDir, Model) {
        let folder = TempDir::new().unwrap();
        self.write(folder.path());
        let model = Model::open(folder.path()).unwrap();
        (folder, model)
    }

    fn write(self, folder: &Path) {
        let tokenizer = tokenizer(self.bos);
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap().len();
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": vocabulary,
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "bos_token_id": 2, "eos_token_id": 1, "torch_dtype": "float32"
        });
        write_weights(folder, &config, self.weights);
        let mut tokenizer_config = json!({ "bos_token": "<s>", "eos_token": "<|im_end|>" });
        if let Some(template) = self.template {
            tokenizer_config["chat_template"] = json!(template);
        }
        for (name, value) in
            [("config.json", config), ("tokenizer.json", tokenizer), ("tokenizer_config.json", tokenizer_config)]
        {
            fs::write(folder.join(name), value.to_string()).unwrap();
        }
    }
}

const SPECIALS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<s>"];

/// Pairs that merge, in GPT-2's spelling of bytes (`Ġ` a blank, `Ċ` a line feed).
const MERGES: [&str; 16] = [
    "t h", "th e", "Ġ the", "a n", "an d", "Ġ and", "i n", "o n", ". Ċ", ": Ġ", "Ġ a", "r e", "Ġ Ġ", "l y", ": t",
    "Ċ r",
];

fn tokenizer(bos: bool) -> Value {
    let mut tokens: Vec<String> = SPECIALS.iter().map(|token| (*token).to_owned()).collect();
    tokens.extend(byte_alphabet());
    tokens.extend(MERGES.iter().map(|pair| pair.replace(' ', "")));
    let vocabulary: serde_json::Map<String, Value> =
        tokens.into_iter().zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added: Vec<Value> = (0..)
        .zip(SPECIALS)
        .map(|(id, content): (u32, _)| {
            json!({
                "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false
            })
        })
        .collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    let post_processor = if bos {
        json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [2], "tokens": ["<s>"] } }
        })
    } else {
        Value::Null
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": post_processor, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": MERGES
        }
    })
}

/// One character for each byte, as GPT-2 chose them.
fn byte_alphabet() -> impl Iterator<Item = String> {
    let mut shifted = 0x100..;
    (0_u8..=255).map(move |byte| {
        let own = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if own { u32::from(byte) } else { shifted.next().unwrap() };
        char::from_u32(code).unwrap().to_string()
    })
}

fn write_weights(folder: &Path, config: &Value, number: u32) {
    let config = Config::from_json(config.to_string().as_bytes()).unwrap();
    let mut tensors = BTreeMap::new();
    let mut state = 1 + number;
    for expected in config.expected_tensors() {
        let count: usize = expected.shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let uniform = f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0;
                if expected.name.contains("norm") { 1.0 } else { 0.3 * uniform }
            })
            .collect();
        tensors.insert(expected.name.clone(), Tensor::from_vec(values, expected.shape.clone(), &Device::Cpu).unwrap());
    }
    let tensors: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}
