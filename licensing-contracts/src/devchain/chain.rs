//! The chain itself: sending, mining, snapshots and reorganisation. Nothing here knows JSON.

use std::collections::BTreeMap;

use alloy::{
    consensus::{
        Header, Transaction as _, TxEnvelope,
        transaction::{Recovered, SignerRecoverable as _},
    },
    eips::eip2718::Decodable2718 as _,
    primitives::{Address, B256, U256, map::B256Map},
};
use revm::context::{BlockEnv, result::InvalidTransaction};

use super::{
    Config,
    block::{Block, Mined, environment},
    clock::{Randomness, Time},
    error::RpcError,
    execute,
    filters::Filters,
    pool::{Pool, PoolError},
    world::{UndoPosition, View, World},
};

/// How many blocks can be replaced. The `finalized` block is as far below the head, so it is never replaced.
pub(super) const REORG_DEPTH: usize = 64;

/// How far the `safe` block is below the head.
pub(super) const SAFE_DEPTH: u64 = 32;

/// Most blocks that one request mines.
const MOST_BLOCKS: u64 = 200_000;

/// Where a mined transaction is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    pub(super) block: usize,
    pub(super) index: usize,
}

/// What a snapshot must remember; the world is rolled back by its undo log.
#[derive(Debug)]
struct Snapshot {
    height: usize,
    undo: UndoPosition,
    time: Time,
    randomness: Randomness,
    base_fee: u64,
    automine: bool,
    pool: Pool,
}

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) config: Config,
    pub(super) world: World,
    /// From genesis to the head; never empty.
    pub(super) blocks: Vec<Block>,
    numbers: B256Map<usize>,
    locations: B256Map<Location>,
    pub(super) pool: Pool,
    pub(super) filters: Filters,
    snapshots: BTreeMap<u64, Snapshot>,
    last_snapshot: u64,
    pub(super) time: Time,
    pub(super) randomness: Randomness,
    /// In wei for each unit of gas, of the next block.
    pub(super) base_fee: u64,
    pub(super) automine: bool,
}

impl Chain {
    /// A chain that has its genesis block only.
    pub(super) fn new(config: Config, seed: B256) -> Self {
        let mut world = World::default();
        for (address, balance) in &config.funded {
            world.set_balance(*address, *balance);
        }
        let time = Time::new(config.clock, 0);
        let mut randomness = Randomness::new(seed, 0);
        let genesis = BlockEnv {
            number: U256::ZERO,
            timestamp: U256::from(time.now()),
            gas_limit: config.block_gas_limit,
            basefee: config.base_fee,
            prevrandao: Some(randomness.next()),
            ..BlockEnv::default()
        };
        randomness.sealed();
        let genesis = Block::seal(&genesis, None, Vec::new(), world.position());
        Self::assemble(config, world, vec![genesis], time, randomness)
    }

    /// A chain of `blocks`, the last of which is the head of `world`. There must be one.
    pub(super) fn assemble(
        config: Config,
        world: World,
        blocks: Vec<Block>,
        time: Time,
        randomness: Randomness,
    ) -> Self {
        let mut chain = Self {
            base_fee: config.base_fee,
            automine: true,
            config,
            world,
            blocks: Vec::with_capacity(blocks.len()),
            numbers: B256Map::default(),
            locations: B256Map::default(),
            pool: Pool::default(),
            filters: Filters::default(),
            snapshots: BTreeMap::new(),
            last_snapshot: 0,
            time,
            randomness,
        };
        for block in blocks {
            chain.push(block);
        }
        chain.trim();
        chain
    }

    #[expect(clippy::expect_used, reason = "`assemble` gets the genesis block, and nothing removes it")]
    pub(super) fn head(&self) -> &Block {
        self.blocks.last().expect("a chain has its genesis block")
    }

    pub(super) fn height(&self) -> u64 {
        self.head().number()
    }

    pub(super) fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    pub(super) fn block_by_hash(&self, hash: &B256) -> Option<&Block> {
        self.blocks.get(*self.numbers.get(hash)?)
    }

    pub(super) fn location(&self, transaction: &B256) -> Option<Location> {
        self.locations.get(transaction).copied()
    }

