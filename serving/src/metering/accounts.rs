//! The accounts of everybody who pays here, loaded when they first come.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use alloy_primitives::{Address, B256};
use licensing_contracts::client::ChainError;
use protocol::{
    ids::{ChannelId, Lane, LeaseId},
    messages::Channel,
    units::Amount,
};
use tokio::sync::{OnceCell, Semaphore};

use super::{
    channel::{ChannelAccount, ClaimedCosts, GrantFacts},
    customer::CustomerAccount,
};
use crate::{
    books::{Books, BooksError},
    chain::ChainWatch,
};

/// Accounts in memory beyond which those that nobody uses are forgotten; their books stay.
const MOST: usize = 1 << 16;

/// Questions to the chain at the same time.
const LOOKUPS: usize = 16;

/// Why an account cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Nothing was ever deposited: there is nothing to remember, and anybody can think up such channels.
    #[error("the channel has no deposit")]
    NoDeposit,
}

/// Things that are loaded once however many ask for them at the same time.
#[derive(Debug)]
struct Loaded<K, V>(Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>);

impl<K: Eq + Hash + Copy, V> Loaded<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn cell(&self, key: K, is_in_use: impl Fn(&V) -> bool) -> Arc<OnceCell<Arc<V>>> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= MOST && !cells.contains_key(&key) {
            // One that is being loaded, or that a request holds, has more than one owner.
            cells.retain(|_, cell| {
                Arc::strong_count(cell) > 1
                    || cell.get().is_some_and(|value| Arc::strong_count(value) > 1 || is_in_use(value))
            });
        }
        cells.entry(key).or_default().clone()
    }

    /// Forgets what could not be loaded, unless somebody else is trying: two accounts of one channel would state one place twice.
    fn forget_empty(&self, key: K, cell: &Arc<OnceCell<Arc<V>>>) {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and the caller's, and no other: whoever wants one more must come through this lock.
        if Arc::strong_count(cell) == 2 && cell.get().is_none() {
            cells.remove(&key);
        }
    }

    fn get(&self, key: K) -> Option<Arc<V>> {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.get(&key).and_then(|cell| cell.get().cloned())
    }

    fn all(&self) -> Vec<Arc<V>> {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.values().filter_map(|cell| cell.get().cloned()).collect()
    }
}

/// All accounts.
#[derive(Debug)]
pub(crate) struct Accounts {
    books: Books,
    leases: Vec<LeaseId>,
    channels: Loaded<ChannelId, ChannelAccount>,
    /// By the digest of the API key.
    customers: Loaded<B256, CustomerAccount>,
    /// Channels that were loaded since the chain was last looked at.
    new: Mutex<Vec<ChannelId>>,
    /// Questions to the chain that requests wait for. Whoever makes up payers by the thousand waits for himself, and does not
    /// become a thousand questions to a node.
    lookups: Semaphore,
}

impl Accounts {
    pub(crate) fn new(books: Books, leases: Vec<LeaseId>) -> Self {
        Self {
            books,
            leases,
            channels: Loaded::new(),
            customers: Loaded::new(),
            new: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS),
        }
    }

    /// The account of a channel.
    pub(crate) async fn channel(
        &self,
        chain: &ChainWatch,
        id: ChannelId,
        channel: &Channel,
    ) -> Result<Arc<ChannelAccount>, AccountError> {
        let cell = self.channels.cell(id, ChannelAccount::is_in_use);
        let load = async {
            let _turn = self.lookups.acquire().await;
            if chain.channel(id).await?.deposited == Amount::ZERO {
                return Err(AccountError::NoDeposit);
            }
            let heads = self.books.heads(id).await?;
            let account = Arc::new(ChannelAccount::new(id, channel.clone(), &heads));
            self.new.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            self.refresh(chain, &account).await?;
            Ok::<_, AccountError>(account)
        };
        let loaded = cell.get_or_try_init(|| load).await.cloned();
        if loaded.is_err() {
            self.channels.forget_empty(id, &cell);
        }
        loaded
    }

    /// Asks the chain again for everything about a channel.
    pub(crate) async fn refresh(&self, chain: &ChainWatch, account: &ChannelAccount) -> Result<(), AccountError> {
        let facts = chain.channel(account.id()).await?;
        let claimed = self.claimed(chain, account).await?;
        account.learn(&facts, &claimed);
        for key in account.keys() {
            if let Some(grant) = chain.grant(account.id(), key).await? {
                account.learn_grant(key, &grant, &claimed);
            }
        }
        Ok(())
    }

    /// Channels that were loaded since this was last asked.
    pub(crate) fn take_new(&self) -> Vec<ChannelId> {
        std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Learns a session key's grant; `None` if it has none.
    pub(crate) async fn grant(
        &self,
        chain: &ChainWatch,
        account: &ChannelAccount,
        key: Address,
    ) -> Result<Option<GrantFacts>, AccountError> {
        let _turn = self.lookups.acquire().await;
        let Some(grant) = chain.grant(account.id(), key).await? else { return Ok(None) };
        let claimed = self.claimed(chain, account).await?;
        account.learn_grant(key, &grant, &claimed);
        // It may have been revoked since it was read.
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push(account.id());
        Ok(Some(grant))
    }

    /// Whether a lane that the books do not know was claimed all the same: by books that were lost, or under another lease.
    pub(crate) async fn was_used_elsewhere(
        &self,
        chain: &ChainWatch,
        account: &ChannelAccount,
        lane: Lane,
    ) -> Result<bool, AccountError> {
        if account.knows(lane) {
            return Ok(false);
        }
        let _turn = self.lookups.acquire().await;
        Ok(chain.claimed_requests(account.id(), lane).await? > 0)
    }

    /// What the account's lanes had cost when they were claimed, by the chain's counts and the books' costs.
    async fn claimed(&self, chain: &ChainWatch, account: &ChannelAccount) -> Result<ClaimedCosts, AccountError> {
        let mut costs = ClaimedCosts::new();
        for (lane, lease) in account.lanes() {
            let requests = chain.claimed_requests(account.id(), lane).await?;
            if requests > 0 {
                costs.push((lane, self.books.lane_cost(lease, account.id(), lane, requests).await?));
            }
        }
        Ok(costs)
    }

    /// A channel's account, if it is in memory.
    pub(crate) fn loaded(&self, id: ChannelId) -> Option<Arc<ChannelAccount>> {
        self.channels.get(id)
    }

    /// Every channel's account in memory.
    pub(crate) fn all_loaded(&self) -> Vec<Arc<ChannelAccount>> {
        self.channels.all()
    }

    /// The account of the customer with this key; `None` for a key of nobody and for one that was revoked. The books are asked
    /// each time: who keeps them may change a budget or revoke a key at any moment.
    pub(crate) async fn customer(&self, key_digest: B256) -> Result<Option<Arc<CustomerAccount>>, BooksError> {
        let Some(customer) = self.books.customer_of(key_digest).await? else { return Ok(None) };
        if customer.revoked_at.is_some() {
            return Ok(None);
        }
        let cell = self.customers.cell(key_digest, |_| false);
        let load = async {
            let charged = self.books.charged(&customer.id).await?;
            let mut heads = Vec::new();
            for lease in &self.leases {
                heads.extend(self.books.customer_head(*lease, customer.lane).await?);
            }
            Ok::<_, BooksError>(Arc::new(CustomerAccount::new(&customer, charged, &heads)))
        };
        let account = cell.get_or_try_init(|| load).await?;
        account.learn(&customer);
        Ok(Some(account.clone()))
    }
}
