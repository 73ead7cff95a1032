//! Reads request bodies within limits of size and time.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use tokio::{sync::OwnedSemaphorePermit, time};
use tokio_stream::StreamExt;

use super::error::ApiError;
use crate::state::AppState;

/// How many times the limit is still read, and thrown away, before the refusal: many clients look for an answer only
/// when they have sent everything.
const DISCARDED_LIMITS: usize = 8;

/// A body that is UTF-8 and within the limits, and the leave to work on it. No `Debug`: it holds a prompt.
pub(super) struct RequestBody {
    pub(super) text: String,
    pub(super) leave: Leave,
}

/// What a request counts for. It goes wherever the request goes, to other threads too.
#[derive(Debug)]
pub(super) struct Leave {
    /// Held until the answer is made: in one piece, or its last event in the queue of the connection.
    pub(super) open: OwnedSemaphorePermit,
    /// Held until the text is token ids; `None` for an empty body.
    pub(super) text: Option<OwnedSemaphorePermit>,
}

impl FromRequest<AppState> for RequestBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limits = state.limits();
        let open = state.open_request().ok_or_else(|| ApiError::busy(limits.retry_after))?;
        if !is_json(request.headers()) {
            return Err(ApiError::not_json_type());
        }
        let declared = content_length(request.headers());
        if declared.is_some_and(|bytes| bytes > limits.body_bytes.saturating_mul(DISCARDED_LIMITS)) {
            return Err(ApiError::body_too_large(limits.body_bytes));
        }
        let read = time::timeout(limits.body_timeout, collect(request.into_body(), state)).await;
        let (bytes, text) = read.map_err(|_| ApiError::body_timeout())??;
        let leave = Leave { open, text };
        let text = String::from_utf8(bytes)
            .map_err(|_| ApiError::invalid("invalid_encoding", "The request body is not valid UTF-8."))?;
        Ok(Self { text, leave })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The bytes of a body, and the room that was reserved for them as they came: what a client only announces costs nobody.
async fn collect(body: Body, state: &AppState) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
    let limits = state.limits();
    let limit_bytes = limits.body_bytes;
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    let mut received: usize = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("incomplete_body", "The request body broke off."))?;
        received = received.saturating_add(chunk.len());
        if received <= limit_bytes {
            let more = state.reserve_text(chunk.len()).ok_or_else(|| ApiError::busy(limits.retry_after))?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            bytes.extend_from_slice(&chunk);
        } else if received > limit_bytes.saturating_mul(DISCARDED_LIMITS) {
            break;
        } else {
            (bytes, room) = (Vec::new(), None);
        }
    }
    if received > limit_bytes { Err(ApiError::body_too_large(limit_bytes)) } else { Ok((bytes, room)) }
}
