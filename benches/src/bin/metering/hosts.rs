//! A model put up twice: under its lease, and without.

use std::time::Duration;

use benches::world::{World, now};
use licensing_contracts::devnet::{HOST, LEASE_KEY, market::Offered};
use model::{Manifest, chat::UnixSeconds};
use protocol::{signature::SigningKey, units::Amount};
use serving::{
    AppState, Limits, ServedModel,
    chain::WatchSettings,
    host::{HostSetup, LeaseSetup, Listeners, MeteredHost},
    settlement::SettlementSettings,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The same model, paid for and not.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) world: World,
    /// Where vouchers and statements are exchanged.
    pub(crate) metered: String,
    /// Where nothing is asked for.
    pub(crate) bare: String,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Hosts {
    /// For customers on so many lanes.
    pub(crate) async fn serve(model: ServedModel, manifest: Manifest, lanes: u64) -> anyhow::Result<Self> {
        let (tokenizer, template) = (model.tokenizer.digest(), model.template_digest());
        let world = World::new(&Offered { manifest: manifest.digest(), tokenizer, template }, lanes).await?;
        let lease = world.lease();
        let setup = HostSetup {
            books: format!("sqlite:{}", world.folder().join("books.sqlite").display()),
            client: world.devnet().client(),
            deployment: world.devnet().deployment().clone(),
            watch: WatchSettings { poll: Duration::from_secs(1), most_age: Duration::from_secs(60) },
            sender: world.sender(&HOST)?,
            settlement: SettlementSettings { every: Duration::from_secs(3_600) },
            leases: vec![LeaseSetup {
                id: lease,
                key: SigningKey::from_bytes(&LEASE_KEY.key.0)?,
                claim_from: Amount::MAX,
                claim_least: Amount::MAX,
            }],
            journal_patience: Duration::from_secs(10),
            clock: now,
        };
        let host = MeteredHost::open(setup).await?;
        let leased = host.under(lease, model.clone()).await?;
        let state = AppState::metered(vec![leased], Limits::default(), seconds, 1, host.metering().clone());
        let without = AppState::new(vec![model], Limits::default(), seconds, 2);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (first, second) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let [metered, bare] = [first.local_addr()?, second.local_addr()?].map(|address| format!("http://{address}/v1"));
        let listeners = Listeners { customers: first, tls: None, operator: None };
        tasks.spawn(host.serve(listeners, state, stop.clone().cancelled_owned()));
        tasks.spawn(serving::serve(second, without, stop.clone().cancelled_owned()));
        Ok(Self { world, metered, bare, tasks, stop })
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub(crate) fn seconds() -> UnixSeconds {
    UnixSeconds(now().second_down().get())
}
