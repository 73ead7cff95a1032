//! What people do on the chain, one function for each: typed values in, an [`Action`] out, and from its receipt what was made.
//!
//! [`Action`]: crate::client::Action

pub mod audit;
pub mod leases;
pub mod operators;
pub mod payments;
pub mod registry;
pub mod usage;

use alloy::{
    primitives::{Address, U256},
    rpc::types::TransactionReceipt,
    sol,
    sol_types::SolEvent,
};
use protocol::units::Amount;

use crate::client::{Action, ChainClient, ChainError};

sol! {
    /// What every payment token has.
    #[derive(Debug)]
    interface Erc20 {
        function approve(address spender, uint256 amount) external returns (bool);
        function allowance(address owner, address spender) external view returns (uint256);
        function balanceOf(address account) external view returns (uint256);
        function decimals() external view returns (uint8);
        function symbol() external view returns (string);
    }
}

/// The events of a kind that a contract made in a transaction, in order. Others, such as a token that is called on the way, can
/// make events of the same form.
pub fn events<E: SolEvent>(receipt: &TransactionReceipt, contract: Address) -> impl Iterator<Item = E> {
    let logs = receipt.inner.logs().iter().filter(move |log| log.address() == contract);
    logs.filter_map(|log| E::decode_log_data(log.data()).ok())
}

/// The first of [`events`].
pub fn event<E: SolEvent>(receipt: &TransactionReceipt, contract: Address) -> Option<E> {
    events(receipt, contract).next()
}

/// Lets `spender` take `amount` of the account's tokens: nothing to do if it may take as much already, and two steps if it
/// may take less, because some tokens only let an allowance grow from zero.
pub async fn allow(
    chain: &ChainClient,
    token: Address,
    owner: Address,
    spender: Address,
    amount: Amount,
) -> Result<Vec<Action>, ChainError> {
    let amount = U256::from(amount.get());
    let allowance = chain.call(token, &Erc20::allowanceCall { owner, spender }).await?;
    // Exactly what is needed: an allowance that outlives its use is a risk for nothing.
    let steps = if allowance >= amount {
        vec![]
    } else if allowance.is_zero() {
        vec![("approval of the token", amount)]
    } else {
        vec![("approval of the token, back to zero", U256::ZERO), ("approval of the token", amount)]
    };
    let approve = |(what, amount)| Action::call(what, token, &Erc20::approveCall { spender, amount });
    Ok(steps.into_iter().map(approve).collect())
}
