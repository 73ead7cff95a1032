//! OpenAI's API as its clients expect it.
//!
//! Reference: <https://platform.openai.com/docs/api-reference>. Checked with the official Python package.

pub(crate) mod account;
mod attribution;
mod chat;
mod completions;
pub(crate) mod error;
mod fields;
mod generate;
mod generation;
mod logprobs;
mod metered;
mod models;
mod once;
mod parameters;
mod payment;
mod record;
pub mod replay;
mod request;
mod sse;
mod statements;
mod stop;
#[cfg(test)]
mod testkit;
mod text;
mod types;

use axum::{Router, http::Method, http::Uri, routing};

use self::{chat::Chat, completions::Completions, error::ApiError};
use crate::state::AppState;

/// The OpenAI routes, and answers in OpenAI's shape for every other path and method.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/models", routing::get(models::list))
        .route("/v1/models/{*id}", routing::get(models::retrieve))
        .route("/v1/statements/{id}", routing::get(statements::retrieve))
        .route("/v1/completions", routing::post(generate::create::<Completions>))
        .route("/v1/chat/completions", routing::post(generate::create::<Chat>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
}

async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_path(&method, uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(&method, uri.path())
}
