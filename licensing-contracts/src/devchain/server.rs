//! The chain over HTTP: one route, POST, JSON-RPC. Browsers may ask from any page: there is nothing secret on it.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{DevChain, json_rpc};

/// Largest body. A transaction has 128 KiB at most, and a batch a thousand requests.
const MOST_BODY_BYTES: usize = 8 * 1024 * 1024;

/// How long a client may take to send its headers, or its body.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long open connections have to finish when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Most connections at a time; further ones wait in the system's queue.
const MOST_CONNECTIONS: usize = 512;

/// Headers that let a browser's wallet ask from any page.
const CORS: [(HeaderName, HeaderValue); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS")),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, content-type, authorization")),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
];

/// Asked by browsers for servers on the same machine.
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on: in use, or not this machine's.
    #[error("failed to listen on {address}")]
    Listen {
        /// Asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens: the port is a real one also if zero was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://…`, for clients on this machine.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the server has stopped by its token.
    pub async fn stopped(mut self) {
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            warn!("the development chain's server ended badly: {error}");
        }
    }

    /// Stops accepting, lets open requests finish for five seconds, and returns when everything is closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.stopped().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stopped` there is nothing to stop, and cancelling again does nothing.
        self.stop.cancel();
    }
}

impl DevChain {
    /// Serves the chain over HTTP at `address` until the token is cancelled or the returned server is dropped.
    pub async fn serve(&self, address: SocketAddr, shutdown: &CancellationToken) -> Result<Server, ServeError> {
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = shutdown.child_token();
        let accepting = accept(self.clone(), listener, stop.clone());
        let task = Some(TaskTracker::new().spawn(accepting));
        info!("the development chain listens on {address}");
        Ok(Server { address, stop, task })
    }
}

async fn accept(chain: DevChain, listener: TcpListener, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Stopping goes before everything else, or a busy server would never stop.
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(chain.clone(), stream, graceful.watcher()));
                }
                Err(error) => {
                    // Out of file descriptors, for instance: some will close.
                    warn!("failed to accept a connection: {error}");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop(listener);
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        warn!("closing {} connections of the development chain that did not finish", connections.len());
    }
    connections.shutdown().await;
}

async fn connection(chain: DevChain, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
    let service = service_fn(move |request| handle(chain.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!("a connection to the development chain ended: {error}");
    }
}

async fn handle(chain: DevChain, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let private_network = request.headers().contains_key("access-control-request-private-network");
    let (status, body) = match *request.method() {
        Method::OPTIONS => (StatusCode::NO_CONTENT, Vec::new()),
        Method::POST => post(chain, request.into_body()).await,
        _ => {
            let body = json_rpc::failure(-32600, "invalid request: JSON-RPC is sent by POST");
            (StatusCode::METHOD_NOT_ALLOWED, body)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(CORS);
    if private_network {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    }
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

async fn post(chain: DevChain, body: Incoming) -> (StatusCode, Vec<u8>) {
    let too_large = || {
        let message = format!("invalid request: the body is larger than {MOST_BODY_BYTES} bytes");
        (StatusCode::PAYLOAD_TOO_LARGE, json_rpc::failure(-32600, message))
    };
    // What says that it is too large is not read.
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > MOST_BODY_BYTES {
        return too_large();
    }
    let body = match timeout(PATIENCE, Limited::new(body, MOST_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(_)) => {
            return (StatusCode::BAD_REQUEST, json_rpc::failure(-32600, "invalid request: the body broke off"));
        }
        Err(_) => {
            let body = json_rpc::failure(-32600, "invalid request: the body took too long");
            return (StatusCode::REQUEST_TIMEOUT, body);
        }
    };
    // Calls can take a while, and the loop that accepts connections must go on.
    match tokio::task::spawn_blocking(move || json_rpc::answer(&chain, &body)).await {
        Ok(Some(answer)) => (StatusCode::OK, answer),
        Ok(None) => (StatusCode::NO_CONTENT, Vec::new()),
        Err(error) => {
            warn!("a request to the development chain failed inside: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, json_rpc::failure(-32603, "internal error"))
        }
    }
}
