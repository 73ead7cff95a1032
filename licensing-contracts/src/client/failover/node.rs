//! One node, and the ways in which it can fail to answer.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alloy::{
    primitives::{ChainId, U64},
    rpc::{
        client::RpcClient,
        json_rpc::{Id, RequestPacket, Response, ResponsePacket, ResponsePayload, SerializedRequest},
    },
    transports::{
        TransportError, TransportErrorKind,
        http::{
            Http,
            reqwest::{self, Client},
        },
    },
};
use tower::Service as _;
use url::Url;

/// As much of a strange answer as is shown.
const EXCERPT_CHARS: usize = 120;

/// A node that did not answer as the protocol demands. Nothing here tells its whole address: paths and queries hold keys.
#[derive(Debug, thiserror::Error)]
pub(in crate::client) enum NodeError {
    #[error("{node} did not answer")]
    Silent {
        node: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{node} answered with HTTP status {status}{}", told(excerpt))]
    Status { node: String, status: u16, excerpt: String, retry_after: Duration },
    #[error("{node} answered with something else than JSON-RPC{}", told(excerpt))]
    Garbage { node: String, excerpt: String },
    #[error("{node} answered another request than the one that it was sent")]
    OtherRequest { node: String },
    #[error("{node} serves chain {found} and not {expected}")]
    OtherChain { node: String, expected: ChainId, found: ChainId },
    #[error("{node} failed")]
    Other {
        node: String,
        #[source]
        source: TransportError,
    },
}

impl NodeError {
    /// What the node asked for.
    pub(in crate::client) const fn retry_after(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }
}

fn told(excerpt: &str) -> String {
    if excerpt.is_empty() { String::new() } else { format!(": {excerpt}") }
}

/// One node.
#[derive(Clone)]
pub(in crate::client) struct Node {
    transport: Http<Client>,
    name: String,
    /// Whether it said that it serves the right chain. One that was away at first is asked when it comes back.
    is_verified: Arc<AtomicBool>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.name)
    }
}

impl Node {
    pub(super) fn new(client: Client, url: &Url) -> Self {
        let name = url.origin().ascii_serialization();
        Self { transport: Http::with_client(client, url.clone()), name, is_verified: Arc::default() }
    }

    /// Scheme, host and port.
    pub(in crate::client) fn name(&self) -> &str {
        &self.name
    }

    /// The chain that it says it serves.
    pub(in crate::client) async fn chain_id(&self) -> Result<ChainId, NodeError> {
        let client = RpcClient::new(self.transport.clone(), false);
        let id = client.request_noparams::<U64>("eth_chainId").await.map_err(|error| self.failure(error))?;
        Ok(id.to())
    }

    /// It serves the right chain.
    pub(in crate::client) fn verified(&self) {
        self.is_verified.store(true, Ordering::Relaxed);
    }

    pub(super) async fn ask(&self, chain: ChainId, request: RequestPacket) -> Result<ResponsePacket, NodeError> {
        if !self.is_verified.load(Ordering::Relaxed) {
            let found = self.chain_id().await?;
            if found != chain {
                return Err(NodeError::OtherChain { node: self.name.clone(), expected: chain, found });
            }
            self.verified();
        }
        let response = self.transport.clone().call(request.clone()).await.map_err(|error| self.failure(error))?;
        if is_answer(&request, &response) {
            Ok(response)
        } else {
            Err(NodeError::OtherRequest { node: self.name.clone() })
        }
    }

    fn failure(&self, error: TransportError) -> NodeError {
        let node = self.name.clone();
        match error {
            TransportError::DeserError { text, .. } => NodeError::Garbage { node, excerpt: excerpt(&text) },
            TransportError::Transport(kind) => match (kind.retry_after().unwrap_or_default(), kind) {
                (_, TransportErrorKind::Custom(source)) => match source.downcast::<reqwest::Error>() {
                    Ok(source) => NodeError::Silent { node, source: source.without_url() },
                    Err(source) => NodeError::Other { node, source: TransportErrorKind::Custom(source).into() },
                },
                (retry_after, kind) => match kind.as_http_error() {
                    Some(http) => {
                        NodeError::Status { node, status: http.status, excerpt: excerpt(&http.body), retry_after }
                    }
                    None => NodeError::Other { node, source: kind.into() },
                },
            },
            source => NodeError::Other { node, source },
        }
    }
}

fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Whether a response carries the number of its request. A proxy that mixes its answers up must not be believed.
fn is_answer(request: &RequestPacket, response: &ResponsePacket) -> bool {
    match (request, response) {
        (RequestPacket::Single(asked), ResponsePacket::Single(answer)) => answers(asked, answer),
        (RequestPacket::Batch(asked), ResponsePacket::Batch(answers)) => {
            asked.iter().all(|asked| answers.iter().any(|answer| answer.id == *asked.id()))
        }
        // A batch that was refused as a whole.
        (RequestPacket::Batch(_), ResponsePacket::Single(answer)) => is_refusal(answer),
        (RequestPacket::Single(_), ResponsePacket::Batch(_)) => false,
    }
}

fn answers(asked: &SerializedRequest, answer: &Response) -> bool {
    answer.id == *asked.id() || is_refusal(answer)
}

/// An error before the request's number was read, as rate limiters give it.
fn is_refusal(answer: &Response) -> bool {
    answer.id == Id::None && matches!(answer.payload, ResponsePayload::Failure(_))
}
