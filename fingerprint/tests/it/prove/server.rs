//! HTTP servers for tests: a scripted OpenAI server, one that answers whatever it is told, and one that speaks raw bytes.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use fingerprint::prove::{Client, ClientOptions, Clock, RetryPolicy, UnixMillis};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use url::Url;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    /// The prompt or the user's message; empty for another request.
    pub(super) fn prompt(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let message = body["messages"].as_array().and_then(|messages| messages.last()?["content"].as_str());
        message.or_else(|| body["prompt"].as_str()).unwrap_or_default().to_owned()
    }
}

type Answer = Arc<dyn Fn(usize, &Seen) -> Response + Send + Sync>;

/// A running server; it ends when it is dropped.
pub(super) struct Server {
    pub(super) url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers every request with `answer(number of the request, request)`.
    pub(super) async fn start(answer: impl Fn(usize, &Seen) -> Response + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state: (Answer, _) = (Arc::new(answer), Arc::clone(&seen));
        let router = Router::new().fallback(respond).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, _tasks: tasks }
    }

    /// Serves a model that knows these answers and is polite otherwise.
    pub(super) async fn model(answers: HashMap<String, String>) -> Self {
        Self::start(move |_, seen| completion(seen, &answers)).await
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Prompts of all questions, in order.
    pub(super) fn prompts(&self) -> Vec<String> {
        self.seen().iter().filter(|seen| seen.method == Method::POST).map(Seen::prompt).collect()
    }

    pub(super) fn client(&self) -> Client {
        client(options(self.url.clone()))
    }
}

async fn respond(
    State((answer, log)): State<(Answer, Arc<Mutex<Vec<Seen>>>)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let seen = Seen { method, path: uri.path().to_owned(), headers, body: String::from_utf8(body.to_vec()).unwrap() };
    let number = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    // A handler may want to be slow; it must not stop the others.
    tokio::task::spawn_blocking(move || answer(number, &seen)).await.unwrap()
}

/// What an OpenAI server returns for this request.
pub(super) fn completion(seen: &Seen, answers: &HashMap<String, String>) -> Response {
    let text = answers.get(&seen.prompt()).map_or("Very well, thank you.", String::as_str);
    let body = match seen.path.as_str() {
        "/v1/models" => json!({ "object": "list", "data": [{ "id": "tiny" }, { "id": "other" }] }),
        "/v1/completions" => json!({ "model": "tiny", "choices": [{ "index": 0, "text": text }] }),
        "/v1/chat/completions" => {
            json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": text } }], "usage": {} })
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    json_response(&body)
}

pub(super) fn json_response(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

/// Answers every connection with `answer`, after the request was read, and closes it.
pub(super) async fn raw(answer: impl Fn(&mut TcpStream) + Send + 'static) -> Url {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    // Lives as long as the test binary; it has nothing to clean up.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut buffer = [0; 4096];
            while matches!(stream.read(&mut buffer), Ok(read) if read > 0) {}
            answer(&mut stream);
            stream.flush().ok();
        }
    });
    url
}

/// Options that fail fast.
pub(super) fn options(url: Url) -> ClientOptions {
    ClientOptions {
        request_timeout: Duration::from_secs(20),
        retry: RetryPolicy { retries: 2, first_delay: Duration::from_millis(2), ..RetryPolicy::default() },
        ..ClientOptions::new(url)
    }
}

pub(super) fn client(options: ClientOptions) -> Client {
    Client::new(options, clock()).unwrap()
}

/// A clock that moves a second at every look.
pub(super) fn clock() -> Arc<dyn Clock> {
    let now = Mutex::new(1_790_000_000_000);
    Arc::new(move || {
        let mut now = now.lock().unwrap();
        *now += 1_000;
        UnixMillis::new(*now)
    })
}
