//! What goes wrong between the host and the server that it stands in front of.

use std::{sync::Arc, time::Duration};

use model::{chat::ChatError, tokenizer::TokenizerError};
use reqwest::StatusCode;
use url::Url;

use crate::engine::EngineError;

/// Why an engine in front of another server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamStartError {
    /// The model's tokenizer is not to be had.
    #[error("failed to load the tokenizer of the model that the server at {server} runs")]
    Tokenizer {
        /// The server.
        server: Arc<Url>,
        /// What is wrong with it.
        #[source]
        source: TokenizerError,
    },
    /// The model's chat template is not to be had.
    #[error("failed to load the chat template of the model that the server at {server} runs")]
    ChatTemplate {
        /// The server.
        server: Arc<Url>,
        /// What is wrong with it.
        #[source]
        source: ChatError,
    },
    /// The address cannot be asked.
    #[error(
        "{server} is not the address of an engine's API: it must be http or https, without a password, as http://127.0.0.1:8000/v1"
    )]
    Address {
        /// What was given, without its password.
        server: Arc<Url>,
    },
    /// The key is not one that fits into a header.
    #[error("the key for {server} has characters that no header can have")]
    Key {
        /// The server.
        server: Arc<Url>,
    },
    /// The client could not be made.
    #[error("failed to set up the connection to {server}")]
    Client {
        /// The server.
        server: Arc<Url>,
        /// What the HTTP client said.
        #[source]
        source: reqwest::Error,
    },
    /// The server does not answer as it should.
    #[error("failed to ask {server} for its models")]
    Models {
        /// The server.
        server: Arc<Url>,
        /// What happened.
        #[source]
        source: UpstreamError,
    },
    /// The server runs another model, or several, of which none was chosen.
    #[error("{server} serves {}, and not {}", listed.join(", "), wanted.as_deref().unwrap_or("one model alone: name the one to use"))]
    Model {
        /// The server.
        server: Arc<Url>,
        /// The name that was looked for.
        wanted: Option<String>,
        /// Names of its models.
        listed: Vec<String>,
    },
    /// Nobody knows how long a prompt may be.
    #[error("{server} does not tell the context length of {model}: give it in the settings")]
    ContextLength {
        /// The server.
        server: Arc<Url>,
        /// The model.
        model: String,
    },
}

/// Why a server gave no answer, or none that can be used. Never quotes what it sent: that may be the customer's text.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The request did not reach the server, or its answer did not begin.
    #[error("failed to send the request")]
    Send {
        /// What the HTTP client said.
        #[source]
        source: reqwest::Error,
    },
    /// The server has enough to do.
    #[error("the server has too many requests")]
    Busy,
    /// Another status than 200.
    #[error("the server answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
    /// Nothing came for too long.
    #[error("the server sent nothing for {} s", waited.as_secs_f32())]
    Silent {
        /// How long.
        waited: Duration,
        /// Whether a part of the answer was there already.
        begun: bool,
    },
    /// The connection broke.
    #[error("failed to read the server's answer")]
    Read {
        /// What the HTTP client said.
        #[source]
        source: reqwest::Error,
    },
    /// One event, or an answer that is not a stream, exceeds what is kept in memory.
    #[error("the server sent more than {limit_bytes} bytes in one piece")]
    TooLarge {
        /// The most that is kept.
        limit_bytes: usize,
    },
    /// An event is no text.
    #[error("the server sent bytes that are not UTF-8")]
    NotUtf8,
    /// An event, or an answer that is not a stream, has another form. The parser's own words may quote it.
    #[error("the server sent JSON of another form than OpenAI's, at line {line} column {column}")]
    Malformed {
        /// Line of the first mistake.
        line: usize,
        /// Column of the first mistake.
        column: usize,
    },
    /// The server says that it failed.
    #[error("the server reported a failure in the middle of its answer")]
    Failed,
    /// An event is about a choice that nobody asked for.
    #[error("the server sent text of choice {index} where one was asked for")]
    OtherChoice {
        /// Number of the choice.
        index: u64,
    },
    /// More text than so many tokens can have.
    #[error("the server sent more than {limit_bytes} bytes of text, which so few tokens cannot have")]
    TooMuchText {
        /// The most that they can have.
        limit_bytes: usize,
    },
    /// Text came when there was to be none.
    #[error("the server sent text after the end of it")]
    AfterEnd,
    /// The answer ended for a reason that makes no answer of it.
    #[error("the server ended its answer for a reason that is neither its end nor its length")]
    Reason,
    /// The stream is over and the answer is not.
    #[error("the server's answer ended {}", if *has_reason { "without [DONE]" } else { "without a reason" })]
    Incomplete {
        /// Whether there was a reason for an end.
        has_reason: bool,
    },
}

impl From<&serde_json::Error> for UpstreamError {
    fn from(error: &serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

impl UpstreamError {
    /// What it means for the request. `open` is how many requests the server has from this host.
    pub(super) fn for_request(self, open: usize) -> EngineError {
        match self {
            Self::Busy => EngineError::QueueFull { waiting: open },
            Self::Send { .. } | Self::Silent { begun: false, .. } => {
                EngineError::Unreachable { source: Arc::new(self) }
            }
            Self::Status { status } if status.is_server_error() => EngineError::Unreachable { source: Arc::new(self) },
            Self::Status { .. } => EngineError::Refused { source: Arc::new(self) },
            _ => EngineError::Broken { source: Arc::new(self) },
        }
    }
}
