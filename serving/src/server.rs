//! Puts the routes behind a listener and takes them down gracefully.

use std::{any::Any, future::Future, io, pin::pin, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
    serve::{Listener, ListenerExt},
};
use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::{
    openai::{
        self,
        error::{ApiError, ErrorCode},
    },
    operator,
    state::AppState,
    tls::{Tls, TlsListener},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What connections get to deliver their last error once the patience of shutdown is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// All routes of the host.
fn router(state: AppState) -> Router {
    openai::router()
        .route("/healthz", routing::get(operator::healthy))
        .route("/readyz", routing::get(operator::ready))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(state.clone(), request_id))
        .with_state(state)
}

/// Serves until `shutdown` completes, then stops listening, lets running requests finish for
/// [`drain_timeout`](crate::Limits::drain_timeout), breaks off the rest with an error, and drains the engines.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // Tokens are small and must not wait for one another in the kernel.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
    });
    run(listener, state, shutdown).await
}

/// The same over HTTPS.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = TlsListener::start(listener, tls, state.tasks());
    run(listener, state, shutdown).await
}

/// Serves what the operator looks at, until `stop`.
pub(crate) async fn serve_operator(listener: TcpListener, state: AppState, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, operator::router(state)).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn run<L>(listener: L, state: AppState, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let stopping = CancellationToken::new();
    let begin = {
        let (stopping, state) = (stopping.clone(), state.clone());
        async move {
            shutdown.await;
            state.begin_to_stop();
            stopping.cancel();
        }
    };
    let mut server = pin!(axum::serve(listener, router(state.clone())).with_graceful_shutdown(begin).into_future());
    let patience = async {
        stopping.cancelled().await;
        time::sleep(state.limits().drain_timeout).await;
    };
    tokio::select! {
        // In order: a server that has ended needs no more patience.
        biased;
        result = &mut server => result?,
        () = patience => {
            tracing::warn!("requests still run after the drain timeout; breaking them off");
            state.abort().cancel();
            // A reader that takes nothing, not even the error, is left behind.
            if let Ok(result) = time::timeout(LAST_WORDS, &mut server).await {
                result?;
            }
        }
    }
    for model in state.models() {
        model.engine.drain();
    }
    state.tasks().close();
    if time::timeout(LAST_WORDS, state.tasks().wait()).await.is_err() {
        tracing::warn!("{} tasks still run after shutdown", state.tasks().len());
    }
    Ok(())
}

/// Gives every request an id, for the answer's header and for everything that is logged meanwhile.
async fn request_id(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = state.draw_id("req_");
    let span = tracing::info_span!("request", id = %id, method = %request.method());
    let mut response = next.run(request).instrument(span).await;
    let code = response.extensions().get::<ErrorCode>().map_or("", |code| code.0);
    state.metrics().response(response.status().as_u16(), code);
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The panic's message is not passed on: it may quote the request.
fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::internal("The server failed while it worked on this request.").into_response()
}
