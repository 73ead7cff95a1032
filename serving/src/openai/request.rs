//! Reads request bodies within limits of size and time.

use std::time::Duration;

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
    /// Held until the last byte of the answer.
    pub(super) permit: OwnedSemaphorePermit,
}

impl FromRequest<AppState> for RequestBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limits = state.limits();
        let permit = state.open_request().ok_or_else(|| ApiError::busy(limits.retry_after))?;
        if !is_json(request.headers()) {
            return Err(ApiError::not_json_type());
        }
        let declared = content_length(request.headers());
        if declared.is_some_and(|bytes| bytes > limits.body_bytes.saturating_mul(DISCARDED_LIMITS)) {
            return Err(ApiError::body_too_large(limits.body_bytes));
        }
        let bytes = read(request.into_body(), limits.body_bytes, limits.body_timeout).await?;
        let text = String::from_utf8(bytes)
            .map_err(|_| ApiError::invalid("invalid_encoding", "The request body is not valid UTF-8."))?;
        Ok(Self { text, permit })
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

async fn read(body: Body, limit_bytes: usize, patience: Duration) -> Result<Vec<u8>, ApiError> {
    time::timeout(patience, collect(body, limit_bytes)).await.map_err(|_| ApiError::body_timeout())?
}

async fn collect(body: Body, limit_bytes: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut received: usize = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("incomplete_body", "The request body broke off."))?;
        received = received.saturating_add(chunk.len());
        if received <= limit_bytes {
            bytes.extend_from_slice(&chunk);
        } else if received > limit_bytes.saturating_mul(DISCARDED_LIMITS) {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if received > limit_bytes { Err(ApiError::body_too_large(limit_bytes)) } else { Ok(bytes) }
}
