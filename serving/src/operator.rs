//! What the operator of a host looks at, on an address of its own: it shows money, and the customers' address is public.
//!
//! `/healthz` and `/readyz` for whatever keeps the host running, `/metrics` for Prometheus, `/` for people.

mod figures;
mod metrics;
mod page;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing,
};
use serde_json::json;

use self::figures::Figures;
use crate::{admission, state::AppState};

/// The routes.
pub(crate) fn router(state: AppState) -> Router {
    Router::new()
        .route("/", routing::get(status))
        .route("/metrics", routing::get(scrape))
        .route("/healthz", routing::get(healthy))
        .route("/readyz", routing::get(ready))
        .with_state(state)
}

/// The process is alive.
pub(crate) async fn healthy() -> &'static str {
    "ok\n"
}

/// Whether requests would be admitted, and if not, why.
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let reasons = reasons(&state);
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

fn reasons(state: &AppState) -> Vec<String> {
    let mut reasons = Vec::new();
    if state.is_stopping() {
        reasons.push("the host is shutting down".to_owned());
    }
    let Some(metering) = state.metering() else { return reasons };
    for model in state.models() {
        let Some(lease) = &model.lease else { continue };
        if let Err(refusal) = admission::check_open(metering, lease) {
            reasons.push(format!("{}: {}", model.id, refusal.reason()));
        }
    }
    reasons
}

async fn scrape(State(state): State<AppState>) -> Response {
    match Figures::read(&state).await.map(|figures| metrics::text(&state, &figures)) {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

async fn status(State(state): State<AppState>) -> Response {
    match Figures::read(&state).await {
        Ok(figures) => {
            let mut response = Html(page::page(&figures, &reasons(&state))).into_response();
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "failed to put the host's figures together: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "The host's figures could not be read; its log says why.\n").into_response()
}
