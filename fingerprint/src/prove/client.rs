//! A customer of an OpenAI-compatible server: one request at a time, patient, and silent about its secrets.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use reqwest::{
    Method, Proxy, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{
    clock::{Clock, UnixMillis},
    endpoint::{self, ReplyError, RequestShape},
    error::{Answer, ClientError},
    retry::{RetryPolicy, retry_after},
};

/// Most characters of a server's own message that an error repeats.
const MESSAGE_CHARACTERS: usize = 200;

/// Most bytes that are kept of an answer without a reply: enough to see what a server says, and no way to fill a bundle.
const UNUSABLE_BYTES: usize = 4096;

/// What OpenAI's own library calls itself: a client without a name, or with ours, would stand out among customers.
const USER_AGENT: &str = "OpenAI/Python 1.109.1";

/// A slower rate than this is a slip of the pen.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How to reach a server, and how gently.
#[derive(Clone)]
pub struct ClientOptions {
    /// Base URL, with or without `/v1`.
    pub base_url: Url,
    /// Sent as a bearer token. It appears in no log or error, nor in a bundle when the server repeats it.
    pub api_key: Option<SecretString>,
    /// Proxy for both schemes. The environment's proxy settings are not read here.
    pub proxy: Option<Url>,
    /// Limit on making a connection.
    pub connect_timeout: Duration,
    /// Limit on one attempt, from the first byte sent to the last byte read.
    pub request_timeout: Duration,
    /// What is repeated, and when.
    pub retry: RetryPolicy,
    /// Most requests per second, repetitions included. None: as fast as answers come.
    pub requests_per_second: Option<f64>,
    /// Most bytes of one answer.
    pub max_response_bytes: usize,
    /// What the client calls itself.
    pub user_agent: String,
    /// Seed of the jitter in waits.
    pub seed: u64,
}

