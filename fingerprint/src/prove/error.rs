//! What can go wrong between the prover and the server, each with what to do about it.
//!
//! No variant holds an API key or a part of a secret request or its answer.

use std::{error::Error as _, io, time::Duration};

use reqwest::StatusCode;
use thiserror::Error;

use super::endpoint::{ReplyError, said};

/// Why a call to the server gave no answer that can be used.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address cannot be a base URL.
    #[error("cannot use this address as an API's base URL: {reason}")]
    Address {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key cannot be sent in a header.
    #[error("the API key holds characters that a header cannot carry; check how it was copied")]
    ApiKey,
    /// The user agent cannot be sent in a header.
    #[error("the user agent holds characters that a header cannot carry")]
    UserAgent,
    /// The limits contradict themselves.
    #[error("the rate limit must be a positive number of requests per second, and at least one a day")]
    RateLimit,
    /// No HTTP client.
    #[error("failed to set up the HTTP client; check the proxy and the system's certificates")]
    Setup {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No connection.
    #[error("cannot reach {host}; check the address, that the server runs and that no firewall is in between")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No connection in time.
    #[error("no connection to {host} within {} s; check the address, or allow more time", .limit.as_secs_f64())]
    ConnectTimedOut {
        /// Host and port.
        host: String,
        /// The limit that was set.
        limit: Duration,
    },
    /// No complete answer in time.
    #[error("{host} gave no complete answer within {} s; allow more time or ask whoever runs it", .limit.as_secs_f64())]
    TimedOut {
        /// Host and port.
        host: String,
        /// The limit that was set.
        limit: Duration,
    },
    /// The TLS handshake failed.
    #[error(
        "no secure connection to {host}; check its certificate and this machine's clock, or use http:// if the server speaks no TLS"
    )]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke before the answer was complete.
    #[error("{host} broke off in the middle of its answer; try again, or ask whoever runs it or a proxy before it")]
    BrokenOff {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The bytes are no HTTP.
    #[error("{host} does not answer as an HTTP server; check the port, and https:// against http://")]
    NotHttp {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server points elsewhere.
    #[error(
        "{host} redirects to {location}; redirects are not followed, so give the API's address there if you trust it"
    )]
    Redirected {
        /// Host and port.
        host: String,
        /// Scheme, host and port that it points to.
        location: String,
    },
    /// 401.
    #[error("{host} does not accept the API key (401){}", if *.with_key { "; check the key" } else { "; give one in HALLMARK_API_KEY" })]
    Unauthorised {
        /// Host and port.
        host: String,
        /// Whether a key was sent.
        with_key: bool,
    },
    /// 403.
    #[error(
        "{host} forbids this call (403); check that the API key may use this model and that this network is allowed"
    )]
    Forbidden {
        /// Host and port.
        host: String,
    },
    /// 404 or 405.
    #[error("{host} knows no such path or model ({status} at {path}); check the base URL and the model's name{}", said(.message))]
    NotFound {
        /// Host and port.
        host: String,
        /// 404 or 405.
        status: u16,
        /// The path that was called.
        path: String,
        /// What the server says about it.
        message: Option<String>,
    },
    /// Another refusal that repeating does not mend.
    #[error("{host} refuses the request ({status}); check the model's name, the kind of call and the options{}", said(.message))]
    Refused {
        /// Host and port.
        host: String,
        /// The status.
        status: u16,
        /// What the server says about it.
        message: Option<String>,
    },
    /// 429, and no repetition left.
    #[error(
        "{host} still refuses for too many requests (429) after {attempts} attempts; lower the rate or wait for the quota{}",
        asked(.retry_after)
    )]
    TooManyRequests {
        /// Host and port.
        host: String,
        /// How often it was asked.
        attempts: u32,
        /// What the last answer asked for.
        retry_after: Option<Duration>,
    },
    /// 408 or 5xx, and no repetition left.
    #[error("{host} fails with status {status} after {attempts} attempts; try later or ask whoever runs it{}", asked(.retry_after))]
    ServerFailed {
        /// Host and port.
        host: String,
        /// The last status.
        status: u16,
        /// How often it was asked.
        attempts: u32,
        /// What the last answer asked for.
        retry_after: Option<Duration>,
    },
    /// More bytes than allowed.
    #[error("{host} answers with more than {limit_bytes} bytes; check that the URL is an OpenAI-compatible API")]
    TooLarge {
        /// Host and port.
        host: String,
        /// The limit that was set.
        limit_bytes: usize,
    },
    /// Bytes that are no text.
    #[error("{host} answers with bytes that are not UTF-8 text; check for a proxy that compresses answers")]
    NotUtf8 {
        /// Host and port.
        host: String,
    },
    /// The answer repeats the API key, so it may not be recorded.
    #[error(
        "{host} repeats the API key in its answer, so the answer is not recorded; revoke that key and use another server"
    )]
    EchoesApiKey {
        /// Host and port.
        host: String,
    },
    /// A success status, but no reply inside.
    #[error("{host} answers nothing usable")]
    Reply {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        #[source]
        source: ReplyError,
    },
}

