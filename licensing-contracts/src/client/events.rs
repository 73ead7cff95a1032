//! Events in order, each once, whatever the chain's newest blocks do.
//!
//! A cursor is a block by its hash. When that block is no longer on the chain, the reader walks back to the last one that is,
//! and says so: whoever applied later events takes them back.
//!
//! Blocks that may still be replaced are read one by one, each chained to the one before and its events asked for by its hash:
//! a node that is behind, or on another branch, cannot answer that with "none". Older blocks are read many at a time.

use std::collections::VecDeque;

use alloy::{
    eips::BlockNumberOrTag,
    primitives::B256,
    providers::Provider,
    rpc::types::{Filter, Header, Log},
};
use serde::{Deserialize, Serialize};

use super::{ATTEMPTS, ChainClient, ChainError, Head, rpc};

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
///
/// It follows the chain as the node shows it. A node that is behind looks like a chain that became shorter: events of up to
/// `depth` blocks are taken back and delivered again later.
#[derive(Debug)]
pub struct EventReader {
    chain: ChainClient,
    filter: Filter,
    /// Delivered blocks, newest last: as far back as the chain may be reorganised.
    known: VecDeque<EventCursor>,
    depth: u64,
    page_blocks: u64,
}

/// What was read, and the blocks that it was read from.
struct Read {
    logs: Vec<Log>,
    blocks: Vec<EventCursor>,
}

impl EventReader {
    /// Reads what `filter` matches, from behind the newest of `known`: blocks that were delivered before, oldest first.
    /// `depth` is how many blocks may be taken back, `page_blocks` the most in one page.
    pub fn new(chain: ChainClient, filter: Filter, known: Vec<EventCursor>, depth: u64, page_blocks: u64) -> Self {
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
        let Some(base) = self.base(head).await? else { return Ok(None) };
        let rolled_back_to = base.filter(|base| self.known.back() != Some(base));
        if let Some(cursor) = base.filter(|cursor| cursor.number >= head.number) {
            self.delivered(rolled_back_to, &[]);
            return Ok(Some(EventPage { rolled_back_to, logs: Vec::new(), cursor, at_head: true }));
        }
        let from = base.map_or(0, |cursor| cursor.number.saturating_add(1));
        let to = head.number.min(from.saturating_add(self.page_blocks.saturating_sub(1)));
        let first_recent = head.number.saturating_sub(self.depth);
        let read = if from >= first_recent {
            self.recent(base, from, to).await?
        } else {
            self.old(base, from, to.min(first_recent.saturating_sub(1))).await?
        };
        let Some(Read { logs, blocks }) = read else { return Ok(None) };
        let Some(cursor) = blocks.last().copied() else { return Ok(None) };
        self.delivered(rolled_back_to, &blocks);
        Ok(Some(EventPage { rolled_back_to, logs, cursor, at_head: cursor.number == head.number }))
    }

    /// Blocks that may still be replaced.
    async fn recent(&self, base: Option<EventCursor>, from: u64, to: u64) -> Result<Option<Read>, ChainError> {
        let mut read = Read { logs: Vec::new(), blocks: Vec::new() };
        let mut parent = base.map(|cursor| cursor.hash);
        for number in from..=to {
            let Some(header) = self.header(number).await? else { return Ok(None) };
            if parent.is_some_and(|parent| parent != header.parent_hash) {
                return Ok(None);
            }
            let filter = self.filter.clone().at_block_hash(header.hash);
            match self.chain.provider().get_logs(&filter).await {
                Ok(logs) => read.logs.extend(logs),
                // Replaced since, or the node that answered does not have it.
                Err(error) if error.is_error_resp() => match self.header(number).await? {
                    Some(now) if now.hash == header.hash => return Err(rpc("read events")(error)),
                    _ => return Ok(None),
                },
                Err(error) => return Err(rpc("read events")(error)),
            }
            read.blocks.push(EventCursor { number, hash: header.hash });
            parent = Some(header.hash);
        }
        Ok(Some(read))
    }

    /// Blocks that are final as far as the reader's depth goes.
    async fn old(&self, base: Option<EventCursor>, from: u64, to: u64) -> Result<Option<Read>, ChainError> {
        let Some(end) = self.header(to).await? else { return Ok(None) };
        let filter = self.filter.clone().from_block(from).to_block(to);
        let logs = self.chain.provider().get_logs(&filter).await.map_err(rpc("read events"))?;
        // Blocks are chained by their hashes: if the ends are what they were, everything in between is of one chain.
        let end = EventCursor { number: to, hash: end.hash };
        for cursor in base.into_iter().chain([end]) {
            if self.header(cursor.number).await?.is_none_or(|header| header.hash != cursor.hash) {
                return Ok(None);
            }
        }
        Ok(Some(Read { logs, blocks: vec![end] }))
    }

    /// The newest delivered block that is on the chain: `Some(None)` if none was delivered yet, `None` if the node contradicts
    /// itself.
    async fn base(&self, head: Head) -> Result<Option<Option<EventCursor>>, ChainError> {
        let Some(newest) = self.known.back() else { return Ok(Some(None)) };
        let mut is_replaced = false;
        for cursor in self.known.iter().rev().filter(|cursor| cursor.number <= head.number) {
            is_replaced = true;
            // A block below the head that is not there is a fault of the node, and no reorganisation.
            let Some(header) = self.header(cursor.number).await? else { return Ok(None) };
            if header.hash == cursor.hash {
                return Ok(Some(Some(*cursor)));
            }
        }
        let depth = self.depth;
        if is_replaced {
            Err(ChainError::ReorganisedTooDeep { depth })
        } else {
            Err(ChainError::Behind { head: head.number, delivered: newest.number, depth })
        }
    }

    async fn header(&self, number: u64) -> Result<Option<Header>, ChainError> {
        let block = self.chain.provider().get_block_by_number(BlockNumberOrTag::Number(number)).await;
        Ok(block.map_err(rpc("read a block"))?.map(|block| block.header))
    }

    fn delivered(&mut self, rolled_back_to: Option<EventCursor>, blocks: &[EventCursor]) {
        if let Some(base) = rolled_back_to {
            self.known.retain(|cursor| cursor.number <= base.number);
        }
        self.known.extend(blocks);
        // What is deeper than the reader may take back is forgotten, so that a deeper reorganisation is an error.
        let oldest = self.known.back().map_or(0, |newest| newest.number.saturating_sub(self.depth));
        while self.known.len() > 1 && self.known.front().is_some_and(|cursor| cursor.number < oldest) {
            self.known.pop_front();
        }
    }
}
