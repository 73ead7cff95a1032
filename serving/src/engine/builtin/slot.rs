//! One running stream.

use std::sync::Arc;

use model::{Likelihood, LogitAdjuster, Sampler};

use super::{
    cache_pool::Lent,
    forward::{Append, BrokenStep},
    prefixes::Held,
    scheduler::Admission,
};
use crate::{
    engine::{CompletionSender, FinishReason, GeneratedToken, GenerationRequest},
    usage::token_count,
};

/// A completion that has a cache. First its prompt goes into the cache, in as many pieces as the scheduler likes, then
/// one token at a time is drawn and appended.
#[derive(Debug)]
pub(super) struct Slot<C> {
    request: Arc<GenerationRequest>,
    sender: CompletionSender,
    sampler: Sampler,
    adjuster: LogitAdjuster,
    cache: Lent<C>,
    /// Tokens of the prompt that are in the cache; `None` until it is known where to begin.
    prefilled: Option<usize>,
    /// Tokens delivered.
    generated: Vec<u32>,
    /// Those of them that are in the cache: all, or all but the last.
    appended: usize,
}

impl<C> Slot<C> {
    pub(super) fn new(admission: Admission, cache: Lent<C>) -> Self {
        let Admission { request, choice, sender } = admission;
        let sampler = Sampler::of_choice(request.sampling, choice);
        let adjuster = LogitAdjuster::new(request.adjustments.clone());
        Self { request, sender, sampler, adjuster, cache, prefilled: None, generated: Vec::new(), appended: 0 }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.is_abandoned()
    }

    /// Whether both are choices of one request.
    pub(super) fn is_sibling(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.request, &other.request)
    }

    /// Whether both may know of each other's prompts.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        let scope = self.scope();
        self.is_sibling(other) || scope.is_some() && scope == other.scope()
    }

    pub(super) fn scope(&self) -> Option<&str> {
        self.request.cache_scope.as_deref()
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.request.prompt
    }

    /// The part of the prompt that is in the cache.
    pub(super) fn read(&self) -> &[u32] {
        self.request.prompt.get(..self.prefilled.unwrap_or(0)).unwrap_or_default()
    }

    pub(super) fn cache(&self) -> &C {
        &self.cache.cache
    }

    pub(super) fn cache_mut(&mut self) -> &mut C {
        &mut self.cache.cache
    }

    /// Whether it is known where the prompt begins to be read.
    pub(super) fn has_begun(&self) -> bool {
        self.prefilled.is_some()
    }

    /// Begins behind the tokens that the cache holds already.
    pub(super) fn begin(&mut self, cached: usize) {
        if cached > 0 {
            self.sender.cached(token_count(cached));
        }
        self.prefilled = Some(cached);
    }

    /// Tokens of the prompt that are not in the cache yet; 0 once the stream is generating.
    pub(super) fn prompt_left(&self) -> usize {
        self.request.prompt.len().saturating_sub(self.read().len())
    }

    /// What the next step appends: `prompt_tokens` of the prompt, or the last token once the prompt is done.
    pub(super) fn append(&mut self, prompt_tokens: usize) -> Append<'_, C> {
        let rest = self.request.prompt.get(self.prefilled.unwrap_or(0)..).unwrap_or_default();
        let tokens = if rest.is_empty() {
            self.generated.get(self.appended..).unwrap_or_default()
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
        let read = self.read().len().saturating_add(prompt_tokens).min(self.request.prompt.len());
        self.prefilled = Some(read);
        self.appended = self.generated.len();
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
        self.generated.push(token.id);
        self.sender.token(token);
        Ok((self.generated.len() >= self.request.max_tokens.get()).then_some(FinishReason::Length))
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

    /// What the cache holds, for later requests of the same scope.
    pub(super) fn held(&self) -> Option<Held> {
        let scope = self.request.cache_scope.clone()?;
        let generated = self.generated.get(..self.appended).unwrap_or_default();
        Some(Held { scope, ids: [self.read(), generated].concat() })
    }

    pub(super) fn into_parts(self) -> (CompletionSender, Lent<C>) {
        (self.sender, self.cache)
    }
}
