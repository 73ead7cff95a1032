//! What the host knows of the chain, and how old that is.
//!
//! One task follows the contracts' events. What is read about a channel when it first comes stays true until an event says
//! otherwise, so requests are admitted without asking a node; they are refused when the task has not heard from one for too
//! long.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use alloy::rpc::types::{Filter, Log};
use alloy_primitives::Address;
use licensing_contracts::{
    bindings::{LeaseManager, PaymentEscrow, UsageLog},
    client::{ChainClient, ChainError, EventCursor, EventReader, Fresh, Head, StaleError},
    deployment::Deployment,
};
use protocol::{
    ids::{ChannelId, Lane, LeaseId},
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::metering::{
    Accounts,
    channel::{ChannelFacts, GrantFacts},
};

/// Blocks that may be taken back.
pub(crate) const DEPTH: u64 = 64;
/// Blocks whose events are asked for at once.
const PAGE_BLOCKS: u64 = 1_000;

/// For channels of which events were seen, at each look.
const REFRESH_TIME: Duration = Duration::from_secs(2);

/// How the chain is followed.
#[derive(Clone, Copy, Debug)]
pub struct WatchSettings {
    /// Between two looks.
    pub poll: Duration,
    /// How old what is known may be for a request to be admitted.
    pub most_age: Duration,
}

/// Spans that the contracts fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Length of an epoch.
    pub epoch: Seconds,
    /// Within which a host is expected to claim.
    pub claim_interval: Seconds,
}

impl Spans {
    /// How long a voucher must still be good when it comes: the epoch must be over, then reported, then claimed.
    pub(crate) fn to_claim(self) -> Seconds {
        Seconds::new(self.epoch.get().saturating_add(self.claim_interval.get()))
    }
}

/// A lease as the chain has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// Whether the host may serve.
    pub is_active: bool,
    /// Until when.
    pub to: UnixSeconds,
}

/// The chain as the host sees it.
#[derive(Debug)]
pub struct ChainWatch {
    client: ChainClient,
    deployment: Deployment,
    settings: WatchSettings,
    spans: Spans,
    clock: fn() -> UnixMilliseconds,
    head: RwLock<Fresh<()>>,
    leases: RwLock<HashMap<LeaseId, LeaseFacts>>,
}

impl ChainWatch {
    /// Reads what never changes, the leases, and the newest block.
    pub async fn start(
        client: ChainClient,
        deployment: Deployment,
        leases: &[LeaseId],
        settings: WatchSettings,
        clock: fn() -> UnixMilliseconds,
    ) -> Result<Self, ChainError> {
        let epoch = client.call(deployment.usage_log, &UsageLog::EPOCH_LENGTHCall {}).await?;
        let interval = client.call(deployment.payment_escrow, &PaymentEscrow::CLAIM_INTERVALCall {}).await?;
        let block = client.head().await?;
        let spans = Spans { epoch: Seconds::new(epoch), claim_interval: Seconds::new(interval) };
        let watch = Self {
            head: RwLock::new(Fresh { value: (), block, observed_at: since_1970(clock()) }),
            client,
            deployment,
            settings,
            spans,
            clock,
            leases: RwLock::new(leases.iter().map(|lease| (*lease, LeaseFacts::NONE)).collect()),
        };
        watch.read_leases().await?;
        Ok(watch)
    }

    /// The client that is watched through.
    pub fn client(&self) -> &ChainClient {
        &self.client
    }

    /// Where the contracts are.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Spans that the contracts fix.
    pub fn spans(&self) -> Spans {
        self.spans
    }

