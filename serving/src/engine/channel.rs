//! How one completion gets from an engine to its reader.

use std::{
    num::NonZeroUsize,
    task::{Context, Poll},
};

use model::Likelihood;
use protocol::units::TokenCount;
use tokio::sync::mpsc;

use super::EngineError;

/// What an engine says about one completion.
///
/// One that owns the model yields [`Token`](Self::Token)s, one in front of another server yields
/// [`Text`](Self::Text); never both in one completion.
#[derive(Clone, Debug, PartialEq)]
pub enum CompletionEvent {
    /// So many tokens of the prompt were not computed but taken from a cache. At most once, at any time before the end.
    Cached(TokenCount),
    /// The next token.
    Token(GeneratedToken),
    /// More text.
    Text(String),
    /// Nothing follows.
    Finished(Finish),
}

/// A token of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// The token.
    pub id: u32,
    /// How likely it was, if the request asked.
    pub likelihood: Option<Box<Likelihood>>,
}

/// The end of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// What the engine itself says that it used. Bills are not made of it: the host counts, and reports differences.
    pub reported: Option<ReportedUsage>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so, or one of the request's stop strings appeared.
    Stop,
    /// The request's token limit was reached.
    Length,
}

/// An engine's own count of one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedUsage {
    /// Tokens of the prompt.
    pub prompt: TokenCount,
    /// Tokens of the completion.
    pub completion: TokenCount,
}

/// The reading end of a completion. Dropping it cancels the completion.
#[derive(Debug)]
pub struct CompletionStream {
    events: mpsc::Receiver<Result<CompletionEvent, EngineError>>,
    max_tokens: NonZeroUsize,
}

impl CompletionStream {
    /// Waits for the next event. Cancel safe. Not to be called again after `Finished` or an error.
    pub async fn next(&mut self) -> Result<CompletionEvent, EngineError> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`next`](Self::next) for whoever reads several completions at once.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<CompletionEvent, EngineError>> {
        self.events.poll_recv(context).map(|event| event.unwrap_or(Err(EngineError::Stopped)))
    }

    /// Most tokens that the completion may have.
    pub fn max_tokens(&self) -> NonZeroUsize {
        self.max_tokens
    }

    /// Tells the engine that nothing more will be read.
    pub fn cancel(&mut self) {
        self.events.close();
    }
}

/// The engine's end of a completion.
#[derive(Debug)]
pub struct CompletionSender {
    events: mpsc::Sender<Result<CompletionEvent, EngineError>>,
}

/// Events of a completion that are neither tokens nor text.
const OTHER_EVENTS: usize = 2;

/// Joins an engine to the reader of one completion.
///
/// The channel holds a whole completion of tokens, so an engine that yields them never waits for a slow reader, and what
/// a reader leaves unread is bounded by `max_tokens` events of a few bytes, a few hundred with likelihoods.
pub fn completion_channel(max_tokens: NonZeroUsize) -> (CompletionSender, CompletionStream) {
    let capacity = max_tokens.get().saturating_add(OTHER_EVENTS).min(tokio::sync::Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel(capacity);
    (CompletionSender { events: sender }, CompletionStream { events: receiver, max_tokens })
}

impl CompletionSender {
    /// Says how much of the prompt came from a cache.
    pub fn cached(&self, tokens: TokenCount) {
        self.deliver(Ok(CompletionEvent::Cached(tokens)));
    }

    /// Delivers a token. At most `max_tokens` of them.
    pub fn token(&self, token: GeneratedToken) {
        self.deliver(Ok(CompletionEvent::Token(token)));
    }

    /// Delivers a piece of text. Waits while as much is unread as the channel holds: what another server sends is
    /// bounded by nothing else.
    pub async fn text(&self, text: String) {
        // Closed means abandoned; whoever sends looks at `is_abandoned`.
        self.events.send(Ok(CompletionEvent::Text(text))).await.ok();
    }

    /// [`cached`](Self::cached) for a completion of text. Waits as [`text`](Self::text) does.
    pub async fn cached_of_text(&self, tokens: TokenCount) {
        self.events.send(Ok(CompletionEvent::Cached(tokens))).await.ok();
    }

    /// Waits until nobody reads any more.
    pub async fn abandoned(&self) {
        self.events.closed().await;
    }

    /// Whether nobody reads any more, so that further work would be wasted.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Ends the completion.
    pub fn finish(self, reason: FinishReason) {
        self.deliver(Ok(CompletionEvent::Finished(Finish { reason, reported: None })));
    }

    /// Ends a completion of text, with the engine's own count if it gives one. Waits as [`text`](Self::text) does.
    pub async fn finish_text(self, finish: Finish) {
        self.events.send(Ok(CompletionEvent::Finished(finish))).await.ok();
    }

    /// Breaks the completion off. Text that is unread and fills the channel hides the reason, not the end.
    pub fn fail(self, error: EngineError) {
        self.deliver(Err(error));
    }

    fn deliver(&self, event: Result<CompletionEvent, EngineError>) {
        // Cannot be full of tokens (see `completion_channel`); closed means abandoned, which the engine finds out at its
        // next step.
        self.events.try_send(event).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32) -> GeneratedToken {
        GeneratedToken { id, likelihood: None }
    }

    #[tokio::test]
    async fn unread_completion_fits_the_channel() {
        let (sender, mut stream) = completion_channel(NonZeroUsize::new(3).unwrap());
        sender.cached(TokenCount::new(9));
        (0..3).for_each(|id| sender.token(token(id)));
        sender.finish(FinishReason::Length);
        assert_eq!(stream.next().await.unwrap(), CompletionEvent::Cached(TokenCount::new(9)));
        for id in 0..3 {
            assert_eq!(stream.next().await.unwrap(), CompletionEvent::Token(token(id)));
        }
        let finish = Finish { reason: FinishReason::Length, reported: None };
        assert_eq!(stream.next().await.unwrap(), CompletionEvent::Finished(finish));
    }

    #[tokio::test]
    async fn text_that_nobody_reads_waits_and_is_not_lost() {
        let (sender, mut stream) = completion_channel(NonZeroUsize::MIN);
        let write = async {
            for piece in 0..20 {
                sender.text(piece.to_string()).await;
            }
            sender.finish_text(Finish { reason: FinishReason::Stop, reported: None }).await;
        };
        let read = async {
            let mut text = String::new();
            while let CompletionEvent::Text(piece) = stream.next().await.unwrap() {
                text += &piece;
            }
            text
        };
        let ((), text) = tokio::join!(write, read);
        assert_eq!(text, (0..20).map(|piece| piece.to_string()).collect::<String>());
    }

    #[tokio::test]
    async fn dead_engine_is_an_error_and_not_an_end() {
        let (sender, mut stream) = completion_channel(NonZeroUsize::MIN);
        drop(sender);
        assert!(matches!(stream.next().await, Err(EngineError::Stopped)));
    }

    #[tokio::test]
    async fn cancelled_stream_is_seen_by_the_engine() {
        let (sender, mut stream) = completion_channel(NonZeroUsize::MIN);
        assert!(!sender.is_abandoned());
        stream.cancel();
        assert!(sender.is_abandoned());
        sender.abandoned().await;
    }
}
