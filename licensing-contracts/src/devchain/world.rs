//! Accounts, storage and code at the head of the chain, and the log that takes changes back.
//!
//! Only the head is kept. Every change goes through [`World::apply`], which returns the change that undoes it; the
//! undoing changes are logged in order. Rolling back is applying them in reverse, at a cost in proportion to what
//! changed and not to what exists, and rolling back returns what would redo it.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
};

use alloy::{
    consensus::constants::KECCAK_EMPTY,
    primitives::{
        Address, B256, Bytes, U256,
        map::{AddressMap, B256Map, HashMap},
    },
};
use revm::{
    DatabaseRef,
    bytecode::Bytecode,
    state::{AccountInfo, EvmState},
};

use super::block::Block;

/// Storage of one contract. A slot that holds zero is absent.
pub(super) type Slots = HashMap<U256, U256>;

/// An account without its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// In wei.
    pub(super) balance: U256,
    pub(super) nonce: u64,
    /// Of the code, which [`World::code`] finds.
    pub(super) code_hash: B256,
}

impl Default for Account {
    fn default() -> Self {
        Self { balance: U256::ZERO, nonce: 0, code_hash: KECCAK_EMPTY }
    }
}

/// One change of the world: what a thing becomes.
#[derive(Debug)]
pub(super) enum Change {
    Account { address: Address, account: Option<Account> },
    Slot { address: Address, slot: U256, value: U256 },
    Storage { address: Address, slots: Slots },
    Code { hash: B256, code: Option<Bytecode> },
}

/// A place in the undo log, counted from the start of the chain. Places survive trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UndoPosition(u64);

#[derive(Debug, Default)]
pub(super) struct World {
    accounts: AddressMap<Account>,
    storage: AddressMap<Slots>,
    codes: B256Map<Bytecode>,
    undo: VecDeque<Change>,
    /// How many entries were trimmed from the front of `undo`.
    trimmed: u64,
}

impl World {
    /// The account, with everything zero when it does not exist.
    pub(super) fn account(&self, address: Address) -> Account {
        self.accounts.get(&address).copied().unwrap_or_default()
    }

    pub(super) fn code(&self, address: Address) -> Bytes {
        self.codes.get(&self.account(address).code_hash).map(Bytecode::original_bytes).unwrap_or_default()
    }

    pub(super) fn slot(&self, address: Address, slot: U256) -> U256 {
        self.storage.get(&address).and_then(|slots| slots.get(&slot)).copied().unwrap_or_default()
    }

    /// What a transaction did becomes the state of the head.
    pub(super) fn commit(&mut self, state: EvmState) {
        for (address, touched) in state {
            if !touched.is_touched() {
                continue;
            }
            if touched.is_selfdestructed() || touched.is_created() {
                self.wipe_storage(address);
            }
            if touched.is_selfdestructed() || touched.is_empty() {
                // An account that is touched and empty ceases to exist (EIP-161).
                self.change(Change::Account { address, account: None });
                continue;
            }
            if let Some(code) = &touched.info.code {
                self.add_code(touched.info.code_hash, code);
            }
            let account =
                Account { balance: touched.info.balance, nonce: touched.info.nonce, code_hash: touched.info.code_hash };
            if self.accounts.get(&address) != Some(&account) {
                self.change(Change::Account { address, account: Some(account) });
            }
            for (slot, value) in touched.changed_storage_slots() {
                self.change(Change::Slot { address, slot: *slot, value: value.present_value() });
            }
        }
    }

    pub(super) fn set_balance(&mut self, address: Address, balance: U256) {
        let account = Account { balance, ..self.account(address) };
        self.set_account(address, account);
    }

    pub(super) fn set_nonce(&mut self, address: Address, nonce: u64) {
        let account = Account { nonce, ..self.account(address) };
        self.set_account(address, account);
    }

    pub(super) fn set_slot(&mut self, address: Address, slot: U256, value: U256) {
        self.change(Change::Slot { address, slot, value });
    }

