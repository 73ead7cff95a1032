//! `GET /v1/statements/{id}`: what a request came to, by its answer's id or by its statement's digest.
//!
//! Nobody is asked who he is: ids are drawn at random, and a statement holds counts and digests, no text.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use protocol::ids::StatementDigest;
use serde_json::json;

use super::error::ApiError;
use crate::{books::Entry, state::AppState};

/// Looks a statement up. One that is not on the disk is not there.
pub(super) async fn retrieve(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let metering = state.metering().ok_or_else(|| ApiError::no_statement(&id))?;
    let books = metering.books();
    let found = match id.parse::<StatementDigest>() {
        Ok(digest) => books.statement(digest).await,
        Err(_) => books.statement_of(&id).await,
    };
    let found = found.map_err(|error| ApiError::internal("The statement could not be looked up.").caused_by(error))?;
    let Entry { statement, digest, answer, epoch, .. } = found.ok_or_else(|| ApiError::no_statement(&id))?;
    Ok(Json(json!({ "statement_id": digest, "answer": answer, "epoch": epoch, "statement": statement }))
        .into_response())
}