fn asked(retry_after: &Option<Duration>) -> String {
    retry_after.map(|wait| format!(" (it asks to wait {} s)", wait.as_secs())).unwrap_or_default()
}

impl ClientError {
    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ConnectTimedOut { .. }
            | Self::TimedOut { .. }
            | Self::BrokenOff { .. }
            | Self::TooManyRequests { .. }
            | Self::ServerFailed { .. } => true,
            Self::Reply { source, .. } => matches!(source, ReplyError::Truncated | ReplyError::Empty),
            _ => false,
        }
    }

    /// What the server asked to wait before the next attempt.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::ServerFailed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same error, telling how often the request was sent.
    pub(crate) fn after(mut self, count: u32) -> Self {
        if let Self::TooManyRequests { attempts, .. } | Self::ServerFailed { attempts, .. } = &mut self {
            *attempts = count;
        }
        self
    }

    /// Sorts a failure of the HTTP client. `connect` and `request` are the limits that were set.
    pub(crate) fn from_transport(error: reqwest::Error, host: &str, connect: Duration, request: Duration) -> Self {
        let host = host.to_owned();
        // The URL is left out because the sentence already names the host.
        let source = error.without_url();
        let tls = causes(&source).any(|cause| cause.is::<rustls::Error>());
        let broken = causes(&source).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
            matches!(
                cause.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
            )
        });
        if tls {
            Self::Tls { host, source }
        } else if source.is_timeout() && source.is_connect() {
            Self::ConnectTimedOut { host, limit: connect }
        } else if source.is_timeout() {
            Self::TimedOut { host, limit: request }
        } else if source.is_connect() {
            Self::Unreachable { host, source }
        } else if broken || source.is_body() || source.is_decode() || incomplete(&source) {
            Self::BrokenOff { host, source }
        } else {
            Self::NotHttp { host, source }
        }
    }

    /// Sorts an answer's status; `None` for a success.
    pub(crate) fn from_status(answer: &Answer<'_>) -> Option<Self> {
        let (host, status) = (answer.host.to_owned(), answer.status.as_u16());
        let message = answer.message.clone();
        Some(match answer.status {
            status if status.is_success() => return None,
            status if status.is_redirection() => {
                let location = answer.location.clone().unwrap_or_else(|| "an unnamed place".to_owned());
                Self::Redirected { host, location }
            }
            StatusCode::UNAUTHORIZED => Self::Unauthorised { host, with_key: answer.with_key },
            StatusCode::FORBIDDEN => Self::Forbidden { host },
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Self::NotFound { host, status, path: answer.path.to_owned(), message }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Self::TooManyRequests { host, attempts: 1, retry_after: answer.retry_after }
            }
            StatusCode::REQUEST_TIMEOUT => {
                Self::ServerFailed { host, status, attempts: 1, retry_after: answer.retry_after }
            }
            code if code.is_server_error() => {
                Self::ServerFailed { host, status, attempts: 1, retry_after: answer.retry_after }
            }
            _ => Self::Refused { host, status, message },
        })
    }
}

/// What an answer's status is judged by.
pub(crate) struct Answer<'a> {
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) with_key: bool,
    pub(crate) location: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// What the server says; already without secrets.
    pub(crate) message: Option<String>,
}

/// The error and everything below it, looking inside `io::Error` too.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &Cause> + '_ {
    std::iter::successors(error.source(), below)
}

fn below<'a>(cause: &&'a Cause) -> Option<&'a Cause> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        // A reference to an error is an error too, but does not live as long.
        None => (**cause).source(),
    }
}

type Cause = dyn std::error::Error + 'static;

/// hyper keeps the kind of its errors to itself, so only the text tells a closed connection from bytes that are no HTTP.
fn incomplete(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let text = cause.to_string();
        text.contains("connection closed") || text.contains("message completed")
    })
}