    pub(super) fn nonce(&self, address: Address) -> u64 {
        self.world.account(address).nonce
    }

    pub(super) fn view(&self) -> View<'_> {
        View { world: &self.world, blocks: &self.blocks }
    }

    /// What a transaction in the next block sees, but for the block's randomness.
    pub(super) fn simulated_next(&self) -> BlockEnv {
        let prevrandao = self.randomness.simulated(self.head().hash());
        self.environment_after(self.head().header(), self.time.next(self.head().header().timestamp), prevrandao)
    }

    fn environment_after(&self, parent: &Header, timestamp: u64, prevrandao: B256) -> BlockEnv {
        BlockEnv {
            number: U256::from(parent.number.saturating_add(1)),
            timestamp: U256::from(timestamp),
            gas_limit: self.config.block_gas_limit,
            basefee: self.base_fee,
            prevrandao: Some(prevrandao),
            ..environment(parent)
        }
    }

    // Sending

    /// Takes a signed transaction and, unless mining is manual, mines everything that can be mined.
    pub(super) fn send(&mut self, raw: &[u8]) -> Result<B256, RpcError> {
        let transaction = self.decode(raw)?;
        let hash = *transaction.tx_hash();
        if self.locations.contains_key(&hash) {
            return Err(PoolError::AlreadyKnown.into());
        }
        let gas = U256::from(transaction.gas_limit()).saturating_mul(U256::from(transaction.max_fee_per_gas()));
        let cost = gas.saturating_add(transaction.value());
        let balance = self.world.account(transaction.signer()).balance;
        if balance < cost {
            return Err(RpcError::InsufficientFunds { balance, cost });
        }
        let next = self.nonce(transaction.signer());
        self.pool.insert(transaction, next)?;
        if self.automine
            && let Some((_, reason)) = self.mine_waiting().into_iter().find(|(refused, _)| *refused == hash)
        {
            return Err(RpcError::Refused(Box::new(reason)));
        }
        self.filters.transaction(hash);
        Ok(hash)
    }

    /// A transaction with everything checked that does not depend on the state.
    pub(super) fn decode(&self, raw: &[u8]) -> Result<Recovered<TxEnvelope>, RpcError> {
        let transaction = TxEnvelope::decode_2718_exact(raw).map_err(RpcError::Decode)?;
        if transaction.is_eip4844() {
            return Err(RpcError::Unsupported("blob transactions"));
        }
        match transaction.chain_id() {
            None => return Err(RpcError::Unprotected),
            Some(found) if found != self.config.chain_id => {
                return Err(RpcError::WrongChain { found, expected: self.config.chain_id });
            }
            Some(_) => {}
        }
        let transaction = transaction.try_into_recovered().map_err(RpcError::Signature)?;
        execute::validate(self, &transaction).map_err(|reason| RpcError::Refused(Box::new(reason)))?;
        Ok(transaction)
    }

    // Mining

    /// Mines a block for each transaction that can be mined, and returns those that turned out to be invalid.
    pub(super) fn mine_waiting(&mut self) -> Vec<(B256, InvalidTransaction)> {
        let mut refused = Vec::new();
        loop {
            let before = (self.blocks.len(), refused.len());
            refused.extend(self.mine_from_pool(1, false));
            if before == (self.blocks.len(), refused.len()) {
                return refused;
            }
        }
    }

    /// Mines `count` blocks, `interval_s` apart, with as many of the waiting transactions as fit.
    pub(super) fn mine(&mut self, count: u64, interval_s: Option<u64>) -> Result<(), RpcError> {
        if count > MOST_BLOCKS {
            return Err(RpcError::TooManyBlocks { asked: count, most: MOST_BLOCKS });
        }
        for index in 0..count {
            if index > 0
                && let Some(interval) = interval_s
            {
                self.time.set_next(self.head().header().timestamp.saturating_add(interval));
            }
            self.mine_from_pool(usize::MAX, true);
        }
        Ok(())
    }

    /// Mines one block of at most `most` waiting transactions. Those that are invalid leave the pool and are returned.
    fn mine_from_pool(&mut self, most: usize, even_empty: bool) -> Vec<(B256, InvalidTransaction)> {
        let head = self.head().header();
        let environment = self.environment_after(head, self.time.next(head.timestamp), self.randomness.next());
        let (mut mined, mut refused) = (Vec::new(), Vec::new());
        let mut gas_used = 0_u64;
        while mined.len() < most {
            let gas_left = environment.gas_limit.saturating_sub(gas_used);
            let next_nonce = |address| self.world.account(address).nonce;
            let Some(best) = self.pool.best(environment.basefee, gas_left, next_nonce) else { break };
            let hash = *best.tx_hash();
            let Some(transaction) = self.pool.remove(&hash) else { break };
            match self.execute(&environment, transaction, gas_used) {
                Ok(done) => {
                    gas_used = done.receipt.cumulative_gas_used;
                    mined.push(done);
                }
                Err(reason) => refused.push((hash, reason)),
            }
        }
        if even_empty || !mined.is_empty() {
            self.seal(&environment, mined);
        }
        refused
    }

    /// Executes a transaction at the head and keeps what it did.
    fn execute(
        &mut self,
        environment: &BlockEnv,
        transaction: Recovered<TxEnvelope>,
        gas_before: u64,
    ) -> Result<Mined, InvalidTransaction> {
        let (mined, state) = execute::transaction(self, environment, transaction, gas_before)?;
        self.world.commit(state);
        Ok(mined)
    }

    /// Makes a block of what was executed, and tells everybody.
    fn seal(&mut self, environment: &BlockEnv, mined: Vec<Mined>) {
        self.append(environment, mined);
        self.pool_follows();
        // Not `head()`: the block is borrowed while the filters change.
        if let Some(block) = self.blocks.last() {
            self.filters.block(block, false);
        }
        self.trim();
    }

    fn append(&mut self, environment: &BlockEnv, mined: Vec<Mined>) {
        let block = Block::seal(environment, self.blocks.last(), mined, self.world.position());
        self.time.sealed(block.header().timestamp);
        self.randomness.sealed();
        self.push(block);
    }

    fn push(&mut self, block: Block) {
        let number = self.blocks.len();
        self.numbers.insert(block.hash(), number);
        for (index, mined) in block.transactions.iter().enumerate() {
            self.locations.insert(mined.hash(), Location { block: number, index });
        }
        self.blocks.push(block);
    }

    /// Transactions whose nonces are used leave the pool.
    fn pool_follows(&mut self) {
        for sender in self.pool.senders() {
            let next = self.nonce(sender);
            self.pool.remove_stale(sender, next);
        }
    }

    /// Forgets how to undo what neither a reorganisation nor a snapshot can ask for.
    fn trim(&mut self) {
        let oldest = self.blocks.len().saturating_sub(REORG_DEPTH.saturating_add(1));
        let Some(mut position) = self.blocks.get(oldest).map(|block| block.undo) else { return };
        if let Some((_, snapshot)) = self.snapshots.first_key_value() {
            position = position.min(snapshot.undo);
        }
        self.world.trim(position);
    }

    // Snapshots

    pub(super) fn snapshot(&mut self) -> u64 {
        let snapshot = Snapshot {
            height: self.blocks.len(),
            undo: self.world.position(),
            time: self.time,
            randomness: self.randomness,
            base_fee: self.base_fee,
            automine: self.automine,
            pool: self.pool.clone(),
        };
        self.last_snapshot = self.last_snapshot.saturating_add(1);
        self.snapshots.insert(self.last_snapshot, snapshot);
        self.last_snapshot
    }

    /// Goes back to a snapshot, and uses it up with all that were taken later. False when there is none.
    pub(super) fn revert(&mut self, id: u64) -> bool {
        let mut later = self.snapshots.split_off(&id);
        let Some(snapshot) = later.remove(&id) else {
            self.snapshots.append(&mut later);
            return false;
        };
        self.world.roll_back(snapshot.undo);
        let removed = self.pop_to(snapshot.height);
        for block in removed.iter().rev() {
            self.filters.block(block, true);
        }
        self.time = snapshot.time;
        self.randomness.restore(snapshot.randomness);
        self.base_fee = snapshot.base_fee;
        self.automine = snapshot.automine;
        self.pool = snapshot.pool;
        self.trim();
        true
    }

    /// Takes blocks off until `height` are left, and returns them from the lowest up.
    fn pop_to(&mut self, height: usize) -> Vec<Block> {
        let removed = self.blocks.split_off(height.max(1).min(self.blocks.len()));
        for block in &removed {
            self.numbers.remove(&block.hash());
            for mined in &block.transactions {
                self.locations.remove(&mined.hash());
            }
        }
        removed
    }

    // Reorganisation

    /// Replaces the last `depth` blocks by as many others, with the given transactions in the blocks at their offsets.
    /// The transactions of the replaced blocks are lost, as on anvil. On an error nothing has changed.
    pub(super) fn reorganise(
        &mut self,
        depth: usize,
        transactions: Vec<(Recovered<TxEnvelope>, usize)>,
    ) -> Result<(), RpcError> {
        let most = self.deepest_reorganisation();
        if depth > most {
            return Err(RpcError::ReorgDepth { depth, most });
        }
        if let Some((_, offset)) = transactions.iter().find(|(_, offset)| *offset >= depth) {
            return Err(RpcError::ReorgOffset { offset: *offset, depth });
        }
        let kept = self.blocks.len().saturating_sub(depth);
        let replaced = self.pop_to(kept);
        let (undo, time, randomness) = (self.head().undo, self.time, self.randomness);
        let redo = self.world.roll_back(undo);
        let built = self.build_replacements(&replaced, transactions);
        // Replacing blocks uses up nothing that was asked for the next one.
        self.time = time;
        self.randomness.restore(randomness);
        if let Err(error) = built {
            self.world.roll_back(undo);
            self.pop_to(kept);
            self.world.redo(redo);
            for block in replaced {
                self.push(block);
            }
            return Err(error);
        }
        self.snapshots.retain(|_, snapshot| snapshot.height <= kept && snapshot.undo <= undo);
        for block in replaced.iter().rev() {
            self.filters.block(block, true);
        }
        for block in self.blocks.iter().skip(kept) {
            self.filters.block(block, false);
            for mined in &block.transactions {
                self.pool.remove(&mined.hash());
            }
        }
        self.pool_follows();
        self.trim();
        Ok(())
    }

    /// The most blocks that [`Chain::reorganise`] can replace now.
    fn deepest_reorganisation(&self) -> usize {
        let below_head = self.blocks.iter().rev().skip(1).take(REORG_DEPTH);
        below_head.take_while(|block| self.world.reaches(block.undo)).count()
    }

    /// A block for each of the replaced ones, at the same time.
    fn build_replacements(
        &mut self,
        replaced: &[Block],
        transactions: Vec<(Recovered<TxEnvelope>, usize)>,
    ) -> Result<(), RpcError> {
        let mut left = transactions;
        for (offset, old) in replaced.iter().enumerate() {
            let head = self.head().header();
            let environment = self.environment_after(head, old.header().timestamp, self.randomness.drawn());
            let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, at)| *at == offset);
            left = later;
            let (mut mined, mut gas_used) = (Vec::new(), 0);
            for (transaction, _) in now {
                let hash = *transaction.tx_hash();
                let done = self
                    .execute(&environment, transaction, gas_used)
                    .map_err(|source| RpcError::ReorgTransaction { hash, source: Box::new(source) })?;
                gas_used = done.receipt.cumulative_gas_used;
                mined.push(done);
            }
            self.append(&environment, mined);
        }
        Ok(())
    }

    // Idle chains

    /// Seals an empty block when the head is older than the configuration allows and nothing is prepared for the next.
    pub(super) fn keep_fresh(&mut self) {
        let Some(most) = self.config.idle_block_after else { return };
        let age = self.time.now().saturating_sub(self.head().header().timestamp);
        if self.automine && !self.time.is_set() && !self.randomness.is_set() && age >= most.as_secs() {
            self.mine_from_pool(usize::MAX, true);
        }
    }
}

#[cfg(test)]
mod tests;
