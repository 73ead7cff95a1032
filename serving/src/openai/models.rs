//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::Uri,
};

use super::{
    error::ApiError,
    types::{ModelList, ModelObject},
};
use crate::state::{AppState, ServedModel};

pub(super) async fn list(State(state): State<AppState>) -> Json<ModelList> {
    let data = state.models().iter().map(|model| object(model)).collect();
    Json(ModelList { object: "list", data })
}

/// Ids contain slashes (`org/name`), as they are or as `%2F`.
pub(super) async fn retrieve(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<ModelObject>, ApiError> {
    // What is not UTF-8 is no model's id; the client is told what it sent.
    let Path(id) = id.map_err(|_| ApiError::model_not_found(uri.path().trim_start_matches("/v1/models/")))?;
    let model = state.model(&id).ok_or_else(|| ApiError::model_not_found(&id))?;
    Ok(Json(object(model)))
}

fn object(model: &ServedModel) -> ModelObject {
    ModelObject { id: model.id.clone(), object: "model", created: model.created.0, owned_by: "hallmark" }
}
