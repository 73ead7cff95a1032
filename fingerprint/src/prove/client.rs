//! A customer of an OpenAI-compatible server: one request at a time, patient, and silent about its secrets.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use reqwest::{
    Method, Proxy, RequestBuilder, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
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

/// A slower rate than this is a slip of the pen.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How to reach a server, and how gently.
#[derive(Clone)]
pub struct ClientOptions {
    /// Base URL, with or without `/v1`.
    pub base_url: Url,
    /// Sent as a bearer token. It appears in no log, error or bundle.
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

/// One question and its answer, as they went over the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The request's body.
    pub request: String,
    /// The answer's body.
    pub response: String,
    /// The answer's HTTP status, a success.
    pub status: u16,
    /// Attempts, the successful one included.
    pub attempts: NonZeroU32,
    /// When the successful attempt was sent.
    pub started: UnixMillis,
    /// When its answer was complete.
    pub finished: UnixMillis,
    /// The text of the first choice.
    pub reply: String,
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
    /// [`ClientError::Address`], [`ClientError::ApiKey`], [`ClientError::RateLimit`] or [`ClientError::Setup`].
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
        let (names, _) = self
            .repeat(Method::GET, &url, None, Confidentiality::Public, |received| endpoint::model_names(&received.body))
            .await?;
        Ok(names)
    }

    /// Asks one prompt.
    ///
    /// Dropping the future closes the connection; the server may still have seen the prompt.
    ///
    /// # Errors
    ///
    /// [`ClientError`], after the repetitions that the options allow.
    pub async fn ask(
        &mut self,
        shape: &RequestShape,
        prompt: &str,
        confidentiality: Confidentiality,
    ) -> Result<Exchange, ClientError> {
        let request = shape.body(prompt);
        let url = self.url(shape);
        let ((reply, received), attempts) = self
            .repeat(Method::POST, &url, Some(&request), confidentiality, |received| {
                let reply = shape.reply(&received.body)?;
                Ok((reply, received.clone()))
            })
            .await?;
        let Received { body: response, status, started, finished } = received;
        Ok(Exchange { request, response, status, attempts, started, finished, reply })
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
        read: impl Fn(&Received) -> Result<T, ReplyError>,
    ) -> Result<(T, NonZeroU32), ClientError> {
        let mut attempt = 0;
        loop {
            self.pace().await;
            let error = match self.attempt(method.clone(), url, body, confidentiality).await {
                Ok(received) => match read(&received) {
                    Ok(value) => return Ok((value, NonZeroU32::MIN.saturating_add(attempt))),
                    Err(source) => self.unusable(source, confidentiality),
                },
                Err(error) => error,
            };
            let wait = error.retry_after();
            let too_long = wait.is_some_and(|wait| wait > self.options.retry.max_retry_after);
            if !error.is_retryable() || too_long || attempt >= self.options.retry.retries {
                return Err(error.after(attempt.saturating_add(1)));
            }
            let wait = self.options.retry.back_off(attempt, &mut self.jitter).max(wait.unwrap_or_default());
            attempt = attempt.saturating_add(1);
            tracing::debug!(host = %self.host, attempt, ?wait, "request to {} is repeated", self.host);
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
    ) -> Result<Received, ClientError> {
        let mut request = self.http.request(method, url.clone()).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        let started = self.clock.now();
        let response = self.send(request).await?;
        let status = response.status();
        let headers = response.headers().clone();
        let bytes = match self.read(response).await {
            Ok(bytes) => bytes,
            // The status already says what is wrong; its body would only have explained it.
            Err(_) if !status.is_success() => Vec::new(),
            Err(error) => return Err(error),
        };
        let finished = self.clock.now();
        let answer = Answer {
            host: &self.host,
            path: url.path(),
            status,
            with_key: self.options.api_key.is_some(),
            location: headers.get(LOCATION).and_then(|location| self.location(url, location)),
            retry_after: headers.get(RETRY_AFTER).and_then(|header| retry_after(header.to_str().ok()?, finished)),
            message: match confidentiality {
                Confidentiality::Public => {
                    std::str::from_utf8(&bytes).ok().and_then(endpoint::server_message).map(|text| self.clean(&text))
                }
                Confidentiality::Secret => None,
            },
        };
        if let Some(error) = ClientError::from_status(&answer) {
            return Err(error);
        }
        let body = String::from_utf8(bytes).map_err(|_| ClientError::NotUtf8 { host: self.host.clone() })?;
        if self.options.api_key.as_ref().is_some_and(|key| holds(&body, key.expose_secret())) {
            return Err(ClientError::EchoesApiKey { host: self.host.clone() });
        }
        Ok(Received { body, status: status.as_u16(), started, finished })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| self.transport(error))
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let limit_bytes = self.options.max_response_bytes;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(error))? {
            if bytes.len().saturating_add(chunk.len()) > limit_bytes {
                return Err(ClientError::TooLarge { host: self.host.clone(), limit_bytes });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
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

    /// Where a redirect points, without query or fragment: those may carry a session.
    fn location(&self, url: &Url, header: &HeaderValue) -> Option<String> {
        let mut location = url.join(header.to_str().ok()?).ok()?;
        location.set_query(None);
        location.set_fragment(None);
        Some(self.clean(location.as_str()))
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

/// A successful answer whose content nobody has looked at.
#[derive(Clone)]
struct Received {
    body: String,
    status: u16,
    started: UnixMillis,
    finished: UnixMillis,
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
        // No user agent is set: a host that cheats must not know a prover by it. Redirects are not followed: neither
        // key nor prompt goes to a host that the user did not name.
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

/// Whether a text repeats a key. Very short keys are placeholders such as `x`, which any text may hold.
fn holds(text: &str, key: &str) -> bool {
    key.trim().len() >= 8 && text.contains(key.trim())
}
