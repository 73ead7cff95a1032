//! Events in order, each once, whatever the chain's newest blocks do.
//!
//! A cursor is a block by its hash. When that block is no longer on the chain, the reader walks back to the last one that is,
//! and says so: whoever applied later events takes them back.

use std::collections::{BTreeMap, VecDeque};

use alloy::{
    eips::BlockNumberOrTag,
    primitives::B256,
    providers::Provider,
    rpc::types::{Filter, Log},
};
use serde::{Deserialize, Serialize};

use super::{ChainClient, ChainError, Head, rpc};

/// Times that a page is read again because the chain changed meanwhile.
const ATTEMPTS: usize = 5;

/// The last block whose events were delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCursor {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

impl From<Head> for EventCursor {
    fn from(head: Head) -> Self {
        Self { number: head.number, hash: head.hash }
    }
}

/// One step of a reader.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// Events of later blocks than this one were delivered and are void: take them back before you apply the others.
    pub rolled_back_to: Option<EventCursor>,
    /// Events in order.
    pub logs: Vec<Log>,
    /// Where the next page begins. Store it in the same transaction as what the events changed.
    pub cursor: EventCursor,
    /// Whether the chain has nothing newer.
    pub at_head: bool,
}

/// Reads events of some contracts, page by page.
#[derive(Debug)]
pub struct EventReader {
    chain: ChainClient,
    filter: Filter,
    /// Delivered blocks, newest last: as far back as the chain may be reorganised.
    known: VecDeque<EventCursor>,
    depth: usize,
    page_blocks: u64,
}

impl EventReader {
    /// Reads what `filter` matches, from behind the newest of `known`: blocks that were delivered before, oldest first.
    /// `depth` is how many blocks may be taken back.
    pub fn new(chain: ChainClient, filter: Filter, known: Vec<EventCursor>, depth: usize, page_blocks: u64) -> Self {
        Self { chain, filter, known: known.into(), depth: depth.max(1), page_blocks: page_blocks.max(1) }
    }

    /// The delivered blocks, to be stored beside what the events changed.
    pub fn known(&self) -> impl Iterator<Item = &EventCursor> {
        self.known.iter()
    }

    /// The next events. An error changes nothing: ask again.
    pub async fn next(&mut self) -> Result<EventPage, ChainError> {
        for _ in 0..ATTEMPTS {
            if let Some(page) = self.page().await? {
                return Ok(page);
            }
        }
        Err(ChainError::Unsettled)
    }

    /// A page, or `None` if the chain changed while it was read.
    async fn page(&mut self) -> Result<Option<EventPage>, ChainError> {
        let head = self.chain.head().await?;
        let (base, rolled_back_to) = self.base(head).await?;
        if let Some(cursor) = base.filter(|cursor| cursor.number >= head.number) {
            self.deliver(rolled_back_to, None);
            return Ok(Some(EventPage { rolled_back_to, logs: Vec::new(), cursor, at_head: true }));
        }
        let from = base.map_or(0, |cursor| cursor.number.saturating_add(1));
        let to = head.number.min(from.saturating_add(self.page_blocks.saturating_sub(1)));
        let end = self.canonical(to).await?;
        let filter = self.filter.clone().from_block(from).to_block(to);
        let logs = self.chain.provider().get_logs(&filter).await.map_err(rpc("read events"))?;
        // Blocks are chained by their hashes: if the last block of the page and those that hold events are what they were,
        // everything in between is of one chain.
        let blocks: BTreeMap<u64, B256> = logs
            .iter()
            .filter_map(|log| Some((log.block_number?, log.block_hash?)))
            .chain(base.map(|cursor| (cursor.number, cursor.hash)))
            .chain([(end.number, end.hash)])
            .collect();
        for (number, hash) in blocks {
            if self.canonical(number).await?.hash != hash {
                return Ok(None);
            }
        }
        self.deliver(rolled_back_to, Some(end));
        Ok(Some(EventPage { rolled_back_to, logs, cursor: end, at_head: to == head.number }))
    }

    /// The newest delivered block that is on the chain, and whether later ones were delivered.
    async fn base(&self, head: Head) -> Result<(Option<EventCursor>, Option<EventCursor>), ChainError> {
        for (steps, cursor) in self.known.iter().rev().enumerate() {
            let same = cursor.number <= head.number && self.canonical(cursor.number).await? == *cursor;
            if same {
                return Ok((Some(*cursor), (steps > 0).then_some(*cursor)));
            }
        }
        if self.known.is_empty() { Ok((None, None)) } else { Err(ChainError::ReorganisedTooDeep { depth: self.depth }) }
    }

    async fn canonical(&self, number: u64) -> Result<EventCursor, ChainError> {
        let block = self.chain.block(BlockNumberOrTag::Number(number)).await?;
        // The chain became shorter while it was read: a hash that no block has matches nothing.
        Ok(block.map_or(EventCursor { number, hash: B256::ZERO }, EventCursor::from))
    }

    fn deliver(&mut self, rolled_back_to: Option<EventCursor>, end: Option<EventCursor>) {
        if let Some(base) = rolled_back_to {
            while self.known.back().is_some_and(|cursor| cursor.number > base.number) {
                self.known.pop_back();
            }
        }
        if let Some(end) = end {
            self.known.push_back(end);
            while self.known.len() > self.depth {
                self.known.pop_front();
            }
        }
    }
}
