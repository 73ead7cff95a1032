//! The host of the stamped model: metered, under its lease, on the demo's chain.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy::primitives::hex;
use anyhow::Context as _;
use licensing_contracts::{
    client::{Sender, TransactionJournal},
    devnet::{sender_settings, signer},
};
use model::{Model, chat::UnixSeconds as ModelSeconds};
use protocol::{
    signature::SigningKey,
    units::{Amount, UnixMilliseconds, UnixSeconds},
};
use rand::{TryRngCore as _, rngs::OsRng};
use secrecy::SecretString;
use serving::{
    AppState, Limits, ServedModel,
    books::{Books, CustomerId, NewCustomer},
    chain::WatchSettings,
    engine::builtin::BuiltinSettings,
    host::{HostSetup, LeaseSetup, Listeners, MeteredHost},
    settlement::SettlementSettings,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    chain::{Chain, HOST, LEASE_KEY},
    folder::Folder,
    licence::Lease,
};
use crate::{clock, context::Context, hosting};

/// The name under which both servers of the demo have their model.
pub(super) const MODEL: &str = "model";
/// The host's books.
const BOOKS: &str = "host/books.sqlite";
/// Between two looks of the host at its chain, and at what it can settle.
const LOOK: Duration = Duration::from_millis(50);
/// How long a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds by which the demo's chain is ahead of the system. The host's clock goes with it: the demo does not wait until an
/// epoch is over.
static AHEAD_S: AtomicU64 = AtomicU64::new(0);

/// Moves the clock of the demo's host.
pub(super) fn advance_s(seconds: u64) {
    AHEAD_S.fetch_add(seconds, Ordering::Relaxed);
}

/// The host's clock.
pub(super) fn now() -> UnixMilliseconds {
    let ahead = Duration::from_secs(AHEAD_S.load(Ordering::Relaxed));
    let now = clock::now().saturating_add(ahead).as_millis();
    UnixMilliseconds::new(u64::try_from(now).unwrap_or(u64::MAX))
}

fn seconds() -> ModelSeconds {
    ModelSeconds(now().second_down().get())
}

/// An address that is taken before the lease names it.
pub(super) struct Place {
    listener: TcpListener,
    pub(super) url: Url,
}

/// Takes a free port.
pub(super) async fn take_place() -> anyhow::Result<Place> {
    let listener = hosting::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr().context("failed to read the address that was bound")?;
    let url = Url::parse(&format!("http://{address}/v1")).context("failed to form the server's address")?;
    Ok(Place { listener, url })
}

/// Serves the model under its lease until `stop`. Returns the API key of a customer who is billed in money: the one who is going
/// to prove.
pub(super) async fn serve(
    place: Place,
    model: Model,
    lease: &Lease,
    (chain, folder): (&Chain, &Folder),
    context: &Context,
    stop: CancellationToken,
) -> anyhow::Result<SecretString> {
    let books = format!("sqlite:{}", folder.join(BOOKS).display());
    let api_key = add_customer(&books).await?;
    let journals = folder.join("host");
    let journal = TransactionJournal::open(&journals, chain.client().chain_id(), HOST.address)?;
    let setup = HostSetup {
        books,
        client: chain.client(),
        deployment: chain.deployment().clone(),
        watch: WatchSettings { poll: LOOK, most_age: Duration::from_secs(600) },
        sender: Sender::new(chain.client(), signer(&HOST), journal, sender_settings()),
        settlement: SettlementSettings { every: LOOK },
        leases: vec![LeaseSetup {
            id: lease.lease,
            key: SigningKey::from_bytes(&LEASE_KEY.key.0)?,
            claim_from: Amount::new(1),
            claim_least: Amount::new(1),
        }],
        journal_patience: PATIENCE,
        clock: now,
    };
    let host = MeteredHost::open(setup).await?;
    let settings = BuiltinSettings { streams: NonZeroUsize::MIN.saturating_add(7), ..BuiltinSettings::default() };
    let served = ServedModel::builtin(MODEL, Arc::new(model), seconds(), &settings);
    let served = host.under(lease.lease, served.context("failed to start the engine")?).await?;
    let metering = host.metering().clone();
    // Not the demo's seed: names of answers must never come again.
    let seed = OsRng.try_next_u64().context("failed to read randomness from the operating system")?;
    let state = AppState::metered(vec![served], Limits::default(), seconds, seed, metering);
    let listeners = Listeners { customers: place.listener, tls: None, operator: None };
    context.tracker.spawn(async move {
        if let Err(error) = host.serve(listeners, state, stop.cancelled_owned()).await {
            tracing::error!("the demo's host ended: {error:#}");
        }
    });
    Ok(api_key)
}

async fn add_customer(books: &str) -> anyhow::Result<SecretString> {
    let mut random = [0; 32];
    OsRng.try_fill_bytes(&mut random).context("failed to read randomness from the operating system")?;
    let key = format!("hmk-{}", hex::encode(random));
    let customer = NewCustomer {
        id: CustomerId::new("claimant").context("a name that is one")?,
        key_digest: Books::key_digest(&key),
        budget: None,
        requests_per_minute: None,
        created_at: UnixSeconds::new(clock::now().as_secs()),
    };
    Books::open(books).await?.add_customer(&customer).await?;
    Ok(key.into())
}
