//! One running stream.

use std::sync::Arc;

use model::{Likelihood, LogitAdjuster, Sampler};

use super::{
    cache_pool::Lent,
    forward::{Append, BrokenStep},
    scheduler::Admission,
};
use crate::engine::{CompletionSender, FinishReason, GeneratedToken, GenerationRequest};

/// A completion that has a cache. First its prompt goes into the cache, in as many pieces as the scheduler likes, then
/// one token at a time is drawn and appended.
#[derive(Debug)]
pub(super) struct Slot<C> {
    request: Arc<GenerationRequest>,
    sender: CompletionSender,
    sampler: Sampler,
    adjuster: LogitAdjuster,
    cache: Lent<C>,
    /// Tokens of the prompt that are in the cache.
    prefilled: usize,
    /// Tokens delivered.
    generated: usize,
    /// The token drawn last. It is not in the cache yet.
    last: u32,
}

impl<C> Slot<C> {
    pub(super) fn new(admission: Admission, cache: Lent<C>) -> Self {
        let Admission { request, choice, sender } = admission;
        let sampler = Sampler::of_choice(request.sampling, choice);
        let adjuster = LogitAdjuster::new(request.adjustments.clone());
        Self { request, sender, sampler, adjuster, cache, prefilled: 0, generated: 0, last: 0 }
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
    pub(super) fn advance(
        &mut self,
        prompt_tokens: usize,
        mut logits: Vec<f32>,
    ) -> Result<Option<FinishReason>, BrokenStep> {
        self.prefilled = self.prefilled.saturating_add(prompt_tokens).min(self.request.prompt.len());
        if self.prompt_left() > 0 {
            // Logits in the middle of a prompt predict what is already known.
            return Ok(None);
        }
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(BrokenStep::NotNumbers);
        }
        let token = self.draw(&mut logits);
        if self.request.stop_tokens.contains(&token.id) {
            return Ok(Some(FinishReason::Stop));
        }
        self.last = token.id;
        self.sender.token(token);
        self.generated = self.generated.saturating_add(1);
        Ok((self.generated >= self.request.max_tokens.get()).then_some(FinishReason::Length))
    }

    /// The next token, and how likely the model itself held it to be, before the request's adjustments.
    fn draw(&mut self, logits: &mut [f32]) -> GeneratedToken {
        let unadjusted =
            (self.request.likeliest.is_some() && !self.request.adjustments.is_neutral()).then(|| logits.to_vec());
        self.adjuster.adjust(logits);
        let id = self.sampler.sample(logits);
        self.adjuster.count(id);
        let likelihood = self
            .request
            .likeliest
            .map(|count| Box::new(Likelihood::of(unadjusted.as_deref().unwrap_or(logits), id, count)));
        GeneratedToken { id, likelihood }
    }

    pub(super) fn into_parts(self) -> (CompletionSender, Lent<C>) {
        (self.sender, self.cache)
    }
}
