//! Several nodes as one transport.
//!
//! One node is used until it fails, then the next one: nodes are a little apart, and a reader that hops between them sees
//! blocks come and go. alloy's fallback asks several at once and takes the fastest answer, which does just that.

mod node;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use alloy::{
    primitives::ChainId,
    rpc::{
        client::RpcClient,
        json_rpc::{ErrorPayload, RequestPacket, ResponsePacket},
    },
    transports::{TransportError, TransportErrorKind, TransportFut, http::reqwest::Client},
};
use tower::Service;
use url::Url;

pub(super) use self::node::Node;
use super::ChainError;

/// The longest pause that a node that limits the rate is granted.
const MOST_PATIENCE: Duration = Duration::from_secs(30);

/// How nodes are asked.
#[derive(Clone, Debug)]
pub struct RpcSettings {
    /// For one request to one node.
    pub timeout: Duration,
    /// Rounds over all nodes before a request fails.
    pub rounds: u32,
    /// Pause after the first round; it doubles with each one, and lasts as long as a node asks for.
    pub backoff: Duration,
}

impl Default for RpcSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), rounds: 4, backoff: Duration::from_millis(250) }
    }
}

pub(super) fn nodes(urls: &[Url], settings: &RpcSettings) -> Result<Vec<Node>, ChainError> {
    let client = Client::builder().timeout(settings.timeout).build().map_err(|source| ChainError::Rpc {
        attempted: "make an HTTP client".to_owned(),
        source: TransportErrorKind::custom(source),
    })?;
    if urls.is_empty() {
        return Err(ChainError::NoEndpoint);
    }
    Ok(urls.iter().map(|url| Node::new(client.clone(), url)).collect())
}

pub(super) fn client(nodes: Vec<Node>, chain: ChainId, settings: &RpcSettings) -> RpcClient {
    RpcClient::new(Failover { nodes: nodes.into(), chain, current: Arc::default(), settings: settings.clone() }, false)
}

/// Asks the node that answered last, and moves on when it fails.
#[derive(Clone, Debug)]
struct Failover {
    nodes: Arc<[Node]>,
    chain: ChainId,
    current: Arc<AtomicUsize>,
    settings: RpcSettings,
}

impl Failover {
    async fn ask(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let mut pause = self.settings.backoff;
        let mut asked_for = Duration::ZERO;
        // If every node is busy until the end, the last one's answer stands, with its reason.
        let mut last = Err(TransportErrorKind::custom_str("no node was asked"));
        for round in 0..self.settings.rounds.max(1) {
            if round > 0 {
                tokio::time::sleep(pause.max(asked_for.min(MOST_PATIENCE))).await;
                pause = pause.saturating_mul(2);
                asked_for = Duration::ZERO;
            }
            for _ in 0..self.nodes.len() {
                let index = self.current.load(Ordering::Relaxed);
                let Some(node) = self.nodes.get(index) else { break };
                match node.ask(self.chain, request.clone()).await {
                    Ok(response) if !is_busy(&response) => return Ok(response),
                    Ok(response) => {
                        tracing::debug!(node = node.name(), "{} is busy", node.name());
                        last = Ok(response);
                    }
                    Err(failure) => {
                        tracing::warn!(node = node.name(), "{failure}");
                        asked_for = asked_for.max(failure.retry_after());
                        last = Err(TransportErrorKind::custom(failure));
                    }
                }
                // Another task may have moved on already; one step is enough.
                let next = index.saturating_add(1).checked_rem(self.nodes.len()).unwrap_or(0);
                self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed).unwrap_or(index);
            }
        }
        last
    }
}

/// A node that limits the rate answers with an error of its own instead of a failed request.
fn is_busy(response: &ResponsePacket) -> bool {
    response.as_error().is_some_and(ErrorPayload::is_retry_err)
}

impl Service<RequestPacket> for Failover {
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
