//! A metered host, from its configuration.

use std::{convert::Infallible, future::Future, io, pin::pin, time::Duration};

use anyhow::Context as _;
use licensing_contracts::{
    client::{ChainClient, FeePolicy, RpcSettings, Sender, SenderSettings, TransactionJournal},
    deployment::Deployment,
};
use protocol::{ids::LeaseId, money::Prices, units::UnixMilliseconds};
use rand::{TryRngCore as _, rngs::OsRng};
use serving::{
    AppState, Limits, ServedModel,
    chain::WatchSettings,
    engine::{
        builtin::BuiltinSettings,
        upstream::{PromptForm, UpstreamSettings},
    },
    host::{HostSetup, LeaseSetup, Listeners, MeteredHost},
    settlement::SettlementSettings,
    state::system_clock,
    tls::Tls,
};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use url::Url;

use super::{
    Loaded,
    config::{HostConfig, LimitConfig, ModelConfig, UpstreamPrompt},
};
use crate::{clock, commands::chain::Token, context::Context, failure::Advise as _, models, secrets};

/// How long a request waits for the disk.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether a transaction is mined.
const POLL: Duration = Duration::from_millis(500);
/// Between two looks whether the certificate was renewed.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(60);

/// A metered host that listens and is not yet running.
#[derive(Debug)]
pub(crate) struct Metered {
    host: MeteredHost,
    listeners: Listeners,
    hangups: Option<Hangups>,
    state: AppState,
    url: Url,
    /// Where the operator looks.
    pub(crate) operator_url: Option<String>,
    /// What is served.
    pub(crate) offers: Vec<Offer>,
}

/// A model with what it costs.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) name: String,
    pub(crate) lease: LeaseId,
    pub(crate) token: Token,
    pub(crate) prices: Prices,
}

impl Metered {
    /// Listens, loads the models, and reads their leases.
    pub(crate) async fn open(config: HostConfig, context: &Context) -> anyhow::Result<Self> {
        let listener = super::listen(config.listen).await?;
        let address = listener.local_addr().context("failed to read the address that was bound")?;
        let (operator, operator_url) = match config.operator {
            Some(address) => {
                let listener = super::listen(address).await?;
                let address = listener.local_addr().context("failed to read the address that was bound")?;
                (Some(listener), Some(format!("http://{address}/")))
            }
            None => (None, None),
        };
        let deployment = Deployment::read(&config.chain.deployment)
            .advise("name the file that `hallmark devnet` wrote, or that of your chain, as [chain] deployment")?;
        let client = ChainClient::connect(&config.chain.rpc, Some(deployment.chain_id), &RpcSettings::default())
            .await
            .advise("start `hallmark devnet`, or name a node as [chain] rpc")?;
        let (setup, offers) = setup(&config, client, deployment).await?;
        let mut served = Vec::with_capacity(config.models.len());
        for (model, offer) in config.models.iter().zip(&offers) {
            served.push(load(model, &offer.name, context).await?);
        }
        let host = MeteredHost::open(setup).await?;
        let mut leased = Vec::with_capacity(served.len());
        for (served, model) in served.into_iter().zip(&config.models) {
            let under = host.under(model.lease, served).await;
            leased.push(under.advise("name the model that is leased as [[model]] model, or its own lease")?);
        }
        let tls =
            config.tls.as_ref().map(|tls| Tls::read(&tls.certificate, &tls.key, CERTIFICATE_EVERY)).transpose()?;
        let hangups = tls.clone().map(Hangups::listen).transpose().context("failed to listen for SIGHUP")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        // Not of --seed: names of answers must never come again.
        let seed = OsRng.try_next_u64().context("failed to read randomness from the operating system")?;
        let state = AppState::metered(leased, limits(&config), system_clock, seed, host.metering().clone());
        let url = Url::parse(&format!("{scheme}://{address}/v1")).context("failed to form the server's address")?;
        let listeners = Listeners { customers: listener, tls, operator };
        Ok(Self { host, listeners, hangups, state, url, operator_url, offers })
    }

    /// Where clients find it, `/v1` included.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Serves until `stop` completes, then finishes what is running.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self { host, listeners, hangups, state, url, .. } = self;
        let mut serving = pin!(host.serve(listeners, state, stop));
        let served = match hangups {
            Some(hangups) => tokio::select! {
                biased;
                served = &mut serving => served,
                never = hangups.follow() => match never {},
            },
            None => serving.await,
        };
        served.with_context(|| format!("{url} failed"))
    }
}

/// SIGHUP, at which services look again at what they read when they started: here the certificate.
#[derive(Debug)]
struct Hangups {
    #[cfg(unix)]
    signal: Signal,
    #[cfg(unix)]
    tls: Tls,
}

