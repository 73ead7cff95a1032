//! Several nodes as one transport.
//!
//! One node is used until it fails, then the next one: nodes are a little apart, and a reader that hops between them sees
//! blocks come and go. alloy's fallback asks several at once and takes the fastest answer, which does just that.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use alloy::{
    primitives::U64,
    rpc::{
        client::RpcClient,
        json_rpc::{ErrorPayload, RequestPacket, ResponsePacket},
    },
    transports::{
        TransportError, TransportErrorKind, TransportFut,
        http::{Http, reqwest::Client},
    },
};
use tower::Service;
use url::Url;

use super::ChainError;

/// How nodes are asked.
#[derive(Clone, Debug)]
pub struct RpcSettings {
    /// For one request to one node.
    pub timeout: Duration,
    /// Rounds over all nodes before a request fails.
    pub rounds: u32,
    /// Pause after the first round; it doubles with each one.
    pub backoff: Duration,
}

impl Default for RpcSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), rounds: 4, backoff: Duration::from_millis(250) }
    }
}

/// One node.
#[derive(Clone)]
pub(super) struct Endpoint {
    transport: Http<Client>,
    name: String,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.name)
    }
}

impl Endpoint {
    /// Scheme, host and port: paths and queries of RPC addresses hold keys.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn chain_id(&self) -> Result<u64, TransportError> {
        let client = RpcClient::new(self.transport.clone(), false);
        let id: U64 = client.request_noparams("eth_chainId").await?;
        Ok(id.to())
    }
}

pub(super) fn endpoints(urls: &[Url], settings: &RpcSettings) -> Result<Vec<Endpoint>, ChainError> {
    let client = Client::builder().timeout(settings.timeout).build().map_err(|source| ChainError::Rpc {
        attempted: "make an HTTP client".to_owned(),
        source: TransportErrorKind::custom(source),
    })?;
    let endpoint = |url: &Url| Endpoint {
        transport: Http::with_client(client.clone(), url.clone()),
        name: url.origin().ascii_serialization(),
    };
    if urls.is_empty() { Err(ChainError::NoEndpoint) } else { Ok(urls.iter().map(endpoint).collect()) }
}

pub(super) fn client(endpoints: Vec<Endpoint>, settings: &RpcSettings) -> RpcClient {
    let transports = endpoints.into_iter().map(|endpoint| endpoint.transport).collect();
    RpcClient::new(Failover { transports, current: Arc::default(), settings: settings.clone() }, false)
}

/// Asks the node that answered last, and moves on when it fails.
#[derive(Clone)]
struct Failover<S> {
    transports: Vec<S>,
    current: Arc<AtomicUsize>,
    settings: RpcSettings,
}

impl<S> Failover<S>
where
    S: Service<RequestPacket, Response = ResponsePacket, Error = TransportError, Future = TransportFut<'static>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    async fn ask(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let mut pause = self.settings.backoff;
        let mut last = TransportErrorKind::custom_str("no node was asked");
        for round in 0..self.settings.rounds.max(1) {
            if round > 0 {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
            for _ in 0..self.transports.len() {
                let index = self.current.load(Ordering::Relaxed);
                let Some(mut transport) = self.transports.get(index).cloned() else { break };
                match transport.call(request.clone()).await {
                    Ok(response) if !is_busy(&response) => return Ok(response),
                    // Every node said so: the answer stands, with its reason.
                    Ok(response) if round.saturating_add(1) >= self.settings.rounds => return Ok(response),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(node = index, "a chain node did not answer: {error}");
                        last = error;
                    }
                }
                // Another task may have moved on already; one step is enough.
                let next = index.saturating_add(1).checked_rem(self.transports.len()).unwrap_or(0);
                self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed).unwrap_or(index);
            }
        }
        Err(last)
    }
}

/// A node that limits the rate answers with an error of its own instead of a failed request.
fn is_busy(response: &ResponsePacket) -> bool {
    response.as_error().is_some_and(ErrorPayload::is_retry_err)
}

impl<S> Service<RequestPacket> for Failover<S>
where
    S: Service<RequestPacket, Response = ResponsePacket, Error = TransportError, Future = TransportFut<'static>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().ask(request))
    }
}
