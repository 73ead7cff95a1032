//! Serves a loaded model in this process: the built-in engine behind the OpenAI endpoints.

pub(crate) mod config;
mod loaded;
pub(crate) mod metered;

use std::{future::Future, net::SocketAddr, num::NonZeroUsize};

use anyhow::Context as _;
use serving::{AppState, Limits, engine::builtin::BuiltinSettings, state::system_clock};
use tokio::net::TcpListener;
use url::Url;

pub(crate) use self::loaded::Loaded;
use crate::failure::Advise as _;

/// A configuration that starts as it is beside `hallmark devnet`.
pub(crate) const EXAMPLE: &str = include_str!("hosting/host.toml");

/// Binds an address.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address}"))
        .advise("choose another --listen address; port 0 takes a free one")
}

/// How a model is served.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan {
    /// The model's name in the API.
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) streams: NonZeroUsize,
    /// Requests that wait; more are answered with 429.
    pub(crate) queue: usize,
    pub(crate) seed: u64,
}

/// A host that listens and is not yet running.
#[derive(Debug)]
pub(crate) struct Host {
    listener: TcpListener,
    state: AppState,
    url: Url,
}

impl Host {
    /// Listens first, so that a taken port is reported before anything else happens.
    pub(crate) async fn bind(model: Loaded, plan: HostPlan) -> anyhow::Result<Self> {
        Self::bind_within(model, plan, Limits::default()).await
    }

    /// [`bind`](Self::bind) with limits of the host's own.
    pub(crate) async fn bind_within(model: Loaded, plan: HostPlan, limits: Limits) -> anyhow::Result<Self> {
        let listener = listen(plan.listen).await?;
        let address = listener.local_addr().context("failed to read the address that was bound")?;
        let settings = BuiltinSettings { streams: plan.streams, queue: plan.queue, ..BuiltinSettings::default() };
        let served = model.serve(plan.name, &settings)?;
        // Whoever waits in the queue or runs is open too: it must be the queue that fills first.
        let open_requests = limits.open_requests.max(plan.streams.get().saturating_add(plan.queue));
        let limits = Limits { open_requests, ..limits };
        let state = AppState::new(vec![served], limits, system_clock, plan.seed);
        let url = Url::parse(&format!("http://{address}/v1")).context("failed to form the server's address")?;
        Ok(Self { listener, state, url })
    }

    /// Where clients find it, `/v1` included.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Serves until `stop` completes, then finishes what is running.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        serving::serve(self.listener, self.state, stop).await.with_context(|| format!("{} failed", self.url))
    }
}
