//! A node between the client and a chain that does to each request what the test says.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::support::allow_http;

/// What the node does with a request.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// It is honest.
    None,
    /// It never answers.
    Hang,
    /// It closes the connection.
    Cut,
    /// It does what was asked, and closes the connection instead of saying so.
    CutAfterwards,
    /// It closes the connection in the middle of the honest answer.
    CutInside,
    /// It answers this as HTTP, status line and all.
    Http(&'static str),
    /// It answers with a JSON-RPC error.
    Error(i64, &'static str),
    /// It answers with a JSON-RPC error before it read the request's number.
    Anonymous(i64, &'static str),
    /// It answers with this result.
    Result(Value),
    /// It gives the honest answer to another request.
    WrongId,
}

/// A web page, as a proxy or a wrong address gives it.
pub(super) const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 31\r\nconnection: close\r\n\r\n<!doctype html><h1>Welcome</h1>";
/// Not even a page.
pub(super) const GARBAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n\u{7f}\u{1}{\"";
pub(super) const BROKEN: &str =
    "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\nconnection: close\r\n\r\noops!";
pub(super) const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\nconnection: close\r\n\r\nslow";
pub(super) const BUSY_FOR_A_SECOND: &str =
    "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

type Rule = Box<dyn FnMut(&str, &Value) -> Fault + Send>;

struct Shared {
    upstream: String,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<String>>,
    client: reqwest::Client,
}

/// A running node; it ends with the test.
pub(super) struct Hostile {
    shared: Arc<Shared>,
    port: u16,
    stop: CancellationToken,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hostile {
    /// A node in front of the one at `upstream`, with a rule that is given method and parameters.
    pub(super) async fn new(upstream: &str, rule: impl FnMut(&str, &Value) -> Fault + Send + 'static) -> Self {
        allow_http();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            rule: Mutex::new(Box::new(rule)),
            asked: Mutex::default(),
            client: reqwest::Client::new(),
        });
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(accept(listener, Arc::clone(&shared))));
        Self { shared, port, stop }
    }

    pub(super) fn url(&self) -> Url {
        format!("http://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// From now on it does this.
    pub(super) fn behave(&self, rule: impl FnMut(&str, &Value) -> Fault + Send + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// How often a method was asked for since the last call of [`Hostile::forget`].
    pub(super) fn asked(&self, method: &str) -> usize {
        lock(&self.shared.asked).iter().filter(|asked| *asked == method).count()
    }

    pub(super) fn forget(&self) {
        lock(&self.shared.asked).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let tracker = TaskTracker::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // A client that goes away in the middle is what the tests are about.
        tracker.spawn(async move { serve(stream, &shared).await.unwrap_or_default() });
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let body = read(&mut stream).await?;
    let request: Value = serde_json::from_slice(&body)?;
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    lock(&shared.asked).push(method.clone());
    let fault = lock(&shared.rule)(&method, &request["params"]);
    let id = request["id"].clone();
    let answer = match fault {
        Fault::None => forward(shared, &body).await,
        Fault::Hang => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            return Ok(());
        }
        Fault::Cut => return Ok(()),
        Fault::CutAfterwards => {
            forward(shared, &body).await;
            return Ok(());
        }
        Fault::CutInside => {
            let answer = http(&forward(shared, &body).await);
            return stream.write_all(&answer.as_bytes()[..answer.len() / 2 + 40]).await;
        }
        Fault::Http(answer) => return stream.write_all(answer.as_bytes()).await,
        Fault::Error(code, message) => error(&id, code, message),
        Fault::Anonymous(code, message) => error(&Value::Null, code, message),
        Fault::Result(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
        Fault::WrongId => {
            let mut answer: Value = serde_json::from_str(&forward(shared, &body).await)?;
            answer["id"] = json!(4_000_000);
            answer.to_string()
        }
    };
    stream.write_all(http(&answer).as_bytes()).await
}

fn error(id: &Value, code: i64, message: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
}

fn http(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

async fn forward(shared: &Shared, body: &[u8]) -> String {
    let request = shared.client.post(&shared.upstream).header("content-type", "application/json").body(body.to_vec());
    match request.send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        // The chain ended with its test.
        Err(_) => String::new(),
    }
}

/// The body of a request that says how long it is.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return Ok(body[..length].to_vec());
        }
    }
}
