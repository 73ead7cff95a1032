//! A GGUF file as a Hugging Face folder: weights, configuration, tokenizer and chat template.
//!
//! The file is untrusted. It is read by this module's own reader, which checks every count before using it, and the
//! written folder has to open as a model before it gets its name: either the whole import succeeds, or there is no such
//! folder.

mod architecture;
mod error;
mod reader;
mod stored;
mod vocabulary;
mod weights;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::stored::{FILE, has_only_gguf};
use self::{
    architecture::Family,
    error::{bad_tensor, bad_value, write_failed},
    reader::Header,
    vocabulary::Vocabulary,
    weights::{FloatType, Job},
};
pub use self::{error::GgufError, stored::GgufWeights};
use crate::{
    ChatTemplate, Checkpoint, Config, Tokenizer,
    partial::{self, PartialFolder},
};

/// The type that weights are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// Half the size of `f32`; rounds to nearest, ties to even. Quantized weights lose nothing that matters by it.
    #[default]
    Bf16,
    /// Every value as the file has it.
    F32,
    /// The file itself, to be served as it is: smallest and fastest, and nothing that can be trained or stamped.
    Stored,
}

impl WeightType {
    /// For `config.json`.
    fn torch(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F32 | Self::Stored => "float32",
        }
    }
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The tensor that is written next; empty at the end.
    pub tensor: &'a str,
    /// Bytes of weights written.
    pub done_bytes: u64,
    /// Bytes of weights to write in all.
    pub total_bytes: u64,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The model's name as the file has it.
    pub name: Option<String>,
    /// `llama` (which Mistral uses too), `qwen2` or `qwen3`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Storage types of the file with the number of tensors in each.
    pub stored_as: BTreeMap<String, usize>,
    /// The type that the weights were written in.
    pub written_as: WeightType,
    /// Size of the written weights in bytes.
    pub weight_bytes: u64,
    /// Whether the model has a chat template.
    pub has_chat_template: bool,
    /// The licence that the file names, if it does. It names it only: the text has to come from elsewhere.
    pub license: Option<String>,
    /// What the file left open and how it was decided.
    pub warnings: Vec<String>,
}

