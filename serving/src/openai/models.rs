//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    Json,
    extract::{Path, State},
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
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    let model = state.model(&id).ok_or_else(|| ApiError::model_not_found(&id))?;
    Ok(Json(object(model)))
}

fn object(model: &ServedModel) -> ModelObject {
    ModelObject { id: model.id.clone(), object: "model", created: model.created.0, owned_by: "hallmark" }
}
