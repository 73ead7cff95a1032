//! Puts a metered host together: books, chain, leases, settlement; and takes it down in an order in which nothing is lost.

use std::{collections::HashMap, future::Future, io, sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use licensing_contracts::{
    actions::{
        leases::{self, LeaseDetails},
        registry,
    },
    bindings::{ModelRegistry, UsageLog},
    client::{ChainClient, ChainError, Sender},
    deployment::Deployment,
};
use protocol::{
    ids::{ChainId, LeaseId, ManifestDigest, TermsId},
    messages::Domain,
    signature::SigningKey,
    units::{Amount, UnixMilliseconds},
};
use tokio::{net::TcpListener, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AppState, ServedModel,
    books::{Books, BooksError, Journal},
    chain::{ChainWatch, WatchSettings},
    metering::{Metering, lease::ServedLease},
    server,
    settlement::{ClaimSettings, Settlement, SettlementError, SettlementSettings},
    tls::Tls,
};

/// How long the journal and the settlement get when everything else has ended.
const LAST_ENTRIES: Duration = Duration::from_secs(30);
/// Between two looks whether the journal is written.
const LOOK: Duration = Duration::from_millis(20);

/// Why there is no metered host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The books.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Settlement.
    #[error(transparent)]
    Settlement(#[from] SettlementError),
    /// Nobody opened it.
    #[error("there is no lease {lease} on this chain")]
    NoLease {
        /// The lease.
        lease: LeaseId,
    },
    /// It is somebody else's.
    #[error("lease {lease} belongs to {host} and not to this host's account {account}")]
    OtherHost {
        /// The lease.
        lease: LeaseId,
        /// Whose it is.
        host: Address,
        /// The account that settles.
        account: Address,
    },
    /// Somebody else reported, or these are not all of the host's books.
    #[error(
        "lease {lease} has {on_chain} reports on the chain and {known} in the books: serve it with the books that it was served \
         with, or open a new lease"
    )]
    BooksBehind {
        /// The lease.
        lease: LeaseId,
        /// Reports on the chain.
        on_chain: u64,
        /// Reports in the books.
        known: usize,
    },
    /// Another model than the licence is for.
    #[error("the {what} of the model are not what lease {lease} is for: {found} and not {expected}")]
    OtherModel {
        /// The lease.
        lease: LeaseId,
        /// What differs.
        what: &'static str,
        /// As the registry has it.
        expected: B256,
        /// As it was loaded.
        found: B256,
    },
    /// Statements would be refused.
    #[error("lease {lease} wants statements signed by {expected}, and the lease key given is that of {found}")]
    OtherKey {
        /// The lease.
        lease: LeaseId,
        /// The lease's key.
        expected: Address,
        /// The key given.
        found: Address,
    },
}

/// What a metered host is made of.
pub struct HostSetup {
    /// `sqlite:FILE` or `postgres://…`.
    pub books: String,
    /// The chain.
    pub client: ChainClient,
    /// Its contracts.
    pub deployment: Deployment,
    /// How it is followed.
    pub watch: WatchSettings,
    /// The host's account, which reports and claims.
    pub sender: Sender,
    /// When it does.
    pub settlement: SettlementSettings,
    /// The leases that are served under.
    pub leases: Vec<LeaseSetup>,
    /// How long a request waits for the disk.
    pub journal_patience: Duration,
    /// Milliseconds since 1970.
    pub clock: fn() -> UnixMilliseconds,
}

/// A lease to serve under.
pub struct LeaseSetup {
    /// The lease.
    pub id: LeaseId,
    /// Signs its statements.
    pub key: SigningKey,
    /// A lane that owes as much is claimed in the next round: as much as makes the gas worth it.
    pub claim_from: Amount,
    /// A lane that owes less is never claimed.
    pub claim_least: Amount,
}

impl std::fmt::Debug for LeaseSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseSetup").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HostSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostSetup").field("deployment", &self.deployment).finish_non_exhaustive()
    }
}

/// Where a host is reached.
#[derive(Debug)]
pub struct Listeners {
    /// By customers.
    pub customers: TcpListener,
    /// For HTTPS.
    pub tls: Option<Tls>,
    /// By its operator: metrics and the status page.
    pub operator: Option<TcpListener>,
}

/// The parts of a metered host that run beside its server.
#[derive(Debug)]
pub struct MeteredHost {
    metering: Arc<Metering>,
    settlement: Settlement,
    terms: HashMap<LeaseId, TermsId>,
    tasks: TaskTracker,
}

impl MeteredHost {
    /// Opens the books, reads the leases, and starts the journal.
    pub async fn open(setup: HostSetup) -> Result<Self, HostError> {
        let HostSetup { books, client, deployment, watch, sender, settlement, leases, journal_patience, clock } = setup;
        let tasks = TaskTracker::new();
        let books = Books::open(&books).await?;
        let mut settled = Vec::with_capacity(leases.len());
        for lease in leases {
            let claims = ClaimSettings { from: lease.claim_from, least: lease.claim_least };
            let (served, details) = read_lease(&client, &deployment, lease, sender.account()).await?;
            settled.push((served, details, claims));
        }
        warn_of_tokens(&settled);
        for (served, ..) in &settled {
            check_books(&books, &client, &deployment, served.id).await?;
        }
        let ids: Vec<LeaseId> = settled.iter().map(|(served, ..)| served.id).collect();
        let chain = Arc::new(ChainWatch::start(client, deployment, &ids, watch, clock).await?);
        let journal = Journal::start(&books, &tasks, journal_patience).await?;
        let served = settled.iter().map(|(served, ..)| served.clone()).collect();
        let terms = settled.iter().map(|(served, details, _)| (served.id, details.terms)).collect();
        let metering = Arc::new(Metering::new(books, journal, chain, served, clock));
        let settlement = Settlement::new(metering.clone(), sender, settlement, settled).await?;
        Ok(Self { metering, settlement, terms, tasks })
    }

