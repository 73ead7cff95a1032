//! Transactions and calls in the EVM. Nothing here changes the chain; what a transaction did is returned.

use alloy::{
    consensus::{Receipt, Transaction as _, TxEnvelope, Typed2718 as _, transaction::Recovered},
    primitives::{Bytes, TxKind, U256},
    rpc::types::TransactionRequest,
};
use revm::{
    Context, ExecuteEvm as _, MainBuilder as _, MainContext as _,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction},
    },
    handler::{Handler as _, MainnetHandler},
    primitives::hardfork::SpecId,
    state::EvmState,
};

use super::{block::Mined, chain::Chain, error::RpcError};

/// The rules in force on Ethereum's main network: Fusaka.
const SPEC: SpecId = SpecId::OSAKA;

/// Most gas that one transaction may have (EIP-7825).
const TRANSACTION_GAS_CAP: u64 = 1 << 24;

/// Most that a simulated transfer inside a call keeps back, and the share of gas that a call cannot pass on.
const CALL_STIPEND: u64 = 2_300;

/// Executes a signed transaction on the head, with `gas_before` used up in its block.
pub(super) fn transaction(
    chain: &Chain,
    environment: &BlockEnv,
    transaction: Recovered<TxEnvelope>,
    gas_before: u64,
) -> Result<(Mined, EvmState), InvalidTransaction> {
    if transaction.gas_limit() > environment.gas_limit.saturating_sub(gas_before) {
        return Err(InvalidTransaction::CallerGasLimitMoreThanBlock);
    }
    let environment_of_transaction = signed(&transaction)?;
    let mut evm = Context::mainnet()
        .with_ref_db(chain.view())
        .with_block(environment.clone())
        .with_cfg(rules(chain))
        .build_mainnet();
    let done = evm.transact(environment_of_transaction).map_err(invalid)?;
    let gas_used = done.result.tx_gas_used();
    let created = done.result.created_address().filter(|_| transaction.is_create());
    let succeeded = done.result.is_success();
    let receipt = Receipt {
        status: succeeded.into(),
        cumulative_gas_used: gas_before.saturating_add(gas_used),
        // The EVM also tells the logs of what was reverted; on the chain they never happened.
        logs: if succeeded { done.result.into_logs() } else { Vec::new() },
    };
    Ok((Mined { transaction, receipt, gas_used, created }, done.state))
}

/// Checks what does not depend on the state: gas limits, fees that fit together, sizes, lists.
pub(super) fn validate(chain: &Chain, transaction: &Recovered<TxEnvelope>) -> Result<(), InvalidTransaction> {
    // A fee below the base fee is no fault: the transaction waits.
    let environment = BlockEnv { basefee: 0, ..chain.simulated_next() };
    let mut evm = Context::mainnet()
        .with_ref_db(chain.view())
        .with_block(environment)
        .with_cfg(rules(chain))
        .with_tx(signed(transaction)?)
        .build_mainnet();
    let handler = MainnetHandler::default();
    handler.validate_env(&mut evm).map_err(invalid)?;
    handler.validate_initial_tx_gas(&mut evm).map_err(invalid)?;
    Ok(())
}

fn rules(chain: &Chain) -> CfgEnv {
    CfgEnv::new_with_spec(SPEC).with_chain_id(chain.config.chain_id)
}

fn signed(transaction: &Recovered<TxEnvelope>) -> Result<TxEnv, InvalidTransaction> {
    let mut builder = TxEnv::builder()
        .tx_type(Some(transaction.ty()))
        .caller(transaction.signer())
        .kind(transaction.kind())
        .data(transaction.input().clone())
        .value(transaction.value())
        .nonce(transaction.nonce())
        .gas_limit(transaction.gas_limit())
        .gas_price(transaction.max_fee_per_gas())
        .gas_priority_fee(transaction.max_priority_fee_per_gas())
        .chain_id(transaction.chain_id());
    if let Some(list) = transaction.access_list() {
        builder = builder.access_list(list.clone());
    }
    if let Some(list) = transaction.authorization_list() {
        builder = builder.authorization_list_signed(list.to_vec());
    }
    builder.build().map_err(|reason| InvalidTransaction::Str(format!("{reason:?}").into()))
}

fn invalid<E: std::fmt::Debug>(error: EVMError<E, InvalidTransaction>) -> InvalidTransaction {
    match error {
        EVMError::Transaction(reason) => reason,
        // The database cannot fail and block and configuration are ours; if it happens, the sender reads what.
        other => InvalidTransaction::Str(format!("{other:?}").into()),
    }
}

/// Calls on the head in `environment`. Returns what the contract returns.
pub(super) fn call(chain: &Chain, environment: &BlockEnv, request: &TransactionRequest) -> Result<Bytes, RpcError> {
    let gas = request.gas.unwrap_or(u64::MAX).min(affordable(chain, request)).min(chain.config.block_gas_limit);
    output(simulate(chain, environment, request, gas)?)
}