impl ClientOptions {
    /// The usual limits of a patient customer.
    pub fn new(base_url: Url) -> Self {
        Self {
            base_url,
            api_key: None,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(120),
            retry: RetryPolicy::default(),
            requests_per_second: None,
            max_response_bytes: 1 << 20,
            user_agent: USER_AGENT.to_owned(),
            seed: 0,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientOptions")
            .field("host", &self.base_url.host_str())
            .field("api_key", &self.api_key.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether what is sent may be repeated in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidentiality {
    /// An everyday prompt: the server's own message helps whoever reads the error.
    Public,
    /// A key: servers like to quote what they refuse, so nothing that they say is repeated.
    Secret,
}

/// One question and what came of it, as it went over the wire.
pub struct Exchange {
    /// The request's body.
    pub request: String,
    /// The answer's body; only the beginning of one without a reply.
    pub response: String,
    /// HTTP status of the last attempt; none when no answer came at all.
    pub status: Option<u16>,
    /// Attempts, the last one included.
    pub attempts: NonZeroU32,
    /// When the last attempt was sent.
    pub started: UnixMillis,
    /// When its answer was complete, or given up.
    pub finished: UnixMillis,
    /// The text of the first choice, or why there is none after the repetitions that the options allow.
    pub reply: Result<String, ClientError>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exchange")
            .field("status", &self.status)
            .field("attempts", &self.attempts)
            .field("started", &self.started)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

/// Asks one server, one request at a time: `&mut self` keeps the order of leaves.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    host: String,
    options: ClientOptions,
    clock: Arc<dyn Clock>,
    jitter: ChaCha8Rng,
    interval: Option<Duration>,
    next_start: Option<Instant>,
}

impl Client {
    /// Checks the options; sends nothing.
    ///
    /// # Errors
    ///
    /// [`ClientError::Address`], [`ClientError::ApiKey`], [`ClientError::UserAgent`], [`ClientError::RateLimit`] or
    /// [`ClientError::Setup`].
    pub fn new(options: ClientOptions, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let base = endpoint::base_url(&options.base_url).map_err(|reason| ClientError::Address { reason })?;
        let interval = match options.requests_per_second {
            None => None,
            Some(rate) => {
                let interval = Duration::try_from_secs_f64(rate.recip()).ok().filter(|gap| *gap <= LONGEST_INTERVAL);
                Some(interval.ok_or(ClientError::RateLimit)?)
            }
        };
        let host = host_and_port(&base);
        let http = http_client(&options)?;
        let jitter = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { http, base, host, options, clock, jitter, interval, next_start: None })
    }

    /// Host and port of the server.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The complete URL of a call.
    pub fn url(&self, shape: &RequestShape) -> Url {
        self.join(shape.kind.path())
    }

    /// The clock that exchanges are timed by.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The models that the server offers, in its order.
    ///
    /// # Errors
    ///
    /// [`ClientError`], after the repetitions that the options allow.
    pub async fn models(&mut self) -> Result<Vec<String>, ClientError> {
        let url = self.join("models");
        self.repeat(Method::GET, &url, None, Confidentiality::Public, endpoint::model_names).await.outcome
    }

    /// Asks one prompt.
    ///
    /// Dropping the future closes the connection; the server may still have seen the prompt.
    pub async fn ask(&mut self, shape: &RequestShape, prompt: &str, confidentiality: Confidentiality) -> Exchange {
        let request = shape.body(prompt);
        let url = self.url(shape);
        let Repeated { received, attempts, outcome: reply } =
            self.repeat(Method::POST, &url, Some(&request), confidentiality, |body| shape.reply(body)).await;
        let Received { body, status, started, finished, .. } = received;
        let response = if reply.is_ok() { body } else { self.beginning(body) };
        Exchange { request, response, status, attempts, started, finished, reply }
    }

    /// What may be kept of an answer without a reply.
    fn beginning(&self, mut body: String) -> String {
        if self.repeats_api_key(&body) {
            return String::new();
        }
        body.truncate(body.floor_char_boundary(UNUSABLE_BYTES));
        if self.repeats_api_key(&body) { String::new() } else { body }
    }

    /// Whether a text holds the API key, or ends within it.
    fn repeats_api_key(&self, text: &str) -> bool {
        let Some(key) = self.options.api_key.as_ref().map(|key| key.expose_secret().trim()) else { return false };
        let cut = |length: usize| key.get(..length).is_some_and(|start| text.ends_with(start));
        // In JSON every character can also be written as an escape.
        let told = serde_json::from_str(text).is_ok_and(|value| any_string(&value, &|string| holds(string, key)));
        told || holds(text, key) || (SHORTEST_KEY..key.len()).any(cut)
    }

    fn join(&self, call: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{call}", self.base.path()));
        url
    }

    /// Sends until `read` succeeds or nothing more may be tried.
    async fn repeat<T>(
        &mut self,
        method: Method,
        url: &Url,
        body: Option<&str>,
        confidentiality: Confidentiality,
        read: impl Fn(&str) -> Result<T, ReplyError>,
    ) -> Repeated<T> {
        let mut attempts = NonZeroU32::MIN;
        loop {
            self.pace().await;
            let mut received = self.attempt(method.clone(), url, body, confidentiality).await;
            let outcome = match received.error.take() {
                Some(error) => Err(error),
                None => read(&received.body).map_err(|source| self.unusable(source, confidentiality)),
            };
            let error = match outcome {
                Ok(value) => return Repeated { received, attempts, outcome: Ok(value) },
                Err(error) => error,
            };
            let wait = error.retry_after();
            let too_long = wait.is_some_and(|wait| wait > self.options.retry.max_retry_after);
            let repeated = attempts.get().saturating_sub(1);
            if !error.is_retryable() || too_long || repeated >= self.options.retry.retries {
                return Repeated { received, attempts, outcome: Err(error.after(attempts.get())) };
            }
            let wait = self.options.retry.back_off(repeated, &mut self.jitter).max(wait.unwrap_or_default());
            tracing::debug!(host = %self.host, attempts, ?wait, "request to {} is repeated", self.host);
            attempts = attempts.saturating_add(1);
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for the next slot of the rate limit.
    async fn pace(&mut self) {
        let Some(interval) = self.interval else { return };
        if let Some(start) = self.next_start {
            tokio::time::sleep_until(start).await;
        }
        self.next_start = Some(Instant::now() + interval);
    }

    async fn attempt(
        &self,
        method: Method,
        url: &Url,
        body: Option<&str>,
        confidentiality: Confidentiality,
    ) -> Received {
        let mut request = self.http.request(method, url.clone()).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        let started = self.clock.now();
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let (error, finished) = (Some(self.transport(error)), self.clock.now());
                return Received { body: String::new(), status: None, started, finished, error };
            }
        };
        let status = response.status();
        let headers = response.headers().clone();
        let (bytes, broken) = self.read(response).await;
        let finished = self.clock.now();
        let (text, is_text) = match String::from_utf8(bytes) {
            Ok(text) => (text, true),
            Err(error) => {
                // What stands before the first byte that is no text can be kept as it came.
                let end = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes().get(..end).unwrap_or_default()).into_owned(), false)
            }
        };
        let answer = Answer {
            host: &self.host,
            path: url.path(),
            status,
            with_key: self.options.api_key.is_some(),
            location: headers.get(LOCATION).and_then(|location| location_host(url, location)),
            retry_after: headers.get(RETRY_AFTER).and_then(|header| retry_after(header.to_str().ok()?, finished)),
            message: match confidentiality {
                Confidentiality::Public => endpoint::server_message(&text).map(|text| self.clean(&text)),
                Confidentiality::Secret => None,
            },
        };
        let echoes = self.repeats_api_key(&text);
        // The status says more than how its body ended.
        let error = ClientError::from_status(&answer).or(broken).or_else(|| {
            let host = self.host.clone();
            match (is_text, echoes) {
                (false, _) => Some(ClientError::NotUtf8 { host }),
                (true, true) => Some(ClientError::EchoesApiKey { host }),
                (true, false) => None,
            }
        });
        let body = if echoes { String::new() } else { text };
        Received { body, status: Some(status.as_u16()), started, finished, error }
    }

    /// The body as far as it came, and why it came no further.
    async fn read(&self, mut response: Response) -> (Vec<u8>, Option<ClientError>) {
        let limit_bytes = self.options.max_response_bytes;
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return (bytes, None),
                Ok(Some(chunk)) if bytes.len().saturating_add(chunk.len()) > limit_bytes => {
                    return (bytes, Some(ClientError::TooLarge { host: self.host.clone(), limit_bytes }));
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Err(error) => return (bytes, Some(self.transport(error))),
            }
        }
    }

