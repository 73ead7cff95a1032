//! Refusals and failures in OpenAI's shape.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{causes::Causes, engine::EngineError};

/// Read by OpenAI's clients before they decide for themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// x402's offer, as base64 of JSON.
const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");

/// The code of a refusal, on its response, for whoever counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Not as it is.
    Never,
    /// In a moment.
    Later,
    /// Not before so long.
    After { seconds: u64 },
}

/// What a client is told. Sources go to the log and never into the message.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<String>,
    /// Boxed: few errors have it, and every result has room for an error.
    more: Box<More>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What only refusals of payments have.
#[derive(Debug, Default)]
struct More {
    retry: Option<Retry>,
    /// Members of `error`.
    details: Map<String, Value>,
    /// Members beside `error`.
    offer: Option<Map<String, Value>>,
    /// x402's offer.
    header: Option<HeaderValue>,
}

/// The wire form: `{"error": {...}}`.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorFields<'a>,
    #[serde(flatten)]
    offer: Option<&'a Map<String, Value>>,
}

#[derive(Debug, Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    #[serde(flatten)]
    details: &'a Map<String, Value>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        Self { status, kind, code, message, param: None, more: Box::default(), source: None }
    }

    /// 400 for a request that no server state could make right.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message.into())
    }

    /// A refusal for a reason that admission gives.
    pub(crate) fn refusal(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        Self::new(status, kind, code, message)
    }

    /// Adds members to `error`.
    pub(crate) fn with_details(mut self, details: Map<String, Value>) -> Self {
        self.more.details = details;
        self
    }

    /// Says whether to try again.
    pub(crate) fn with_retry(mut self, retry: Retry) -> Self {
        self.more.retry = Some(retry);
        self
    }

    /// Adds an offer: members of the body, and a header.
    pub(crate) fn with_payment(mut self, members: Map<String, Value>, header: Option<HeaderValue>) -> Self {
        (self.more.offer, self.more.header) = (Some(members), header);
        self
    }

    /// 503 for a statement that is not on the disk.
    pub(crate) fn storage() -> Self {
        let message = "The host could not write its account of this request to its journal, so the answer does not count as \
                       complete. Send the next request as if there had been none: if a statement was made, the refusal names it.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "storage_unavailable", message.to_owned())
    }

    /// Names the field that is to blame.
    pub(crate) fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Keeps what went wrong for the log.
    pub(crate) fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// A field that the request must have.
    pub(crate) fn missing(param: &str) -> Self {
        Self::invalid("missing_required_parameter", format!("Missing required parameter: '{param}'.")).about(param)
    }

    /// A field of the wrong JSON type.
    pub(crate) fn wrong_type(param: &str, expected: &str) -> Self {
        Self::invalid("invalid_type", format!("Invalid type for '{param}': expected {expected}.")).about(param)
    }

    /// A field whose value is not possible.
    pub(crate) fn wrong_value(param: &str, expected: &str) -> Self {
        Self::invalid("invalid_value", format!("Invalid value for '{param}': expected {expected}.")).about(param)
    }

    /// A field that would change the answer and is not implemented.
    pub(crate) fn unsupported(param: &str, accepted: &str) -> Self {
        let message = format!("'{param}' is not supported by this server: leave it out, or send {accepted}.");
        Self::invalid("unsupported_parameter", message).about(param)
    }

    /// A field that OpenAI's API does not have.
    pub(crate) fn unknown_field(param: &str) -> Self {
        let message = format!("Unrecognized request argument supplied: {param}. Remove it from the request.");
        Self::invalid("unknown_parameter", message).about(param)
    }

    /// 404 for a model that is not served here.
    pub(crate) fn model_not_found(id: &str) -> Self {
        let message = format!("The model '{id}' does not exist on this server. GET /v1/models lists those that do.");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message).about("model")
    }

    /// 409 while a request with the same key runs.
    pub(crate) fn in_progress() -> Self {
        let message =
            "A request with this Idempotency-Key is running. Ask again for its answer in a moment.".to_owned();
        Self::new(StatusCode::CONFLICT, "invalid_request_error", "idempotency_in_progress", message)
            .with_retry(Retry::Later)
    }

    /// 422 for a key that belongs to another request.
    pub(crate) fn other_request() -> Self {
        let message = "This Idempotency-Key was used for another request. Use a new key for a new request.".to_owned();
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "idempotency_mismatch", message)
            .with_retry(Retry::Never)
    }

    /// 400 for an answer that could not be given again.
    pub(crate) fn not_kept() -> Self {
        let message = "Answers with log-probabilities are not kept: leave out the Idempotency-Key, or 'logprobs'.";
        Self::invalid("unsupported_parameter", message).about("logprobs")
    }

    /// 404 for a statement that is not in the journal.
    pub(crate) fn no_statement(id: &str) -> Self {
        let message = format!(
            "There is no statement '{}' in this host's journal. A request that delivered nothing has none.",
            id.chars().take(80).collect::<String>()
        );
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "statement_not_found", message)
    }

    /// 404 for a path that is not part of the API.
    pub(crate) fn unknown_path(method: &Method, path: &str) -> Self {
        let message = format!(
            "Unknown request URL: {method} {path}. This server has /v1/models, /v1/completions and /v1/chat/completions."
        );
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "unknown_url", message)
    }

    /// 405 for a path that exists under another method.
    pub(crate) fn wrong_method(method: &Method, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}. Use the method in the Allow header.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_supported", message)
    }

    /// 413 for a body over the limit.
    pub(crate) fn body_too_large(limit_bytes: usize) -> Self {
        let message =
            format!("The request body is larger than {limit_bytes} bytes, the most that this server accepts.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", message)
    }

    /// 415 for a body that does not call itself JSON.
    pub(crate) fn not_json_type() -> Self {
        let message = "The request body must be JSON: send the header Content-Type: application/json.".to_owned();
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_content_type", message)
    }

    /// 408 for a body that did not arrive in time.
    pub(crate) fn body_timeout() -> Self {
        let message = "The request body did not arrive in time. Send it again.".to_owned();
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "request_timeout", message)
    }

    /// 400 for a prompt that gives the model nothing to continue.
    pub(crate) fn empty_prompt() -> Self {
        Self::invalid("empty_prompt", "The prompt has no tokens. Send some text.")
    }

    /// 400 for a prompt and completion that do not fit the context.
    pub(crate) fn context_exceeded(context: usize, prompt: usize, completion: Option<usize>) -> Self {
        let asked = match completion {
            Some(completion) => format!(
                "you requested {} tokens ({prompt} in the prompt, {completion} in the completion)",
                prompt.saturating_add(completion)
            ),
            None => format!("your prompt has {prompt} tokens and leaves no room for a completion"),
        };
        let message = format!(
            "This model's maximum context length is {context} tokens, but {asked}. Shorten the prompt or the completion."
        );
        Self::invalid("context_length_exceeded", message)
    }

    /// 400 for a text that is too long for the context however it is tokenized.
    pub(crate) fn text_exceeds_context(context: usize, bytes: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens, and your prompt has {bytes} bytes, which cannot fit. \
             Shorten the prompt."
        );
        Self::invalid("context_length_exceeded", message)
    }

    /// 400 for a longer completion than this host generates.
    pub(crate) fn completion_too_long(param: &str, most: usize) -> Self {
        let message =
            format!("This server generates at most {most} tokens for one request. Ask for no more than that.");
        Self::invalid("invalid_value", message).about(param)
    }

    /// 504 for an answer that takes too long.
    pub(crate) fn generation_timeout(limit: Duration) -> Self {
        let message = format!(
            "The answer was not complete after {} seconds, the most that this server gives to one. Ask for fewer tokens.",
            limit.as_secs_f32()
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", "generation_timeout", message)
    }

    /// 429 for a host that has enough to do.
    pub(crate) fn busy(retry_after: Duration) -> Self {
        let message = "The server is busy. Try again after the time in the Retry-After header.".to_owned();
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "server_busy", message);
        error.more.retry = Some(Retry::After { seconds: retry_after.as_secs() });
        error
    }

    /// 503 for a host that is going away.
    pub(crate) fn shutting_down() -> Self {
        let message = "The server is shutting down. Send the request to another one.".to_owned();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "shutting_down", message)
    }

    /// 500 for a failure that is not the client's.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message.to_owned())
    }

    /// An engine's refusal or failure. `retry_after` is what a client is told when the queue is full.
    pub(crate) fn engine(error: EngineError, retry_after: Duration) -> Self {
        match error {
            EngineError::QueueFull { .. } => Self::busy(retry_after),
            EngineError::Draining => Self::shutting_down(),
            EngineError::ContextExceeded { prompt, completion, context } => {
                Self::context_exceeded(context, prompt, Some(completion))
            }
            EngineError::EmptyPrompt => Self::empty_prompt(),
            EngineError::UnknownToken { id, vocabulary } => {
                let message = format!("Token {id} is not in this model's vocabulary of {vocabulary} tokens.");
                Self::invalid("invalid_value", message).about("prompt")
            }
            EngineError::UnknownBias { id, vocabulary } => {
                let message = format!("Token {id} is not in this model's vocabulary of {vocabulary} tokens.");
                Self::invalid("invalid_value", message).about("logit_bias")
            }
            EngineError::TooManyChoices { most, .. } => {
                let message = format!("This server generates at most {most} completions for one request.");
                Self::invalid("invalid_value", message).about("n")
            }
            EngineError::Unsupported { parameter } => Self::unsupported(parameter, "null"),
            error @ EngineError::Unreachable { .. } => {
                let message = "The engine behind this server is not available. Try again later, or send the request to \
                               another one.";
                let mut unavailable = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "server_error",
                    "engine_unavailable",
                    message.to_owned(),
                );
                unavailable.more.retry = Some(Retry::After { seconds: retry_after.as_secs() });
                unavailable.caused_by(error)
            }
            error @ EngineError::Refused { .. } => {
                let message =
                    "The engine behind this server did not accept this request. Its operator has to find out why.";
                Self::internal(message).with_retry(Retry::Never).caused_by(error)
            }
            error @ (EngineError::Stopped | EngineError::Broken { .. } | EngineError::Compute { .. }) => {
                let message = "The engine failed while it worked on this request. Send the request again.";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "engine_error", message.to_owned())
                    .caused_by(error)
            }
        }
    }

    /// What a client is told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn body(&self) -> ErrorBody<'_> {
        let Self { message, kind, code, more, .. } = self;
        let error = ErrorFields { message, kind, param: self.param.as_deref(), code, details: &more.details };
        ErrorBody { error, offer: more.offer.as_ref() }
    }

    /// Logs the source, once, where the error leaves the host.
    pub(crate) fn log(&self) {
        if let Some(source) = &self.source {
            let causes = Causes(source.as_ref());
            tracing::error!(code = self.code, error = %causes, "answered {}: {causes}", self.status.as_u16());
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status, Json(self.body())).into_response();
        response.extensions_mut().insert(ErrorCode(self.code));
        if let Some(Retry::After { seconds }) = self.more.retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        // OpenAI's clients would send the same again, twice, and each time hold the host for as long, or be refused as before.
        let retry = match self.more.retry {
            Some(Retry::Never) => Some("false"),
            Some(Retry::Later) => Some("true"),
            Some(Retry::After { .. }) => None,
            None => (self.status == StatusCode::GATEWAY_TIMEOUT).then_some("false"),
        };
        if let Some(retry) = retry {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(retry));
        }
        if let Some(offer) = self.more.header {
            response.headers_mut().insert(PAYMENT_REQUIRED, offer);
        }
        response
    }
}