/// The least gas, within 1.5 %, with which the transaction succeeds on the head in `environment`.
pub(super) fn estimate(chain: &Chain, environment: &BlockEnv, request: &TransactionRequest) -> Result<u64, RpcError> {
    let cap = chain.config.block_gas_limit.min(TRANSACTION_GAS_CAP);
    let affordable = affordable(chain, request);
    let mut enough = request.gas.unwrap_or(u64::MAX).min(affordable).min(cap);
    let first = match simulate(chain, environment, request, enough) {
        Err(RpcError::InvalidCall(reason))
            if matches!(
                *reason,
                InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
                    | InvalidTransaction::GasFloorMoreThanGasLimit { .. }
            ) =>
        {
            return Err(RpcError::GasAllowance(enough));
        }
        other => other?,
    };
    if matches!(first, ExecutionResult::Halt { .. }) && enough < cap {
        return Err(RpcError::GasAllowance(enough));
    }
    // What was spent before refunds is needed: refunds come at the end.
    let spent = first.gas().total_gas_spent().max(first.tx_gas_used());
    output(first)?;
    let mut too_little = spent.saturating_sub(1);
    // A call passes on at most 63/64 of what is left, so a little more than was spent may be needed; usually enough.
    let guess = spent.saturating_add(CALL_STIPEND).saturating_mul(64).div_ceil(63);
    if guess < enough {
        if simulate(chain, environment, request, guess)?.is_success() { enough = guess } else { too_little = guess }
    }
    while enough.saturating_sub(too_little) > 1 && enough.saturating_sub(too_little) > enough.saturating_mul(3) / 200 {
        let middle = too_little.midpoint(enough);
        // Too little gas can also show as an invalid call: below the cost of its data.
        let succeeds = simulate(chain, environment, request, middle).is_ok_and(|result| result.is_success());
        if succeeds { enough = middle } else { too_little = middle }
    }
    Ok(enough)
}

/// Gas that the sender can pay for at the price that the request names; no limit without a price.
fn affordable(chain: &Chain, request: &TransactionRequest) -> u64 {
    let price = U256::from(request.max_fee_per_gas.or(request.gas_price).unwrap_or_default());
    if price.is_zero() {
        return u64::MAX;
    }
    let balance = chain.world.account(request.from.unwrap_or_default()).balance;
    (balance.saturating_sub(request.value.unwrap_or_default()) / price).saturating_to()
}

fn simulate(
    chain: &Chain,
    environment: &BlockEnv,
    request: &TransactionRequest,
    gas: u64,
) -> Result<ExecutionResult, RpcError> {
    if request.blob_versioned_hashes.is_some() || request.max_fee_per_blob_gas.is_some() {
        return Err(RpcError::Unsupported("blob transactions"));
    }
    let price = request.max_fee_per_gas.or(request.gas_price);
    let mut builder = TxEnv::builder()
        .caller(request.from.unwrap_or_default())
        .kind(request.to.unwrap_or(TxKind::Create))
        .data(request.input.input().cloned().unwrap_or_default())
        .value(request.value.unwrap_or_default())
        .gas_limit(gas)
        .gas_price(price.unwrap_or_default())
        .gas_priority_fee(request.max_priority_fee_per_gas)
        .chain_id(request.chain_id.or(Some(chain.config.chain_id)));
    if let Some(list) = &request.access_list {
        builder = builder.access_list(list.clone());
    }
    if let Some(list) = &request.authorization_list {
        builder = builder.authorization_list_signed(list.clone());
    }
    let transaction = builder
        .build()
        .map_err(|reason| RpcError::InvalidCall(Box::new(InvalidTransaction::Str(format!("{reason:?}").into()))))?;
    let mut rules = rules(chain);
    // A call is no transaction: any account may be its sender, contracts too, with any nonce and as much gas as a block
    // has. The value is checked against the balance all the same.
    rules.tx_gas_limit_cap = Some(u64::MAX);
    rules.disable_nonce_check = true;
    rules.disable_eip3607 = true;
    rules.disable_base_fee = price.is_none();
    let mut evm =
        Context::mainnet().with_ref_db(chain.view()).with_block(environment.clone()).with_cfg(rules).build_mainnet();
    let done = evm.transact(transaction).map_err(|error| RpcError::InvalidCall(Box::new(invalid(error))))?;
    Ok(done.result)
}

fn output(result: ExecutionResult) -> Result<Bytes, RpcError> {
    match result {
        ExecutionResult::Success { output, .. } => Ok(output.into_data()),
        ExecutionResult::Revert { output, .. } => Err(RpcError::Reverted { output }),
        ExecutionResult::Halt { reason, .. } => Err(RpcError::halted(&reason)),
    }
}
