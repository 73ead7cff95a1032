//! What is to be done on the chain.

use alloy::{
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    rpc::types::TransactionRequest,
    sol_types::{SolCall, SolValue as _},
};

/// Something to be done on the chain.
#[derive(Clone, Debug)]
pub struct Action {
    /// For people: "opening of the lease", "claim of 12 vouchers".
    pub what: String,
    /// The contract, or `None` to make one.
    pub to: Option<Address>,
    /// Call or creation code.
    pub data: Bytes,
    /// Wei sent along.
    pub value: U256,
}

impl Action {
    /// A call of a function.
    pub fn call<C: SolCall>(what: impl Into<String>, contract: Address, call: &C) -> Self {
        Self { what: what.into(), to: Some(contract), data: call.abi_encode().into(), value: U256::ZERO }
    }

    /// The same, with coins.
    #[must_use]
    pub fn with_value(mut self, wei: U256) -> Self {
        self.value = wei;
        self
    }

    /// What makes two actions of one account the same one: all that they do, or, within a work, what they are called. The
    /// data of a work's action may change from one try to the next, as a deadline does.
    pub(super) fn intent(&self, work: Option<B256>) -> B256 {
        match work {
            Some(work) => keccak256((work, &self.what).abi_encode()),
            None => keccak256((self.to.unwrap_or_default(), self.to.is_none(), &self.data, self.value).abi_encode()),
        }
    }

    pub(super) fn request(&self, from: Address) -> TransactionRequest {
        TransactionRequest {
            from: Some(from),
            to: Some(self.to.map_or(TxKind::Create, TxKind::Call)),
            input: self.data.clone().into(),
            value: Some(self.value),
            ..TransactionRequest::default()
        }
    }
}

/// What an action would cost, and give back.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Units of gas.
    pub gas: u64,
    /// What the function would return.
    pub output: Bytes,
}
