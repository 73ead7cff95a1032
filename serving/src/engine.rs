//! What the host asks of an engine: token ids in, token ids out. Nothing here knows tensors, text or HTTP.

pub mod builtin;

use std::{error::Error, fmt, num::NonZeroUsize, sync::Arc};

use model::SamplingParameters;
use tokio::sync::mpsc;

/// Generates tokens for many requests at once.
///
/// Implementations must finish every stream that they accept: with [`TokenEvent::Finished`], with an error, or, when
/// they die, by dropping the sender, which the reader sees as [`EngineError::Stopped`].
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Most tokens that a prompt and its completion may have together.
    fn context_length(&self) -> usize;

    /// Accepts a request or refuses it at once; never waits for room.
    ///
    /// Dropping the returned stream cancels the request.
    fn submit(&self, request: GenerationRequest) -> Result<TokenStream, EngineError>;

    /// Stops accepting requests. What was accepted is finished.
    fn drain(&self);
}

/// One completion to generate.
#[derive(Clone)]
pub struct GenerationRequest {
    /// Templated prompt, special tokens included. At least one.
    pub prompt: Vec<u32>,
    /// The stream finishes after this many tokens if nothing else ends it.
    pub max_tokens: NonZeroUsize,
    /// Tokens that end the stream. They are not delivered and not counted: the client sees no text of them.
    pub stop_tokens: Arc<[u32]>,
    /// How each token is drawn. The same parameters give the same tokens, whatever else the engine is doing.
    pub sampling: SamplingParameters,
}

/// The prompt is private: only its length is printed.
impl fmt::Debug for GenerationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationRequest")
            .field("prompt_tokens", &self.prompt.len())
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

/// What a stream delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEvent {
    /// The next token of the completion.
    Token(u32),
    /// Nothing follows.
    Finished(FinishReason),
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so, or one of the request's stop strings appeared.
    Stop,
    /// The request's token limit was reached.
    Length,
}

/// Why an engine refused a request or broke off a stream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// Too many requests wait already.
    #[error("{waiting} requests are waiting already")]
    QueueFull {
        /// Requests in the queue.
        waiting: usize,
    },
    /// The engine finishes what it has and takes nothing new.
    #[error("the engine is shutting down")]
    Draining,
    /// The engine is gone.
    #[error("the engine stopped")]
    Stopped,
    /// The request could not fit.
    #[error("a prompt of {prompt} and a completion of up to {completion} tokens exceed the context of {context}")]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: usize,
        /// Most tokens of the completion.
        completion: usize,
        /// The engine's [`context_length`](Engine::context_length).
        context: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The model has no such token.
    #[error("token {id} is not in the model's vocabulary of {vocabulary}")]
    UnknownToken {
        /// The token.
        id: u32,
        /// Number of tokens that the model knows.
        vocabulary: usize,
    },
    /// Computing the next token failed.
    #[error("failed to compute the next token")]
    Compute {
        /// What failed. Shared, because one failure ends every stream of a batch.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl EngineError {
    /// Whether the same request may succeed later or elsewhere without a change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::QueueFull { .. } | Self::Draining | Self::Stopped | Self::Compute { .. } => true,
            Self::ContextExceeded { .. } | Self::EmptyPrompt | Self::UnknownToken { .. } => false,
        }
    }
}

/// The reading end of a request's tokens. Dropping it cancels the request.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::Receiver<Result<TokenEvent, EngineError>>,
}

impl TokenStream {
    /// Waits for the next event. Cancel safe. Not to be called again after `Finished` or an error.
    pub async fn next(&mut self) -> Result<TokenEvent, EngineError> {
        self.events.recv().await.unwrap_or(Err(EngineError::Stopped))
    }

    /// Tells the engine that nothing more will be read.
    pub fn cancel(&mut self) {
        self.events.close();
    }
}

/// The engine's end of a request's tokens.
#[derive(Debug)]
pub struct TokenSender {
    events: mpsc::Sender<Result<TokenEvent, EngineError>>,
}

/// Joins an engine to the reader of one request.
///
/// The channel holds a whole completion, so an engine never waits for a slow reader, and what a reader leaves unread is
/// bounded by `max_tokens` events of a few bytes.
pub fn token_channel(max_tokens: NonZeroUsize) -> (TokenSender, TokenStream) {
    let capacity = max_tokens.get().saturating_add(1).min(tokio::sync::Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel(capacity);
    (TokenSender { events: sender }, TokenStream { events: receiver })
}

impl TokenSender {
    /// Delivers a token. At most `max_tokens` of them.
    pub fn send(&self, token: u32) {
        self.deliver(Ok(TokenEvent::Token(token)));
    }

    /// Ends the stream.
    pub fn finish(self, reason: FinishReason) {
        self.deliver(Ok(TokenEvent::Finished(reason)));
    }

    /// Breaks the stream off.
    pub fn fail(self, error: EngineError) {
        self.deliver(Err(error));
    }

    /// Whether nobody reads any more, so that further work would be wasted.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    fn deliver(&self, event: Result<TokenEvent, EngineError>) {
        // Cannot be full (see `token_channel`); closed means abandoned, which the engine finds out at its next step.
        self.events.try_send(event).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> GenerationRequest {
        GenerationRequest {
            prompt: vec![4711, 4712],
            max_tokens: NonZeroUsize::MIN,
            stop_tokens: Arc::from([]),
            sampling: SamplingParameters { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 },
        }
    }

    #[test]
    fn debug_output_holds_no_prompt() {
        let printed = format!("{:?}", request());
        assert!(!printed.contains("4711"), "{printed}");
    }

    #[tokio::test]
    async fn unread_completion_fits_the_channel() {
        let (sender, mut stream) = token_channel(NonZeroUsize::new(3).unwrap());
        (0..3).for_each(|token| sender.send(token));
        sender.finish(FinishReason::Length);
        for token in 0..3 {
            assert_eq!(stream.next().await.unwrap(), TokenEvent::Token(token));
        }
        assert_eq!(stream.next().await.unwrap(), TokenEvent::Finished(FinishReason::Length));
    }

    #[tokio::test]
    async fn dead_engine_is_an_error_and_not_an_end() {
        let (sender, mut stream) = token_channel(NonZeroUsize::MIN);
        drop(sender);
        assert!(matches!(stream.next().await, Err(EngineError::Stopped)));
    }

    #[tokio::test]
    async fn cancelled_stream_is_seen_by_the_engine() {
        let (sender, mut stream) = token_channel(NonZeroUsize::MIN);
        assert!(!sender.is_abandoned());
        stream.cancel();
        assert!(sender.is_abandoned());
    }
}