    /// The newest block that was heard of, and when.
    pub fn head(&self) -> Fresh<()> {
        self.head.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what is known is fresh enough to decide by.
    pub fn check_fresh(&self) -> Result<(), StaleError> {
        self.head().at_most(self.settings.most_age, since_1970((self.clock)())).map(|_| ())
    }

    /// A lease as it was last read.
    pub fn lease(&self, lease: LeaseId) -> Option<LeaseFacts> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner).get(&lease).copied()
    }

    /// Reads a channel.
    pub(crate) async fn channel(&self, id: ChannelId) -> Result<ChannelFacts, ChainError> {
        let call = PaymentEscrow::channelStateCall { id: id.word() };
        let state = self.client.call(self.deployment.payment_escrow, &call).await?;
        Ok(ChannelFacts {
            deposited: Amount::new(state.deposited),
            spent: Amount::new(state.spent),
            withdrawal: Amount::new(state.withdrawal),
        })
    }

    /// Requests of a lane that were claimed.
    pub(crate) async fn claimed_requests(&self, channel: ChannelId, lane: Lane) -> Result<u64, ChainError> {
        let call = PaymentEscrow::laneCall { id: channel.word(), number: lane.get() };
        let lane = self.client.call(self.deployment.payment_escrow, &call).await?;
        Ok(lane.requests.to())
    }

    /// Reads a session key's grant; `None` if there is none.
    pub(crate) async fn grant(&self, id: ChannelId, key: Address) -> Result<Option<GrantFacts>, ChainError> {
        let call = PaymentEscrow::grantCall { id: id.word(), key };
        let grant = self.client.call(self.deployment.payment_escrow, &call).await?;
        Ok(grant.registered.then(|| GrantFacts {
            cap: Amount::new(grant.cap),
            spent: Amount::new(grant.spent),
            per_request_cap: Amount::new(grant.perRequestCap),
            expires_at: UnixSeconds::new(grant.expiresAt),
            is_revoked: grant.nonce == u64::MAX,
        }))
    }

    async fn read_leases(&self) -> Result<(), ChainError> {
        let ids: Vec<LeaseId> = self.leases.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for id in ids {
            let manager = self.deployment.lease_manager;
            let is_active = self.client.call(manager, &LeaseManager::isActiveCall { leaseId: id.get() }).await?;
            let lease = self.client.call(manager, &LeaseManager::leaseCall { leaseId: id.get() }).await?;
            let facts = LeaseFacts { is_active, to: UnixSeconds::new(lease.to) };
            self.leases.write().unwrap_or_else(PoisonError::into_inner).insert(id, facts);
        }
        Ok(())
    }

    /// Follows the chain until `stop`. Accounts learn what events change about them.
    pub(crate) async fn follow(self: Arc<Self>, accounts: Arc<Accounts>, stop: CancellationToken) {
        let mut follower = Follower::new(self, accounts);
        loop {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                outcome = follower.look() => outcome,
            };
            follower.say(outcome.err());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = time::sleep(follower.chain.settings.poll) => {}
            }
        }
    }
}

impl LeaseFacts {
    const NONE: Self = Self { is_active: false, to: UnixSeconds::new(0) };
}

/// A time as [`Fresh`] has it.
fn since_1970(now: UnixMilliseconds) -> Duration {
    Duration::from_millis(now.get())
}

struct Follower {
    chain: Arc<ChainWatch>,
    accounts: Arc<Accounts>,
    reader: EventReader,
    /// Channels of which an event was seen and the chain not yet asked again.
    changed: HashSet<ChannelId>,
    is_failing: bool,
}

impl Follower {
    fn new(chain: Arc<ChainWatch>, accounts: Arc<Accounts>) -> Self {
        let begin = EventCursor::from(chain.head().block);
        let reader = reader(&chain, begin);
        Self { chain, accounts, reader, changed: HashSet::new(), is_failing: false }
    }

    /// Reads on to the newest block and takes over what changed. An error leaves what is known as old as it was.
    async fn look(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // An event may have come while they were loaded.
        self.changed.extend(self.accounts.take_new());
        let block = loop {
            let page = match self.reader.next().await {
                Err(ChainError::ReorganisedTooDeep { .. }) => {
                    // Whatever was known may be wrong: everything is read again from here on.
                    let head = self.chain.client.head().await?;
                    self.reader = reader(&self.chain, head.into());
                    self.changed.extend(self.accounts.all_loaded().iter().map(|account| account.id()));
                    continue;
                }
                page => page?,
            };
            if page.rolled_back_to.is_some() {
                self.changed.extend(self.accounts.all_loaded().iter().map(|account| account.id()));
            }
            self.changed.extend(page.logs.iter().filter_map(channel_of));
            if page.at_head {
                break page.cursor;
            }
        };
        self.chain.read_leases().await?;
        let newest = self.chain.client.block(block.number.into()).await?;
        if let Some(block) = newest.filter(|newest| newest.hash == block.hash) {
            self.publish(block);
        }
        // After that: what events take away (a withdrawal, a grant) they take with notice, and a channel with many lanes must not
        // keep all others from being served.
        let until = Instant::now() + REFRESH_TIME;
        for id in self.changed.clone() {
            if let Some(account) = self.accounts.loaded(id) {
                self.accounts.refresh(&self.chain, &account).await?;
            }
            self.changed.remove(&id);
            if Instant::now() > until {
                break;
            }
        }
        Ok(())
    }

    fn publish(&self, block: Head) {
        let fresh = Fresh { value: (), block, observed_at: since_1970((self.chain.clock)()) };
        *self.chain.head.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Logs the first failure of a row, and its end.
    fn say(&mut self, failure: Option<Box<dyn std::error::Error + Send + Sync>>) {
        match failure {
            Some(error) if !self.is_failing => {
                tracing::warn!(%error, "the chain cannot be followed: {error}");
                self.is_failing = true;
            }
            None if self.is_failing => {
                tracing::info!("the chain is followed again");
                self.is_failing = false;
            }
            _ => {}
        }
    }
}

fn reader(chain: &ChainWatch, begin: EventCursor) -> EventReader {
    let filter = Filter::new().address(chain.deployment.payment_escrow);
    EventReader::new(chain.client.clone(), filter, vec![begin], DEPTH, PAGE_BLOCKS)
}

/// The channel that an event of the escrow is about: the first topic of those that have one. Others are taken for channels
/// that nobody knows.
fn channel_of(log: &Log) -> Option<ChannelId> {
    log.topics().get(1).map(|topic| ChannelId::from(*topic))
}
