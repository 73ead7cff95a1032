//! One running stream.

use model::Sampler;

use super::{
    cache_pool::Lent,
    forward::{Append, BrokenStep},
};
use crate::engine::{FinishReason, GenerationRequest, TokenSender};

/// A request that has a cache. First its prompt goes into the cache, in as many pieces as the scheduler likes, then one
/// token at a time is drawn and appended.
#[derive(Debug)]
pub(super) struct Slot<C> {
    request: GenerationRequest,
    sender: TokenSender,
    sampler: Sampler,
    cache: Lent<C>,
    /// Tokens of the prompt that are in the cache.
    prefilled: usize,
    /// Tokens delivered.
    generated: usize,
    /// The token drawn last. It is not in the cache yet.
    last: u32,
}

impl<C> Slot<C> {
    pub(super) fn new(request: GenerationRequest, sender: TokenSender, cache: Lent<C>) -> Self {
        let sampler = Sampler::new(request.sampling);
        Self { request, sender, sampler, cache, prefilled: 0, generated: 0, last: 0 }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.is_abandoned()
    }

    /// Tokens of the prompt that are not in the cache yet; 0 once the stream is generating.
    pub(super) fn prompt_left(&self) -> usize {
        self.request.prompt.len().saturating_sub(self.prefilled)
    }

    /// What the next step appends: `prompt_tokens` of the prompt, or the last token once the prompt is done.
    pub(super) fn append(&mut self, prompt_tokens: usize) -> Append<'_, C> {
        let rest = self.request.prompt.get(self.prefilled..).unwrap_or_default();
        let tokens = if rest.is_empty() {
            std::slice::from_ref(&self.last)
        } else {
            rest.split_at(prompt_tokens.min(rest.len())).0
        };
        (tokens, &mut self.cache.cache)
    }

    /// Takes the logits (vocab) after the tokens of [`append`](Self::append). Returns why the stream is finished, if it
    /// is.
    pub(super) fn advance(&mut self, prompt_tokens: usize, logits: &[f32]) -> Result<Option<FinishReason>, BrokenStep> {
        self.prefilled = self.prefilled.saturating_add(prompt_tokens).min(self.request.prompt.len());
        if self.prompt_left() > 0 {
            // Logits in the middle of a prompt predict what is already known.
            return Ok(None);
        }
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(BrokenStep::NotNumbers);
        }
        let token = self.sampler.sample(logits);
        if self.request.stop_tokens.contains(&token) {
            return Ok(Some(FinishReason::Stop));
        }
        self.sender.send(token);
        self.last = token;
        self.generated = self.generated.saturating_add(1);
        Ok((self.generated >= self.request.max_tokens.get()).then_some(FinishReason::Length))
    }

    pub(super) fn into_parts(self) -> (TokenSender, Lent<C>) {
        (self.sender, self.cache)
    }
}