impl Hangups {
    #[cfg(unix)]
    fn listen(tls: Tls) -> io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::hangup())?, tls })
    }

    #[cfg(not(unix))]
    fn listen(_tls: Tls) -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn follow(mut self) -> Infallible {
        while self.signal.recv().await.is_some() {
            self.tls.read_again().await;
        }
        std::future::pending().await
    }

    #[cfg(not(unix))]
    async fn follow(self) -> Infallible {
        std::future::pending().await
    }
}

async fn setup(
    config: &HostConfig,
    client: ChainClient,
    deployment: Deployment,
) -> anyhow::Result<(HostSetup, Vec<Offer>)> {
    let mut leases = Vec::with_capacity(config.models.len());
    let mut offers = Vec::with_capacity(config.models.len());
    for model in &config.models {
        let details = licensing_contracts::actions::leases::details(&client, &deployment, model.lease).await?;
        let details = details
            .with_context(|| format!("there is no lease {} on this chain", model.lease))
            .advise("open one with `hallmark lease open`, and name its number as [[model]] lease")?;
        let token = Token::find(&client, &deployment, Some(details.token)).await?;
        leases.push(LeaseSetup {
            id: model.lease,
            key: secrets::lease_key(model.lease_keystore.as_deref())?,
            claim_from: token.amount(&config.settlement.claim_from).context("[settlement] claim_from")?,
            claim_least: token.amount(&config.settlement.claim_least).context("[settlement] claim_least")?,
        });
        offers.push(Offer { name: model.served_name(), lease: model.lease, token, prices: details.prices });
    }
    let signer = secrets::signer(config.keystore.as_deref())?;
    let journal = TransactionJournal::open(&config.state, client.chain_id(), signer.address())?;
    let fees =
        FeePolicy { max_fee_per_gas: u128::from(config.chain.max_fee_gwei) * 1_000_000_000, ..FeePolicy::default() };
    let confirmations = config.chain.confirmations.max(1);
    let settings = SenderSettings { fees, confirmations, poll: POLL, ..SenderSettings::default() };
    let setup = HostSetup {
        books: config.books.clone(),
        sender: Sender::new(client.clone(), signer, journal, settings),
        client,
        deployment,
        watch: WatchSettings { poll: config.chain.poll, most_age: config.chain.most_age },
        settlement: SettlementSettings { every: config.settlement.every },
        leases,
        journal_patience: JOURNAL_PATIENCE,
        clock: milliseconds,
    };
    Ok((setup, offers))
}

/// A model with its engine: the built-in one, or another server.
async fn load(model: &ModelConfig, name: &str, context: &Context) -> anyhow::Result<ServedModel> {
    let step = context.progress().step("load");
    let reference = model.model.clone();
    let Some(base) = &model.upstream else {
        let device = model.device;
        let weights = context.compute(move || Loaded::load(&reference, device)).await?;
        step.done(&weights.summary());
        let settings = BuiltinSettings {
            streams: model.streams,
            queue: model.queue,
            context_length: model.context_length,
            ..BuiltinSettings::default()
        };
        return weights.serve(name, &settings);
    };
    let folder = context.compute(move || models::folder(&reference)).await?;
    let settings = UpstreamSettings {
        model: model.upstream_model.clone(),
        key: secrets::upstream_key()?,
        prompt_form: match model.upstream_prompt {
            UpstreamPrompt::Tokens => PromptForm::Tokens,
            UpstreamPrompt::Text => PromptForm::Text,
        },
        context_length: model.context_length,
        open_choices: model.streams.saturating_add(model.queue),
        ..UpstreamSettings::new(base.clone())
    };
    let served = ServedModel::upstream(name, &folder, system_clock(), &settings).await?;
    step.done(&format!("served by {base}"));
    Ok(served)
}

fn limits(config: &HostConfig) -> Limits {
    let LimitConfig { body_bytes, open_requests, max_tokens, answer_time, drain_time } = config.limits;
    // Whoever waits in a queue or runs is open too: it must be the queue that fills first.
    let places = config.models.iter().map(|model| model.streams.get().saturating_add(model.queue)).sum();
    Limits {
        body_bytes,
        open_requests: open_requests.max(places),
        max_completion_tokens: max_tokens,
        generation_timeout: answer_time,
        drain_timeout: drain_time,
        ..Limits::default()
    }
}

/// The system's clock.
fn milliseconds() -> UnixMilliseconds {
    let now = clock::now().as_millis();
    UnixMilliseconds::new(u64::try_from(now).unwrap_or(u64::MAX))
}
