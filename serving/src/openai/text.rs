//! From an engine's token ids to the text that a client sees.

use std::sync::Arc;

use model::StreamDecoder;
use tokio::time::Instant;

use super::stop::{Matched, StopMatcher};
use crate::{
    engine::{EngineError, FinishReason, TokenEvent, TokenStream},
    state::ServedModel,
    usage::Usage,
};

/// What a [`TextStream`] delivers. No `Debug`: it holds text.
pub(super) enum TextEvent {
    /// More text; never empty.
    Piece(String),
    /// Nothing follows.
    Finished(FinishReason),
}

/// How a request ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nobody read to the end: the client hung up, or the host's patience was over.
    BrokenOff,
    Finished,
    Failed,
}

/// The text of one completion, and the only place that counts its tokens.
///
/// Dropping it cancels the generation and closes the account, however the request ended. No `Debug`: it holds text.
pub(super) struct TextStream {
    request: String,
    model: Arc<ServedModel>,
    tokens: TokenStream,
    decoder: StreamDecoder,
    stops: StopMatcher,
    usage: Usage,
    deadline: Instant,
    finish: Option<FinishReason>,
    outcome: Outcome,
}

impl TextStream {
    /// `request` is the id under which the log shows it; at the `deadline` it is no longer worth waiting.
    pub(super) fn new(
        request: String,
        model: Arc<ServedModel>,
        tokens: TokenStream,
        stops: StopMatcher,
        usage: Usage,
        deadline: Instant,
    ) -> Self {
        let decoder = model.tokenizer.stream_decoder(true);
        Self { request, model, tokens, decoder, stops, usage, deadline, finish: None, outcome: Outcome::BrokenOff }
    }

    /// What was used so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// When whoever waits for this should give up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for the next piece. Cancel safe. Not to be called again after `Finished` or an error.
    pub(super) async fn next(&mut self) -> Result<TextEvent, EngineError> {
        loop {
            if let Some(reason) = self.finish {
                self.outcome = Outcome::Finished;
                return Ok(TextEvent::Finished(reason));
            }
            let event = self.tokens.next().await.inspect_err(|_| self.outcome = Outcome::Failed)?;
            let piece = self.take(event);
            if !piece.is_empty() {
                return Ok(TextEvent::Piece(piece));
            }
        }
    }

    /// The text that an event makes certain.
    fn take(&mut self, event: TokenEvent) -> String {
        match event {
            TokenEvent::Token(id) => {
                self.usage.count();
                self.decoder.push(id).map(|text| self.pass(&text)).unwrap_or_default()
            }
            TokenEvent::Finished(reason) => {
                let mut piece = self.decoder.finish().map(|text| self.pass(&text)).unwrap_or_default();
                if self.finish.is_none() {
                    piece += &self.stops.finish();
                    self.finish = Some(reason);
                }
                piece
            }
        }
    }

    fn pass(&mut self, text: &str) -> String {
        match self.stops.push(text) {
            Matched::Text(text) => text,
            Matched::Stopped(text) => {
                self.finish = Some(FinishReason::Stop);
                self.tokens.cancel();
                text
            }
        }
    }
}

impl Drop for TextStream {
    fn drop(&mut self) {
        let Self { request, model, usage, finish, outcome, .. } = self;
        let (prompt, completion) = (usage.prompt(), usage.completion());
        tracing::info!(
            request.id = %request,
            model.id = %model.id,
            prompt_tokens = prompt.get(),
            completion_tokens = completion.get(),
            ?outcome,
            ?finish,
            "request {request} on {}: {prompt} prompt and {completion} completion tokens, {outcome:?}",
            model.id,
        );
    }
}
