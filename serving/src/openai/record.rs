//! What a statement's request hash is over.

use std::{borrow::Cow, collections::BTreeMap};

use protocol::{B256, transcript};
use serde::{Deserialize, Serialize};

use crate::{engine::GenerationRequest, state::ServedModel};

/// Everything that decides an answer; the prompt by its digest. Beside the statement and the request's body it is all that a
/// replay needs: the body says nothing of a seed that the host drew, or of a limit that it set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record<'a> {
    pub(super) manifest: Option<String>,
    pub(super) engine: Cow<'a, str>,
    /// Digest of the templated prompt's ids.
    pub(super) prompt: B256,
    pub(super) choices: u16,
    pub(super) max_tokens: usize,
    pub(super) stop: Cow<'a, [String]>,
    pub(super) temperature: f32,
    pub(super) top_p: f32,
    pub(super) top_k: usize,
    /// In decimal: JSON numbers lose digits above 2^53 in many readers.
    pub(super) seed: String,
    pub(super) frequency_penalty: f32,
    pub(super) presence_penalty: f32,
    pub(super) logit_bias: Cow<'a, BTreeMap<u32, f32>>,
}

impl<'a> Record<'a> {
    pub(super) fn of(model: &'a ServedModel, request: &'a GenerationRequest, stop: &'a [String]) -> Self {
        let (sampling, adjustments) = (&request.sampling, &request.adjustments);
        Self {
            manifest: model.manifest.map(|digest| digest.to_string()),
            engine: Cow::Borrowed(&model.engine_name),
            prompt: transcript::prompt_digest(&request.prompt),
            choices: request.choices.get(),
            max_tokens: request.max_tokens.get(),
            stop: Cow::Borrowed(stop),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            seed: sampling.seed.to_string(),
            frequency_penalty: adjustments.frequency_penalty,
            presence_penalty: adjustments.presence_penalty,
            logit_bias: Cow::Borrowed(&adjustments.bias),
        }
    }

    /// The text that is hashed.
    pub(super) fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The first member in which another record differs.
    pub(super) fn difference(&self, other: &Record<'_>) -> Option<&'static str> {
        let members = [
            ("weights", self.manifest != other.manifest),
            ("engine", self.engine != other.engine),
            ("prompt", self.prompt != other.prompt),
            ("number of choices", self.choices != other.choices),
            ("token limit", self.max_tokens != other.max_tokens),
            ("stop strings", self.stop != other.stop),
            ("seed", self.seed != other.seed),
        ];
        let named = members.into_iter().find(|(_, differs)| *differs).map(|(name, _)| name);
        named.or_else(|| (self != other).then_some("sampling"))
    }
}