    /// Fails on bytes that claim to be a delegation designator (EIP-7702) and are not.
    pub(super) fn set_code(
        &mut self,
        address: Address,
        code: Bytes,
    ) -> Result<(), revm::bytecode::BytecodeDecodeError> {
        let code = Bytecode::new_raw_checked(code)?;
        let code_hash = code.hash_slow();
        self.add_code(code_hash, &code);
        let account = Account { code_hash, ..self.account(address) };
        self.set_account(address, account);
        Ok(())
    }

    fn set_account(&mut self, address: Address, account: Account) {
        let account = (account != Account::default()).then_some(account);
        self.change(Change::Account { address, account });
    }

    fn add_code(&mut self, hash: B256, code: &Bytecode) {
        if hash != KECCAK_EMPTY && !self.codes.contains_key(&hash) {
            self.change(Change::Code { hash, code: Some(code.clone()) });
        }
    }

    fn wipe_storage(&mut self, address: Address) {
        if self.storage.contains_key(&address) {
            self.change(Change::Storage { address, slots: Slots::default() });
        }
    }

    fn change(&mut self, change: Change) {
        let inverse = self.apply(change);
        self.undo.push_back(inverse);
    }

    /// Makes the change and returns the one that takes it back.
    fn apply(&mut self, change: Change) -> Change {
        match change {
            Change::Account { address, account } => {
                let account = match account {
                    Some(account) => self.accounts.insert(address, account),
                    None => self.accounts.remove(&address),
                };
                Change::Account { address, account }
            }
            Change::Slot { address, slot, value } => {
                let slots = self.storage.entry(address).or_default();
                let before = if value.is_zero() { slots.remove(&slot) } else { slots.insert(slot, value) };
                if slots.is_empty() {
                    self.storage.remove(&address);
                }
                Change::Slot { address, slot, value: before.unwrap_or_default() }
            }
            Change::Storage { address, slots } => {
                let before =
                    if slots.is_empty() { self.storage.remove(&address) } else { self.storage.insert(address, slots) };
                Change::Storage { address, slots: before.unwrap_or_default() }
            }
            Change::Code { hash, code } => {
                let code = match code {
                    Some(code) => self.codes.insert(hash, code),
                    None => self.codes.remove(&hash),
                };
                Change::Code { hash, code }
            }
        }
    }

    /// The place after everything that was changed so far.
    pub(super) fn position(&self) -> UndoPosition {
        // A length in memory is far below 2^64, and so is the sum: it counts changes that this process made.
        UndoPosition(self.trimmed.saturating_add(u64::try_from(self.undo.len()).unwrap_or(u64::MAX)))
    }

    /// Whether the log still reaches back to `position`.
    pub(super) fn reaches(&self, position: UndoPosition) -> bool {
        position.0 >= self.trimmed
    }

    /// Takes back everything after `position`. The returned changes, applied in their order, make it again.
    pub(super) fn roll_back(&mut self, position: UndoPosition) -> Vec<Change> {
        debug_assert!(self.reaches(position));
        let mut redo = Vec::new();
        while self.position() > position
            && let Some(change) = self.undo.pop_back()
        {
            redo.push(self.apply(change));
        }
        redo.reverse();
        redo
    }