/// Imports a GGUF file into a new folder.
///
/// Takes versions 2 and 3, the architectures llama (Mistral included), qwen2 and qwen3, and tensors in F32, F16, BF16,
/// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K. Memory stays at the header and a few megabytes, or one tensor. `out` must not exist or be empty; it
/// appears when everything is written and has been opened once.
pub fn import(
    file: &Path,
    out: &Path,
    dtype: WeightType,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<ImportReport, GgufError> {
    let (mut input, length) = open(file)?;
    let header = Header::read(&mut input, length, file)?;
    let plan = Plan::of(&header, &mut input, dtype)?;

    let folder = PartialFolder::beside(out)?;
    let safetensors = folder.path().join("model.safetensors");
    let weight_bytes = match dtype {
        WeightType::Bf16 => weights::write(&plan.jobs, &mut input, FloatType::Bf16, &safetensors, progress)?,
        WeightType::F32 => weights::write(&plan.jobs, &mut input, FloatType::F32, &safetensors, progress)?,
        WeightType::Stored => stored::copy(input, length, &folder.path().join(FILE), progress)?,
    };
    for (name, value) in &plan.files {
        let path = folder.path().join(name);
        let mut text = serde_json::to_vec_pretty(value).map_err(|error| write_failed(&path)(error.into()))?;
        text.push(b'\n');
        partial::write(&path, &text).map_err(write_failed(&path))?;
    }
    let has_chat_template = open_once(folder.path())?;
    folder.finish()?;
    Ok(plan.report(&header, weight_bytes, has_chat_template, dtype))
}

/// The file and its length.
fn open(file: &Path) -> Result<(BufReader<File>, u64), GgufError> {
    let failed = |source| GgufError::Open { file: file.to_owned(), source };
    let handle = File::open(file).map_err(failed)?;
    let length = handle.metadata().map_err(failed)?.len();
    Ok((BufReader::with_capacity(1 << 16, handle), length))
}

/// Everything that is going to be written.
struct Plan {
    family: Family,
    config: Config,
    jobs: Vec<Job>,
    /// JSON files by their names.
    files: Vec<(&'static str, Value)>,
    warnings: Vec<String>,
}

impl Plan {
    fn of(header: &Header, input: &mut BufReader<File>, dtype: WeightType) -> Result<Self, GgufError> {
        let metadata = &header.metadata;
        let family = Family::of(metadata)?;
        let rope_scaling = rope_scaling(family, header, input)?;
        let mut config = architecture::config(family, header, rope_scaling, dtype.torch())?;
        let mut vocabulary = Vocabulary::of(family, metadata)?;
        config.extend(vocabulary.ids.clone());
        let config_value = Value::Object(config);
        let config = Config::from_json(config_value.to_string().as_bytes()).map_err(GgufError::Config)?;
        if vocabulary.size > config.vocab_size {
            let problem = format!("has {} tokens, and the embedding {} rows", vocabulary.size, config.vocab_size);
            return Err(bad_value("tokenizer.ggml.tokens", problem));
        }
        if let Some(limit) = vocabulary.tokenizer_config.as_object_mut() {
            limit.insert("model_max_length".to_owned(), config.max_positions.into());
        }
        let jobs = jobs(family, &config, header)?;
        let files = vec![
            ("config.json", config_value),
            ("generation_config.json", Value::Object(vocabulary.generation_ids)),
            ("tokenizer.json", vocabulary.tokenizer),
            ("tokenizer_config.json", vocabulary.tokenizer_config),
        ];
        Ok(Self { family, config, jobs, files, warnings: vocabulary.warnings })
    }

    fn report(self, header: &Header, weight_bytes: u64, has_chat_template: bool, dtype: WeightType) -> ImportReport {
        let mut stored_as = BTreeMap::new();
        for job in &self.jobs {
            *stored_as.entry(job.info.quantization.name().to_owned()).or_insert(0) += 1;
        }
        // A name or licence of another type than a string is no reason to fail at the end.
        let text = |key: &str| header.metadata.string_if_present(key).ok().flatten().map(str::to_owned);
        ImportReport {
            name: text("general.name"),
            architecture: self.family.name().to_owned(),
            parameters: self.config.parameter_count(),
            stored_as,
            written_as: dtype,
            weight_bytes,
            has_chat_template,
            license: text("general.license"),
            warnings: self.warnings,
        }
    }
}

/// Every tensor that the configuration asks for, found in the file; a tensor that it does not ask for is an error.
fn jobs(family: Family, config: &Config, header: &Header) -> Result<Vec<Job>, GgufError> {
    let mut unused: BTreeMap<&str, _> = header.tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    unused.remove(architecture::ROPE_FACTORS);
    let mut jobs = Vec::new();
    for expected in config.expected_tensors() {
        let source = architecture::gguf_name(&expected.name)
            .ok_or_else(|| bad_tensor(&expected.name, "has no counterpart in GGUF"))?;
        let info = unused.remove(source.as_str()).ok_or_else(|| GgufError::MissingTensor { tensor: source.clone() })?;
        architecture::check_shape(&source, info, &expected.shape)?;
        let interleaved_heads = architecture::is_interleaved(family, &source)
            .then(|| if source.contains(".attn_q.") { config.heads } else { config.kv_heads });
        jobs.push(Job { source, target: expected.name, info: info.clone(), interleaved_heads });
    }
    match unused.into_keys().next() {
        Some(name) => Err(bad_tensor(name, "is not part of the model that the file describes")),
        None => Ok(jobs),
    }
}

/// Llama 3's rope scaling, which llama.cpp keeps as a tensor of factors.
fn rope_scaling(family: Family, header: &Header, input: &mut BufReader<File>) -> Result<Option<Value>, GgufError> {
    const MAX_FACTORS: usize = 4096;
    let name = architecture::ROPE_FACTORS;
    let Some(info) = header.tensors.get(name) else { return Ok(None) };
    if info.quantization.name() != "F32" || info.shape.len() != 1 || info.shape[0] > MAX_FACTORS {
        return Err(bad_tensor(
            name,
            format!("is not a short list of F32 but {} {:?}", info.quantization.name(), info.shape),
        ));
    }
    let failed = |source| GgufError::Read { what: format!("tensor {name}"), source };
    let mut bytes = vec![0; info.shape[0] * 4];
    io::Seek::seek(input, io::SeekFrom::Start(info.offset)).map_err(failed)?;
    io::Read::read_exact(input, &mut bytes).map_err(failed)?;
    let mut factors = vec![0.0; info.shape[0]];
    info.quantization.widen(&bytes, &mut factors);
    let theta = header.metadata.number_if_present(&format!("{}.rope.freq_base", family.name()))?.unwrap_or(10_000.0);
    architecture::rope_factors_scaling(&factors, theta).map(Some)
}

/// Opens the written folder as a user would; returns whether it has a chat template.
fn open_once(folder: &Path) -> Result<bool, GgufError> {
    if has_only_gguf(folder) {
        GgufWeights::open(folder)?.check()?;
    } else {
        Checkpoint::open(folder).map_err(GgufError::Checkpoint)?;
    }
    Tokenizer::load(folder).map_err(GgufError::Tokenizer)?;
    ChatTemplate::load(folder).map(|template| template.is_some()).map_err(GgufError::ChatTemplate)
}
