//! A server that says what it is told, byte by byte.

use std::{
    convert::Infallible,
    future::pending,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
    serve::ListenerExt,
};
use model::chat::UnixSeconds;
use serde_json::{Value, json};
use serving::{ServedModel, engine::upstream::UpstreamSettings};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::StreamExt;

use crate::support::{MODEL, byte_folder};

/// [`MODEL`] alone, of a context of 4096 tokens.
fn listed() -> String {
    json!({"data": [{"id": MODEL, "owned_by": "vllm", "max_model_len": 4096}]}).to_string()
}

/// What is sent of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// Nothing more, and no end.
    Hang,
    /// The connection breaks.
    Break,
}

/// What is answered to a completion.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Stream(Vec<Piece>),
    Status(u16),
    /// Not even a status.
    Silence,
}

#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Bodies of the completions that were asked for.
    pub(crate) bodies: Mutex<Vec<Value>>,
    /// The keys that came with them.
    pub(crate) keys: Mutex<Vec<String>>,
    /// Answers that are being sent.
    pub(crate) open: AtomicUsize,
    /// Connections that were ever made.
    pub(crate) connections: AtomicUsize,
}

/// A server on a free port. Stops when it is dropped.
#[derive(Debug)]
pub(crate) struct ScriptedServer {
    pub(crate) url: String,
    pub(crate) heard: Arc<Heard>,
    _serving: JoinSet<()>,
}

/// An answer that is being sent.
struct Open(Arc<Heard>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ScriptedServer {
    /// One that has [`MODEL`], of a context of 4096 tokens.
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::listing(listed(), 200, reply).await
    }

    /// One that answers the question for its models in this way.
    pub(crate) async fn listing(models: String, status: u16, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, models, status, reply)
    }

    /// One that comes back where another one was.
    pub(crate) fn again(listener: TcpListener) -> Self {
        Self::on(listener, listed(), 200, Reply::Silence)
    }

    fn on(listener: TcpListener, models: String, status: u16, reply: Reply) -> Self {
        let heard = Arc::new(Heard::default());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = heard.clone();
        let handler = move |request: Request<Body>| {
            let (heard, reply, models) = (state.clone(), reply.clone(), models.clone());
            async move {
                Ok::<_, Infallible>(match request.uri().path() {
                    "/v1/models" => (StatusCode::from_u16(status).unwrap(), models).into_response(),
                    "/v1/completions" => complete(heard, reply, request).await,
                    _ => StatusCode::NOT_FOUND.into_response(),
                })
            }
        };
        let connected = heard.clone();
        let listener = listener.tap_io(move |_| {
            connected.connections.fetch_add(1, Ordering::SeqCst);
        });
        let router = Router::new().fallback(any(handler));
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, heard, _serving: serving }
    }

    pub(crate) fn settings(&self) -> UpstreamSettings {
        UpstreamSettings::new(format!("{}/v1", self.url).parse().unwrap())
    }

    pub(crate) async fn model(&self) -> ServedModel {
        self.model_with(&self.settings()).await
    }

    pub(crate) async fn model_with(&self, settings: &UpstreamSettings) -> ServedModel {
        ServedModel::upstream(MODEL, byte_folder().path(), UnixSeconds(1_600_000_000), settings).await.unwrap()
    }

    pub(crate) fn open(&self) -> usize {
        self.heard.open.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.heard.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.heard.bodies.lock().unwrap().clone()
    }
}

async fn complete(heard: Arc<Heard>, reply: Reply, request: Request<Body>) -> Response {
    let key = request.headers().get("authorization").map(|key| key.to_str().unwrap().to_owned());
    heard.keys.lock().unwrap().extend(key);
    let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
    heard.bodies.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    let pieces = match reply {
        Reply::Stream(pieces) => pieces,
        Reply::Status(status) => return (StatusCode::from_u16(status).unwrap(), "zanzibar words").into_response(),
        Reply::Silence => pending().await,
    };
    heard.open.fetch_add(1, Ordering::SeqCst);
    let open = Arc::new(Open(heard));
    let stream = tokio_stream::iter(pieces).then(move |piece| {
        let open = open.clone();
        async move {
            let sent = match piece {
                Piece::Bytes(bytes) => Ok(Bytes::from(bytes)),
                Piece::Wait(time) => {
                    tokio::time::sleep(time).await;
                    Ok(Bytes::new())
                }
                Piece::Hang => pending().await,
                // A moment later, so that what came before is out.
                Piece::Break => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(io::Error::other("scripted"))
                }
            };
            drop(open);
            sent
        }
    });
    Body::from_stream(stream).into_response()
}

/// An event with these bytes.
pub(crate) fn event(data: impl AsRef<[u8]>) -> Piece {
    Piece::Bytes([b"data: ", data.as_ref(), b"\n\n"].concat())
}

pub(crate) fn text(text: &str) -> Piece {
    event(json!({"choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": null}]}).to_string())
}

pub(crate) fn ended(reason: &str) -> Piece {
    event(json!({"choices": [{"index": 0, "text": "", "finish_reason": reason}], "usage": null}).to_string())
}

pub(crate) fn usage(prompt: u64, completion: u64, cached: u64) -> Piece {
    let details = json!({"cached_tokens": cached});
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details});
    event(json!({"choices": [], "usage": usage}).to_string())
}

pub(crate) fn done() -> Piece {
    event("[DONE]")
}

/// A whole answer.
pub(crate) fn saying(words: &str) -> Reply {
    Reply::Stream(vec![text(words), ended("stop"), done()])
}
