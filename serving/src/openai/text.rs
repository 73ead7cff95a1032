//! From an engine's tokens, or its text, to the text that a client sees.

use std::task::{Context, Poll, ready};

use model::{StreamDecoder, Tokenizer};
use protocol::units::TokenCount;

use super::{
    attribution::{Attribution, TextToken},
    stop::{Matched, StopMatcher},
};
use crate::{
    engine::{CompletionEvent, CompletionStream, EngineError, Finish, FinishReason, GeneratedToken},
    usage::token_count,
};

/// Text, and the tokens that it is made of if log-probabilities are wanted. No `Debug`: it holds text.
#[derive(Default)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) tokens: Option<Vec<TextToken>>,
}

impl Said {
    /// Adds what was said next.
    pub(super) fn append(&mut self, next: Self) {
        self.text += &next.text;
        if let Some(more) = next.tokens {
            self.tokens.get_or_insert_default().extend(more);
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.as_ref().is_none_or(Vec::is_empty)
    }
}

/// What a [`TextStream`] delivers. No `Debug`: it holds text.
pub(super) enum TextEvent {
    /// More text; never empty.
    Piece(Said),
    /// Nothing follows.
    Finished(FinishReason),
}

/// What an engine has told about a completion so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Tokens that were generated for what has been said; from an engine that yields text, the most that can have been.
    pub(super) generated: TokenCount,
    /// Tokens of the prompt that came from a cache.
    pub(super) cached: TokenCount,
    /// The end, once it is there.
    pub(super) finish: Option<Finish>,
}

/// The text of one completion. Dropping it cancels the completion. No `Debug`: it holds text.
pub(super) struct TextStream {
    events: CompletionStream,
    decoder: StreamDecoder,
    stops: StopMatcher,
    /// Only if log-probabilities are wanted.
    attribution: Option<Attribution>,
    progress: Progress,
}

impl TextStream {
    pub(super) fn new(tokenizer: &Tokenizer, events: CompletionStream, stop: Vec<String>, logprobs: bool) -> Self {
        Self {
            events,
            decoder: tokenizer.stream_decoder(true),
            stops: StopMatcher::new(stop),
            attribution: logprobs.then(|| Attribution::new(tokenizer.clone())),
            progress: Progress::default(),
        }
    }

    /// Whether its pieces come with their tokens.
    pub(super) fn has_logprobs(&self) -> bool {
        self.attribution.is_some()
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// The next piece, if it is there. Not to be called again after `Finished` or an error.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<TextEvent, EngineError>> {
        loop {
            if let Some(finish) = self.progress.finish {
                return Poll::Ready(Ok(TextEvent::Finished(finish.reason)));
            }
            let event = ready!(self.events.poll_next(context))?;
            let said = self.take(event);
            if !said.is_empty() {
                return Poll::Ready(Ok(TextEvent::Piece(said)));
            }
        }
    }

    /// What an event makes certain.
    fn take(&mut self, event: CompletionEvent) -> Said {
        match event {
            CompletionEvent::Cached(tokens) => {
                self.progress.cached = tokens;
                Said::default()
            }
            CompletionEvent::Token(token) => {
                let text = self.decode(&token);
                self.pass(&text)
            }
            CompletionEvent::Text(text) => {
                self.progress.generated = token_count(self.events.max_tokens().get());
                self.pass(&text)
            }
            CompletionEvent::Finished(finish) => self.end(finish),
        }
    }

    fn decode(&mut self, token: &GeneratedToken) -> String {
        let generated = self.progress.generated;
        self.progress.generated = generated.checked_add(TokenCount::new(1)).unwrap_or(generated);
        let text = self.decoder.push(token.id).unwrap_or_default();
        if let (Some(attribution), Some(likelihood)) = (&mut self.attribution, &token.likelihood) {
            attribution.token(token.id, likelihood, &text);
        }
        text
    }

    fn pass(&mut self, text: &str) -> Said {
        match self.stops.push(text) {
            Matched::Text(text) => self.say(text),
            Matched::Stopped(text) => {
                self.progress.finish = Some(Finish { reason: FinishReason::Stop, reported: None });
                self.events.cancel();
                let mut said = self.say(text);
                said.append(self.last_tokens(true));
                said
            }
        }
    }

    /// The engine has finished: what was held back is certain now.
    fn end(&mut self, finish: Finish) -> Said {
        let rest = self.decoder.finish().unwrap_or_default();
        if let Some(attribution) = &mut self.attribution {
            attribution.decoded(&rest);
        }
        let mut said = self.pass(&rest);
        if self.progress.finish.is_none() {
            let held = self.stops.finish();
            said.append(self.say(held));
            said.append(self.last_tokens(false));
            self.progress.finish = Some(finish);
        }
        said
    }

    fn say(&mut self, text: String) -> Said {
        let tokens = self.attribution.as_mut().map(|attribution| attribution.deliver(&text));
        Said { text, tokens }
    }

    fn last_tokens(&mut self, cut: bool) -> Said {
        Said { text: String::new(), tokens: self.attribution.as_mut().map(|attribution| attribution.finish(cut)) }
    }
}

#[cfg(test)]
mod tests;