    /// Makes changes again that [`World::roll_back`] took back.
    pub(super) fn redo(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.change(change);
        }
    }

    /// Forgets how to go back further than `position`.
    pub(super) fn trim(&mut self, position: UndoPosition) {
        while self.trimmed < position.0 && self.undo.pop_front().is_some() {
            self.trimmed = self.trimmed.saturating_add(1);
        }
    }

    /// A world that was exported earlier. Nothing before it can be undone: only its present position is reached.
    pub(super) fn restore(
        accounts: impl Iterator<Item = (Address, Account, BTreeMap<U256, U256>)>,
        codes: Vec<Bytes>,
    ) -> Result<Self, String> {
        // Positions below this one are of blocks whose undoing is not known any more.
        let mut world = Self { trimmed: 1, ..Self::default() };
        for code in codes {
            let code = Bytecode::new_raw_checked(code).map_err(|error| format!("a contract's code: {error}"))?;
            world.codes.insert(code.hash_slow(), code);
        }
        for (address, account, slots) in accounts {
            if account.code_hash != KECCAK_EMPTY && !world.codes.contains_key(&account.code_hash) {
                return Err(format!("the code of {address} is absent"));
            }
            world.accounts.insert(address, account);
            if !slots.is_empty() {
                world.storage.insert(address, slots.into_iter().collect());
            }
        }
        Ok(world)
    }

    /// The place before everything.
    pub(super) const fn start(&self) -> UndoPosition {
        UndoPosition(0)
    }

    /// Changes that can be taken back.
    #[cfg(test)]
    pub(super) fn undoable(&self) -> usize {
        self.undo.len()
    }

    /// Everything, in the order of addresses and slots.
    pub(super) fn export(&self) -> impl Iterator<Item = (Address, Account, BTreeMap<U256, U256>)> + '_ {
        let sorted: BTreeMap<Address, Account> = self.accounts.iter().map(|(a, b)| (*a, *b)).collect();
        sorted.into_iter().map(|(address, account)| {
            let slots = self.storage.get(&address).into_iter().flatten();
            (address, account, slots.map(|(slot, value)| (*slot, *value)).collect())
        })
    }

    /// Every code that an account may name.
    pub(super) fn export_codes(&self) -> BTreeMap<B256, Bytes> {
        self.codes.iter().map(|(hash, code)| (*hash, code.original_bytes())).collect()
    }
}

/// What a transaction sees: the world at the head, and the hashes of the blocks before.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) world: &'a World,
    pub(super) blocks: &'a [Block],
}

impl DatabaseRef for View<'_> {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.world.accounts.get(&address).map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            // Not the default, which is empty code already loaded.
            code: None,
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.world.codes.get(&hash).cloned().unwrap_or_default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.world.slot(address, slot))
    }

    /// The interpreter asks for the last 256 blocks only.
    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        let block = usize::try_from(number).ok().and_then(|number| self.blocks.get(number));
        Ok(block.map(|block| block.hash()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Address = Address::repeat_byte(1);

    fn contents(world: &World) -> String {
        let accounts: Vec<_> = world.export().collect();
        format!("{accounts:?} {:?}", world.export_codes())
    }

    #[test]
    fn rolling_back_and_redoing_is_exact_whatever_was_changed() {
        let mut world = World::default();
        world.set_balance(WHO, U256::from(7));
        world.set_slot(WHO, U256::from(1), U256::from(2));
        let (before, position) = (contents(&world), world.position());
        world.set_slot(WHO, U256::from(1), U256::ZERO);
        world.set_slot(WHO, U256::from(1), U256::from(3));
        world.set_code(WHO, Bytes::from_static(&[0x60, 0x00])).unwrap();
        world.set_nonce(WHO, 9);
        world.wipe_storage(WHO);
        world.set_slot(WHO, U256::from(5), U256::from(6));
        world.change(Change::Account { address: WHO, account: None });
        let after = contents(&world);
        assert_ne!(before, after);
        let redo = world.roll_back(position);
        assert_eq!(contents(&world), before);
        assert_eq!(world.position(), position);
        world.redo(redo);
        assert_eq!(contents(&world), after);
        world.roll_back(position);
        assert_eq!(contents(&world), before);
    }

    #[test]
    fn trimming_keeps_positions_and_forgets_what_is_older() {
        let mut world = World::default();
        world.set_balance(WHO, U256::from(1));
        let old = world.position();
        world.set_balance(WHO, U256::from(2));
        let kept = world.position();
        world.set_balance(WHO, U256::from(3));
        world.trim(kept);
        assert!(!world.reaches(old));
        assert!(world.reaches(kept));
        world.roll_back(kept);
        assert_eq!(world.account(WHO).balance, U256::from(2));
    }

    #[test]
    fn an_account_set_to_nothing_does_not_exist() {
        let mut world = World::default();
        world.set_balance(WHO, U256::from(1));
        world.set_balance(WHO, U256::ZERO);
        assert_eq!(world.export().count(), 0);
    }
}
