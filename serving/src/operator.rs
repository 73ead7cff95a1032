//! What the operator of a host looks at, on an address of its own: it shows money, and the customers' address is public.
//!
//! `/healthz` and `/readyz` for whatever keeps the host running, `/metrics` for Prometheus, `/` for people.

mod engines;
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

pub(crate) use self::engines::EngineHealth;
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
    let reasons = reasons(&state).await;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn reasons(state: &AppState) -> Vec<String> {
    if state.is_stopping() {
        return vec!["the host is shutting down".to_owned()];
    }
    // All at once: none waits for another's patience. On tasks: what an engine answers is kept, also if nobody waits for it.
    let probe = |place| {
        let asking = state.clone();
        state.tasks().spawn(async move { asking.engine_trouble(place).await })
    };
    let probes: Vec<_> = (0..state.models().len()).map(probe).collect();
    let mut reasons = Vec::new();
    for (model, probe) in state.models().iter().zip(probes) {
        if let Some((metering, lease)) = state.metering().zip(model.lease.as_ref())
            && let Err(refusal) = admission::check_open(metering, lease)
        {
            reasons.push(format!("{}: {}", model.id, refusal.reason()));
        }
        let trouble = probe.await.unwrap_or_else(|_| Some("the engine could not be asked".to_owned()));
        reasons.extend(trouble.map(|trouble| format!("{}: {trouble}", model.id)));
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
            let mut response = Html(page::page(&figures, &reasons(&state).await)).into_response();
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