    /// What requests are admitted and billed by.
    pub fn metering(&self) -> &Arc<Metering> {
        &self.metering
    }

    /// The model, served under a lease of this host, if it is the one that was leased: weights, tokenizer and chat template as the
    /// registry has them. Of an engine that is another server the weights are not known.
    pub async fn under(&self, lease: LeaseId, model: ServedModel) -> Result<ServedModel, HostError> {
        let terms = self.terms.get(&lease).copied().ok_or(HostError::NoLease { lease })?;
        let chain = self.metering.chain();
        let (client, to) = (chain.client(), chain.deployment());
        let terms = registry::terms(client, to, terms).await?;
        let call = ModelRegistry::modelCall { modelId: registry::number(terms.model) };
        let manifest = client.call(to.model_registry, &call).await?.manifestDigest;
        let parts = [
            ("weights", manifest, model.manifest.map_or(manifest, ManifestDigest::into)),
            ("tokenizer", terms.tokenizer.into(), model.tokenizer.digest().into()),
            ("chat template", terms.template.into(), model.template_digest().into()),
        ];
        match parts.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => Err(HostError::OtherModel { lease, what, expected, found }),
            None => {
                let served = self.metering.leases().find(|served| served.id == lease).cloned();
                Ok(ServedModel { lease: served, ..model })
            }
        }
    }

    /// Serves `state`, which was made with this host's metering, until `shutdown`. Then requests end, the journal is written,
    /// and what settlement is doing is finished.
    pub async fn serve(
        self,
        Listeners { customers: listener, tls, operator }: Listeners,
        state: AppState,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let Self { metering, settlement, tasks, .. } = self;
        let stop = CancellationToken::new();
        tasks.spawn(metering.chain().clone().follow(metering.accounts().clone(), stop.clone()));
        tasks.spawn(settlement.run(stop.clone()));
        if let Some(listener) = operator {
            let serving = server::serve_operator(listener, state.clone(), stop.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the operator's address is no longer served: {error}");
                }
            });
        }
        let served = match tls {
            Some(tls) => server::serve_tls(listener, tls, state, shutdown).await,
            None => server::serve(listener, state, shutdown).await,
        };
        let written = async {
            while metering.journal().pending() > 0 {
                time::sleep(LOOK).await;
            }
        };
        if time::timeout(LAST_ENTRIES, written).await.is_err() {
            tracing::error!("{} statements could not be written before the end", metering.journal().pending());
        }
        stop.cancel();
        drop(metering);
        tasks.close();
        if time::timeout(LAST_ENTRIES, tasks.wait()).await.is_err() {
            tracing::warn!("settlement is still waiting for the chain; what it sent will be found again");
        }
        served
    }
}

/// Budgets of customers are sums over all leases, and sums over two tokens mean nothing.
fn warn_of_tokens(leases: &[(Arc<ServedLease>, LeaseDetails, ClaimSettings)]) {
    let mut tokens = leases.iter().map(|(served, ..)| served.token);
    let first = tokens.next();
    if tokens.any(|token| Some(token) != first) {
        tracing::warn!("the leases are paid in different tokens: budgets of customers are not to be relied on");
    }
}

/// Books that know less than the chain would state a second time what was stated before.
async fn check_books(
    books: &Books,
    client: &ChainClient,
    deployment: &Deployment,
    lease: LeaseId,
) -> Result<(), HostError> {
    let on_chain = client.call(deployment.usage_log, &UsageLog::reportsCall { leaseId: lease.get() }).await?;
    let (on_chain, known) = (on_chain.saturating_to::<u64>(), books.reports(lease).await?.len());
    if on_chain > u64::try_from(known).unwrap_or(u64::MAX) {
        return Err(HostError::BooksBehind { lease, on_chain, known });
    }
    Ok(())
}

async fn read_lease(
    client: &ChainClient,
    deployment: &Deployment,
    LeaseSetup { id: lease, key, .. }: LeaseSetup,
    account: Address,
) -> Result<(Arc<ServedLease>, LeaseDetails), HostError> {
    let details = leases::details(client, deployment, lease).await?.ok_or(HostError::NoLease { lease })?;
    if details.host != account {
        return Err(HostError::OtherHost { lease, host: details.host, account });
    }
    if details.lease_key != key.address() {
        return Err(HostError::OtherKey { lease, expected: details.lease_key, found: key.address() });
    }
    let served = ServedLease {
        id: lease,
        host: details.host,
        token: details.token,
        prices: details.prices,
        key,
        domain: Domain::new(ChainId::new(deployment.chain_id), deployment.lease_manager),
    };
    Ok((Arc::new(served), details))
}
