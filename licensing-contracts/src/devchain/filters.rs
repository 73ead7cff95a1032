//! Filters that clients poll. Each collects what happened since its last poll, replaced blocks included.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use alloy::{
    primitives::B256,
    rpc::types::{Filter, FilterBlockOption, Log},
};
use serde::Serialize;

use super::block::Block;

/// A filter that nobody polls for so long is dropped, as by go-ethereum.
const IDLE: Duration = Duration::from_secs(300);

/// A filter that nobody polls while so much happens is dropped.
const MOST_WAITING: usize = 100_000;

/// What `eth_getFilterChanges` answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Changes {
    Hashes(Vec<B256>),
    Logs(Vec<Log>),
}

impl Changes {
    fn len(&self) -> usize {
        match self {
            Self::Hashes(hashes) => hashes.len(),
            Self::Logs(logs) => logs.len(),
        }
    }
}

#[derive(Debug)]
enum Kind {
    Blocks,
    Transactions,
    Logs(Box<Filter>),
}

#[derive(Debug)]
struct Poller {
    kind: Kind,
    waiting: Changes,
    polled: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Filters {
    pollers: HashMap<u64, Poller>,
    last_id: u64,
}

impl Filters {
    pub(super) fn add_blocks(&mut self) -> u64 {
        self.add(Kind::Blocks, Changes::Hashes(Vec::new()))
    }

    pub(super) fn add_transactions(&mut self) -> u64 {
        self.add(Kind::Transactions, Changes::Hashes(Vec::new()))
    }

    pub(super) fn add_logs(&mut self, filter: Filter) -> u64 {
        self.add(Kind::Logs(Box::new(filter)), Changes::Logs(Vec::new()))
    }

    fn add(&mut self, kind: Kind, waiting: Changes) -> u64 {
        self.drop_idle();
        self.last_id = self.last_id.saturating_add(1);
        self.pollers.insert(self.last_id, Poller { kind, waiting, polled: Instant::now() });
        self.last_id
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.pollers.remove(&id).is_some()
    }

    /// What happened since the last poll; nothing when there is no such filter.
    pub(super) fn poll(&mut self, id: u64) -> Option<Changes> {
        let poller = self.pollers.get_mut(&id)?;
        poller.polled = Instant::now();
        let empty = match &poller.waiting {
            Changes::Hashes(_) => Changes::Hashes(Vec::new()),
            Changes::Logs(_) => Changes::Logs(Vec::new()),
        };
        Some(std::mem::replace(&mut poller.waiting, empty))
    }

    /// The filter of `eth_getFilterLogs`.
    pub(super) fn log_filter(&self, id: u64) -> Option<&Filter> {
        match &self.pollers.get(&id)?.kind {
            Kind::Logs(filter) => Some(filter),
            Kind::Blocks | Kind::Transactions => None,
        }
    }

    /// A block became the head, or is `removed` from the chain.
    pub(super) fn block(&mut self, block: &Block, removed: bool) {
        if self.pollers.is_empty() {
            return;
        }
        self.drop_idle();
        for poller in self.pollers.values_mut() {
            match (&poller.kind, &mut poller.waiting) {
                (Kind::Blocks, Changes::Hashes(hashes)) if !removed => hashes.push(block.hash()),
                (Kind::Logs(filter), Changes::Logs(logs)) if in_range(filter, block) && block.may_match(filter) => {
                    logs.extend(block.logs(removed).filter(|log| filter.matches(&log.inner)));
                }
                _ => {}
            }
        }
        self.pollers.retain(|_, poller| poller.waiting.len() <= MOST_WAITING);
    }

    /// A transaction was taken.
    pub(super) fn transaction(&mut self, hash: B256) {
        for poller in self.pollers.values_mut() {
            if let (Kind::Transactions, Changes::Hashes(hashes)) = (&poller.kind, &mut poller.waiting) {
                hashes.push(hash);
            }
        }
        self.pollers.retain(|_, poller| poller.waiting.len() <= MOST_WAITING);
    }

    fn drop_idle(&mut self) {
        self.pollers.retain(|_, poller| poller.polled.elapsed() < IDLE);
    }
}

fn in_range(filter: &Filter, block: &Block) -> bool {
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => block.hash() == hash,
        FilterBlockOption::Range { from_block, to_block } => {
            // Tags name the head or what is before it: no bound for blocks that are new.
            let from = from_block.and_then(|from| from.as_number()).unwrap_or(0);
            let to = to_block.and_then(|to| to.as_number()).unwrap_or(u64::MAX);
            (from..=to).contains(&block.number())
        }
    }
}