    fn transport(&self, error: reqwest::Error) -> ClientError {
        ClientError::from_transport(error, &self.host, self.options.connect_timeout, self.options.request_timeout)
    }

    fn unusable(&self, source: ReplyError, confidentiality: Confidentiality) -> ClientError {
        let source = match (source, confidentiality) {
            (ReplyError::ErrorObject { message: Some(message) }, Confidentiality::Public) => {
                ReplyError::ErrorObject { message: Some(self.clean(&message)) }
            }
            (source, Confidentiality::Public) => source,
            (source, Confidentiality::Secret) => source.without_message(),
        };
        ClientError::Reply { host: self.host.clone(), source }
    }

    /// A server's words made fit for one line: no API key, no control characters, not too long.
    fn clean(&self, text: &str) -> String {
        let text = match &self.options.api_key {
            Some(key) if holds(text, key.expose_secret()) => text.replace(key.expose_secret().trim(), "[API key]"),
            _ => text.to_owned(),
        };
        let line: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
        let mut short: String = line.chars().take(MESSAGE_CHARACTERS).collect();
        if short.len() < line.len() {
            short.push('…');
        }
        short
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What one attempt brought. Nobody has looked at the content yet.
struct Received {
    body: String,
    status: Option<u16>,
    started: UnixMillis,
    finished: UnixMillis,
    error: Option<ClientError>,
}

/// The last of several attempts, and what was made of it.
struct Repeated<T> {
    received: Received,
    attempts: NonZeroU32,
    outcome: Result<T, ClientError>,
}

fn http_client(options: &ClientOptions) -> Result<reqwest::Client, ClientError> {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        // Another thread was faster; any provider will do.
        tracing::debug!("the TLS provider was installed meanwhile");
    }
    let mut headers = HeaderMap::new();
    if let Some(key) = &options.api_key {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret().trim()))
            .map_err(|_| ClientError::ApiKey)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        .user_agent(HeaderValue::from_str(&options.user_agent).map_err(|_| ClientError::UserAgent)?)
        // Neither key nor prompt goes to a host that the user did not name.
        .redirect(Policy::none())
        .connect_timeout(options.connect_timeout)
        .timeout(options.request_timeout)
        .no_proxy();
    if let Some(proxy) = &options.proxy {
        let proxy = Proxy::all(proxy.clone()).map_err(|source| ClientError::Setup { source })?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|source| ClientError::Setup { source })
}

fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Where a redirect points: scheme, host and port. Its path and query may quote a key or carry a session.
fn location_host(url: &Url, header: &HeaderValue) -> Option<String> {
    let location = url.join(header.to_str().ok()?).ok()?;
    Some(format!("{}://{}", location.scheme(), host_and_port(&location)))
}

/// Shorter keys are placeholders such as `x`, which any text may hold.
const SHORTEST_KEY: usize = 8;

fn any_string(value: &Value, wanted: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => wanted(text),
        Value::Array(items) => items.iter().any(|item| any_string(item, wanted)),
        Value::Object(fields) => fields.iter().any(|(name, field)| wanted(name) || any_string(field, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a text repeats a key.
fn holds(text: &str, key: &str) -> bool {
    key.trim().len() >= SHORTEST_KEY && text.contains(key.trim())
}
