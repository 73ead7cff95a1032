//! What is asked of the server.

use std::collections::BTreeMap;

use alloy_primitives::keccak256;
use model::{SpecialTokens, Tokenizer, tokenizer::TokenizerError};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::PromptForm;
use crate::engine::GenerationRequest;

/// What all choices of a request have in common. No `Debug`: it holds a prompt.
pub(super) struct Asked {
    request: GenerationRequest,
    /// The prompt for servers that take text.
    text: Option<String>,
    salt: String,
}

/// How requests are written for one server.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    model: String,
    form: PromptForm,
    share_prompts: bool,
    tokenizer: Tokenizer,
    /// What a server that takes text puts before it by itself.
    opening: Vec<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    prompt: Prompt<'a>,
    max_tokens: usize,
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    seed: u32,
    frequency_penalty: f32,
    presence_penalty: f32,
    #[serde(skip_serializing_if = "is_empty")]
    logit_bias: &'a BTreeMap<u32, f32>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(flatten)]
    extensions: Option<Extensions<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Prompt<'a> {
    Tokens(&'a [u32]),
    Text(&'a str),
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// Fields that OpenAI's API does not have. Neutral values are sent too: llama-server has `top_k` 40 and `min_p` 0.05 by
/// itself, and vLLM what the model's `generation_config.json` says.
#[derive(Serialize)]
struct Extensions<'a> {
    /// -1 for all: vLLM, SGLang and llama-server agree on that, and not on 0.
    top_k: i64,
    min_p: f32,
    /// vLLM's and SGLang's name.
    repetition_penalty: f32,
    /// llama-server's name for the same.
    repeat_penalty: f32,
    /// vLLM and SGLang reuse prompts only between requests with the same one.
    cache_salt: &'a str,
    /// llama-server reuses whatever its slot holds, whoever sent it.
    cache_prompt: bool,
}

fn is_empty(biases: &&BTreeMap<u32, f32>) -> bool {
    biases.is_empty()
}

impl Writer {
    pub(super) fn new(
        model: String,
        form: PromptForm,
        share_prompts: bool,
        tokenizer: Tokenizer,
    ) -> Result<Self, TokenizerError> {
        let opening = tokenizer.encode("", SpecialTokens::Add)?;
        Ok(Self { model, form, share_prompts, tokenizer, opening })
    }

    /// Prepares a request. `salt` is for one that may share nothing, and given to no other.
    pub(super) fn ask(&self, request: GenerationRequest, salt: u128) -> Asked {
        let text = match self.form {
            PromptForm::Tokens => None,
            PromptForm::Text => {
                let ids = request.prompt.strip_prefix(self.opening.as_slice()).unwrap_or(&request.prompt);
                Some(self.tokenizer.decode(ids, false))
            }
        };
        // A scope names a customer, which is not the server's business.
        let salt = match &request.cache_scope {
            Some(scope) => keccak256(scope.as_bytes()).to_string(),
            None => format!("{salt:032x}"),
        };
        Asked { request, text, salt }
    }

    /// The body for one choice.
    pub(super) fn write(&self, asked: &Asked, choice: u16) -> serde_json::Result<Vec<u8>> {
        let request = &asked.request;
        let (sampling, adjustments) = (&request.sampling, &request.adjustments);
        // No mass at all is the most probable token here, and an error or anything at all elsewhere.
        let is_greedy = sampling.temperature <= 0.0 || sampling.top_p <= 0.0;
        let top_p = if is_greedy { 1.0 } else { sampling.top_p };
        let knows_extensions = self.form == PromptForm::Tokens;
        let extensions = knows_extensions.then(|| Extensions {
            top_k: i64::try_from(sampling.top_k).ok().filter(|count| *count > 0).unwrap_or(-1),
            min_p: 0.0,
            repetition_penalty: 1.0,
            repeat_penalty: 1.0,
            cache_salt: &asked.salt,
            cache_prompt: self.share_prompts,
        });
        serde_json::to_vec(&Body {
            model: &self.model,
            prompt: asked.text.as_deref().map_or(Prompt::Tokens(&request.prompt), Prompt::Text),
            max_tokens: request.max_tokens.get(),
            temperature: if is_greedy { 0.0 } else { sampling.temperature },
            // TGI refuses 1, and means it where nothing is said.
            top_p: Some(top_p).filter(|top_p| knows_extensions || *top_p < 1.0),
            seed: seed_of(sampling.seed, choice),
            frequency_penalty: adjustments.frequency_penalty,
            presence_penalty: adjustments.presence_penalty,
            logit_bias: &adjustments.bias,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            extensions,
        })
    }
}

/// A seed of 31 bits, which every server takes as it is: llama-server cuts off what is beyond 32 and draws one of its own
/// for the greatest.
fn seed_of(seed: u64, choice: u16) -> u32 {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(choice.into());
    generator.next_u32() >> 1
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        num::{NonZeroU16, NonZeroUsize},
        sync::Arc,
    };

    use model::{LogitAdjustments, SamplingParameters};
    use serde_json::Value;

    use super::*;

    fn write(form: PromptForm, sampling: SamplingParameters, cache_scope: Option<&str>) -> Value {
        let tokenizer = Tokenizer::load(&model::bundled::directory().unwrap()).unwrap();
        let request = GenerationRequest {
            prompt: tokenizer.encode("the king", SpecialTokens::Add).unwrap().into(),
            choices: NonZeroU16::MIN,
            max_tokens: NonZeroUsize::MIN,
            stop_tokens: Arc::from([]),
            sampling,
            adjustments: LogitAdjustments { bias: Arc::new(BTreeMap::from([(7, -1.5)])), ..Default::default() },
            likeliest: None,
            cache_scope: cache_scope.map(Arc::from),
        };
        let writer = Writer::new("its name".to_owned(), form, false, tokenizer).unwrap();
        serde_json::from_slice(&writer.write(&writer.ask(request, 9), 0).unwrap()).unwrap()
    }

    const SAMPLING: SamplingParameters = SamplingParameters { temperature: 0.5, top_p: 1.0, top_k: 0, seed: 3 };

    #[test]
    fn neutral_values_are_said_where_servers_have_others() {
        let body = write(PromptForm::Tokens, SAMPLING, None);
        assert!(body["prompt"].is_array());
        assert_eq!((&body["top_k"], &body["min_p"], &body["top_p"]), (&(-1).into(), &0.0.into(), &1.0.into()));
        assert_eq!((&body["repetition_penalty"], &body["repeat_penalty"]), (&1.0.into(), &1.0.into()));
        assert_eq!((&body["logit_bias"]["7"], &body["cache_prompt"]), (&(-1.5).into(), &false.into()));
    }

    #[test]
    fn text_goes_with_the_fields_that_openai_has() {
        let body = write(PromptForm::Text, SAMPLING, None);
        assert_eq!(body["prompt"], "the king");
        for field in ["top_p", "top_k", "min_p", "repetition_penalty", "repeat_penalty", "cache_salt", "cache_prompt"] {
            assert!(body.get(field).is_none(), "{field}");
        }
    }

    #[test]
    fn no_mass_and_no_temperature_are_the_same() {
        for (temperature, top_p) in [(0.0, 0.5), (0.7, 0.0)] {
            let body = write(PromptForm::Tokens, SamplingParameters { temperature, top_p, ..SAMPLING }, None);
            assert_eq!((&body["temperature"], &body["top_p"]), (&0.0.into(), &1.0.into()));
        }
    }

    #[test]
    fn prompts_are_shared_within_a_scope_that_the_server_cannot_read() {
        let salt = |scope| write(PromptForm::Tokens, SAMPLING, scope)["cache_salt"].clone();
        assert_eq!(salt(Some("customer a")), salt(Some("customer a")));
        assert_ne!(salt(Some("customer a")), salt(Some("customer b")));
        assert_eq!(salt(None), format!("{:032x}", 9));
        assert!(!salt(Some("customer a")).to_string().contains("customer"));
    }

    #[test]
    fn choices_and_seeds_have_seeds_of_their_own() {
        let seeds = [0, 1, u64::MAX, 1 << 32, (1 << 32) + 1];
        let derived: BTreeSet<u32> =
            seeds.into_iter().flat_map(|seed| (0..8).map(move |choice| seed_of(seed, choice))).collect();
        assert_eq!(derived.len(), seeds.len() * 8);
        assert!(derived.iter().all(|seed| i32::try_from(*seed).is_ok()));
    }
}
