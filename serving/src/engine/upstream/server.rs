//! The server's side of the connection: its addresses, its models, its streams.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::{self, Instant};
use url::Url;

use super::{
    ServerModel, UpstreamSettings,
    error::{UpstreamError, UpstreamStartError},
    events::EventBuffer,
};

/// A list of models is never as long.
const MODELS_BYTES: usize = 4 << 20;

/// One server. Its key does not print itself.
#[derive(Debug)]
pub(super) struct Server {
    base: Arc<Url>,
    models: Url,
    completions: Url,
    client: Client,
    first_text_timeout: Duration,
    stall_timeout: Duration,
    event_bytes: usize,
}

/// The events of an answer.
pub(super) struct Events {
    response: Response,
    buffer: EventBuffer,
    begun: bool,
    asked: Instant,
    first_text_timeout: Duration,
    stall_timeout: Duration,
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
    owned_by: Option<String>,
    /// vLLM and SGLang.
    max_model_len: Option<usize>,
    /// llama-server.
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    /// Of one slot. `n_ctx_train` beside it is what the model was made for, not what the server gives it.
    n_ctx: Option<usize>,
}

impl Server {
    pub(super) fn new(settings: &UpstreamSettings) -> Result<Self, UpstreamStartError> {
        let mut base = settings.base.clone();
        let has_password = !base.username().is_empty() || base.password().is_some();
        if has_password || !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            // An address that cannot have a password has none to hide.
            base.set_password(None).ok();
            return Err(UpstreamStartError::Address { server: Arc::new(base) });
        }
        let base = Arc::new(base);
        let server = base.clone();
        let client = client(settings).map_err(|error| match error {
            SetupError::Key => UpstreamStartError::Key { server },
            SetupError::Client(source) => UpstreamStartError::Client { server, source },
        })?;
        Ok(Self {
            models: beneath(&base, "models"),
            completions: beneath(&base, "completions"),
            base,
            client,
            first_text_timeout: settings.first_text_timeout,
            stall_timeout: settings.stall_timeout,
            event_bytes: settings.event_bytes,
        })
    }

    /// Its address, as the operator gave it.
    pub(super) fn base(&self) -> &Arc<Url> {
        &self.base
    }

    /// The model of this name; without a name the only one.
    pub(super) async fn model(&self, name: Option<&str>) -> Result<ServerModel, UpstreamStartError> {
        let server = self.base.clone();
        let ModelList { mut data } = match time::timeout(self.stall_timeout, self.list()).await {
            Ok(listed) => listed,
            Err(_) => Err(UpstreamError::Silent { waited: self.stall_timeout, begun: false }),
        }
        .map_err(|source| UpstreamStartError::Models { server: server.clone(), source })?;
        let place = match name {
            Some(name) => data.iter().position(|listed| listed.id == name),
            None => (data.len() == 1).then_some(0),
        };
        let Some(place) = place else {
            let listed = data.into_iter().map(|listed| listed.id).collect();
            return Err(UpstreamStartError::Model { server, wanted: name.map(str::to_owned), listed });
        };
        let ListedModel { id, owned_by, max_model_len, meta } = data.swap_remove(place);
        Ok(ServerModel {
            name: id,
            owner: owned_by,
            context_length: max_model_len.or(meta.and_then(|meta| meta.n_ctx)),
        })
    }

    async fn list(&self) -> Result<ModelList, UpstreamError> {
        let sent = self.client.get(self.models.clone()).send().await;
        let mut response = accepted(sent.map_err(|source| UpstreamError::Send { source: source.without_url() })?)?;
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|source| UpstreamError::Read { source: source.without_url() })?
        {
            if bytes.len().saturating_add(chunk.len()) > MODELS_BYTES {
                return Err(UpstreamError::TooLarge { limit_bytes: MODELS_BYTES });
            }
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).map_err(|error| UpstreamError::from(&error))
    }

    /// Begins a completion. Dropping the events closes the connection, and with it ends the server's work.
    pub(super) async fn complete(&self, body: Vec<u8>) -> Result<Events, UpstreamError> {
        let request = self.client.post(self.completions.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let asked = Instant::now();
        let sent = time::timeout(self.first_text_timeout, request.send()).await;
        let silent = || UpstreamError::Silent { waited: self.first_text_timeout, begun: false };
        let sent = sent.map_err(|_| silent())?;
        let response = accepted(sent.map_err(|source| UpstreamError::Send { source: source.without_url() })?)?;
        Ok(Events {
            response,
            buffer: EventBuffer::new(self.event_bytes),
            begun: false,
            asked,
            first_text_timeout: self.first_text_timeout,
            stall_timeout: self.stall_timeout,
        })
    }
}

impl Events {
    /// Data of the next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<String>, UpstreamError> {
        loop {
            if let Some(event) = self.buffer.pop() {
                self.begun = true;
                return Ok(Some(event));
            }
            let begun = self.begun;
            let waited = if begun { self.stall_timeout } else { self.first_text_timeout };
            // Comments, with which servers keep a connection open, are no beginning.
            let patience = if begun { waited } else { waited.saturating_sub(self.asked.elapsed()) };
            let read = time::timeout(patience, self.response.chunk()).await;
            let read = read.map_err(|_| UpstreamError::Silent { waited, begun })?;
            match read.map_err(|source| UpstreamError::Read { source: source.without_url() })? {
                Some(bytes) => self.buffer.push(&bytes)?,
                None => return Ok(None),
            }
        }
    }
}

fn accepted(response: Response) -> Result<Response, UpstreamError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::TOO_MANY_REQUESTS => Err(UpstreamError::Busy),
        status => Err(UpstreamError::Status { status }),
    }
}

fn beneath(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    // An address with a host always has segments.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(name);
    }
    url
}

enum SetupError {
    Key,
    Client(reqwest::Error),
}

fn client(settings: &UpstreamSettings) -> Result<Client, SetupError> {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        // Another thread was faster; any provider will do.
        tracing::debug!("the TLS provider was installed meanwhile");
    }
    let headers = settings.key.as_ref().map(authorization).transpose()?.unwrap_or_default();
    Client::builder()
        .default_headers(headers)
        // Neither key nor prompt goes to a server that the operator did not name.
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(settings.connect_timeout)
        // A connection for each choice: servers close idle ones when they like (llama-server in the moment after an
        // answer), and a request that meets such a one fails without a word whether it was begun.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(SetupError::Client)
}

fn authorization(key: &SecretString) -> Result<HeaderMap, SetupError> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", key.expose_secret().trim())).map_err(|_| SetupError::Key)?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}
