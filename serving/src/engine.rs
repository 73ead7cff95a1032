//! What the host asks of an engine: token ids in, token ids or text out. Nothing here knows tensors or HTTP.

pub mod builtin;
mod channel;
pub mod upstream;

use std::{
    error::Error,
    fmt,
    num::{NonZeroU16, NonZeroUsize},
    pin::Pin,
    sync::Arc,
};

use model::{LogitAdjustments, SamplingParameters};

pub use self::channel::{
    CompletionEvent, CompletionSender, CompletionStream, Finish, FinishReason, GeneratedToken, ReportedUsage,
    completion_channel,
};

/// Generates completions for many requests at once.
///
/// Implementations must finish every stream that they accept: with [`CompletionEvent::Finished`], with an error, or,
/// when they die, by dropping the sender, which the reader sees as [`EngineError::Stopped`].
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Most tokens that a prompt and its completion may have together.
    fn context_length(&self) -> usize;

    /// Whether completions come as tokens. Those that come as text have no log-probabilities, and the host does not
    /// know how many tokens were generated.
    fn yields_tokens(&self) -> bool {
        true
    }

    /// Accepts a request with all its choices, or refuses it at once; never waits for room. One stream for each choice.
    ///
    /// Dropping a stream cancels its choice.
    fn submit(&self, request: GenerationRequest) -> Result<Vec<CompletionStream>, EngineError>;

    /// Stops accepting requests. What was accepted is finished.
    fn drain(&self);

    /// Whether the engine would work on a request that came now: that it is there, and not that it has room. An engine that is
    /// somewhere else is asked, which can take as long as it likes.
    fn probe(&self) -> Probe<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// An engine that is being asked.
pub type Probe<'a> = Pin<Box<dyn Future<Output = Result<(), EngineError>> + Send + 'a>>;

/// Completions of one prompt. Its fields but `cache_scope` are all that the completions depend on.
#[derive(Clone)]
pub struct GenerationRequest {
    /// Templated prompt, special tokens included. At least one.
    pub prompt: Arc<[u32]>,
    /// How many completions. The first is the one that a request for a single one gets.
    pub choices: NonZeroU16,
    /// A completion finishes after this many tokens if nothing else ends it.
    pub max_tokens: NonZeroUsize,
    /// Tokens that end a completion. They are not delivered and not counted: the client sees no text of them.
    pub stop_tokens: Arc<[u32]>,
    /// How each token is drawn. The same parameters give the same tokens, whatever else the engine is doing.
    pub sampling: SamplingParameters,
    /// What is added to the logits before a token is drawn.
    pub adjustments: LogitAdjustments,
    /// Asks for every token's log-probability, and for those of so many of the likeliest tokens.
    pub likeliest: Option<usize>,
    /// Requests of one scope may reuse what the engine keeps of each other's prompts, which shows in their times and in
    /// [`CompletionEvent::Cached`]. Without a scope nothing is shared and nothing is kept.
    pub cache_scope: Option<Arc<str>>,
}

impl GenerationRequest {
    /// Whether an engine of so many tokens can do this at all.
    fn check(&self, context: usize, vocabulary: usize) -> Result<(), EngineError> {
        let (prompt, completion) = (self.prompt.len(), self.max_tokens.get());
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        if prompt.saturating_add(completion) > context {
            return Err(EngineError::ContextExceeded { prompt, completion, context });
        }
        let unknown = |id: &u32| usize::try_from(*id).is_ok_and(|id| id >= vocabulary);
        if let Some(id) = self.prompt.iter().copied().find(unknown) {
            return Err(EngineError::UnknownToken { id, vocabulary });
        }
        match self.adjustments.bias.keys().copied().find(unknown) {
            Some(id) => Err(EngineError::UnknownBias { id, vocabulary }),
            None => Ok(()),
        }
    }
}

/// The prompt is private: only its length is printed.
impl fmt::Debug for GenerationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationRequest")
            .field("prompt_tokens", &self.prompt.len())
            .field("choices", &self.choices)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
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
    /// The request biases a token that the model does not have.
    #[error("biased token {id} is not in the model's vocabulary of {vocabulary}")]
    UnknownBias {
        /// The token.
        id: u32,
        /// Number of tokens that the model knows.
        vocabulary: usize,
    },
    /// The engine never has room for so many completions of one request.
    #[error("{choices} completions of one request can never wait together; at most {most} can")]
    TooManyChoices {
        /// Completions that were asked for.
        choices: usize,
        /// How many there may be.
        most: usize,
    },
    /// The engine cannot do what a parameter of the request asks for.
    #[error("the engine does not know the parameter {parameter}")]
    Unsupported {
        /// The parameter, by the name that clients give it.
        parameter: &'static str,
    },
    /// The server that the engine stands for did not begin to answer.
    #[error("the engine's server cannot be reached or is failing")]
    Unreachable {
        /// What happened.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// That server does not accept what the host sends it.
    #[error("the engine's server refused a request")]
    Refused {
        /// What it answered.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// That server's answer broke off, or makes no sense.
    #[error("the engine's server gave no whole answer")]
    Broken {
        /// What is wrong with it.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
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
            Self::QueueFull { .. }
            | Self::Draining
            | Self::Stopped
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Compute { .. } => true,
            Self::ContextExceeded { .. }
            | Self::EmptyPrompt
            | Self::UnknownToken { .. }
            | Self::UnknownBias { .. }
            | Self::Unsupported { .. }
            | Self::Refused { .. }
            | Self::TooManyChoices { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> GenerationRequest {
        GenerationRequest {
            prompt: Arc::from([4711, 4712]),
            choices: NonZeroU16::MIN,
            max_tokens: NonZeroUsize::MIN,
            stop_tokens: Arc::from([]),
            sampling: SamplingParameters { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 },
            adjustments: LogitAdjustments::default(),
            likeliest: None,
            cache_scope: None,
        }
    }

    #[test]
    fn debug_output_holds_no_prompt() {
        let printed = format!("{:?}", request());
        assert!(!printed.contains("4711"), "{printed}");
    }
}
