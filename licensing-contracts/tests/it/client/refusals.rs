//! What a contract says when it refuses, as people read it.

use alloy::{
    dyn_abi::{DynSolType, DynSolValue, Specifier as _},
    json_abi::{Error, JsonAbi},
    primitives::{Address, B256, Bytes, U256},
    sol_types::SolError as _,
};
use licensing_contracts::{
    bindings::{ARTIFACTS, LeaseManager, ModelRegistry, PaymentEscrow},
    client::{ChainError, Revert},
    eigenlayer::{
        core::Contract,
        interfaces::{AllocationManager, DelegationManager, RewardsCoordinator, StrategyManager},
    },
};
use serde_json::Value;

use super::{
    hostile::{Fault, Hostile},
    world::{World, connect},
};
use crate::{eigenlayer::core, support::Probe};

/// Some value of a type.
fn some(ty: &DynSolType) -> DynSolValue {
    match ty {
        DynSolType::Address => DynSolValue::Address(Address::repeat_byte(0xab)),
        DynSolType::Uint(bits) => DynSolValue::Uint(U256::from(7), *bits),
        DynSolType::FixedBytes(size) => DynSolValue::FixedBytes(B256::repeat_byte(0xcd), *size),
        DynSolType::String => DynSolValue::String("text".to_owned()),
        DynSolType::Tuple(types) => DynSolValue::Tuple(types.iter().map(some).collect()),
        other => panic!("no error has an argument of type {other}"),
    }
}

/// Every error of every artifact, encoded with some arguments.
fn all() -> Vec<(Error, Bytes)> {
    let mut all = Vec::new();
    for (_, artifact) in ARTIFACTS {
        let artifact: Value = serde_json::from_str(artifact).unwrap();
        let abi: JsonAbi = serde_json::from_value(artifact["abi"].clone()).unwrap();
        for error in abi.errors() {
            let values = error.inputs.iter().map(|input| some(&input.resolve().unwrap())).collect();
            let data = [error.selector().as_slice(), &DynSolValue::Tuple(values).abi_encode_params()].concat();
            all.push((error.clone(), data.into()));
        }
    }
    all
}

#[test]
fn every_error_of_the_contracts_is_decoded_with_its_values() {
    let all = all();
    assert!(all.len() > 150, "{}", all.len());
    for (error, data) in all {
        let revert = Revert::decode(data.clone());
        assert_eq!(revert.name, error.name);
        // Two contracts may name the arguments of one error differently.
        assert_eq!(revert.arguments.len(), error.inputs.len(), "{}", error.name);
        let text = revert.to_string();
        assert!(text.starts_with(&error.name), "{text}");
        for (name, value) in &revert.arguments {
            assert!(!name.is_empty() && text.contains(&format!("{name} {value}")), "{text}");
        }
        if let Some(advice) = revert.advice() {
            assert!(text.ends_with(advice) && advice.len() > 10, "{text}");
        }
    }
}

#[test]
fn a_person_can_read_it() {
    let model = U256::from_be_bytes([0x5a; 32]);
    let word = B256::repeat_byte(0x5a).to_string();
    for (data, start) in [
        (ModelRegistry::ManifestTaken { by: model }.abi_encode(), format!("ManifestTaken (by {word}): these weights")),
        (
            ModelRegistry::UnknownModel { modelId: model }.abi_encode(),
            format!("UnknownModel (modelId {word}): no such"),
        ),
        (
            LeaseManager::HostExcluded { modelId: model, host: Address::ZERO }.abi_encode(),
            format!("HostExcluded (modelId {word}, host 0x0000000000000000000000000000000000000000): "),
        ),
        (
            PaymentEscrow::WithdrawalTooEarly { withdrawableAt: 1_795_541_470 }.abi_encode(),
            "WithdrawalTooEarly (withdrawableAt 2026-11-24 17:31:10 UTC): ".to_owned(),
        ),
        (PaymentEscrow::NothingAnnounced {}.abi_encode(), "NothingAnnounced: announce".to_owned()),
    ] {
        let text = Revert::decode(data.into()).to_string();
        assert!(text.starts_with(&start), "{text}");
    }
}

#[test]
fn errors_of_the_eigenlayer_core_have_names_and_advice() {
    for (data, name) in [
        (AllocationManager::UninitializedAllocationDelay::SELECTOR, "UninitializedAllocationDelay"),
        (AllocationManager::SameMagnitude::SELECTOR, "SameMagnitude"),
        (DelegationManager::ActivelyDelegated::SELECTOR, "ActivelyDelegated"),
        (StrategyManager::StrategyNotWhitelisted::SELECTOR, "StrategyNotWhitelisted"),
    ] {
        let revert = Revert::decode(data.into());
        assert_eq!(revert.name, name);
        assert!(revert.advice().is_some(), "{name}");
    }
    // The names are of errors that the released contracts have.
    let mut missing = Vec::new();
    for (contract, selectors) in [
        (Contract::AllocationManager, AllocationManager::AllocationManagerErrors::SELECTORS),
        (Contract::DelegationManager, DelegationManager::DelegationManagerErrors::SELECTORS),
        (Contract::StrategyManager, StrategyManager::StrategyManagerErrors::SELECTORS),
        (Contract::RewardsCoordinator, RewardsCoordinator::RewardsCoordinatorErrors::SELECTORS),
    ] {
        let code = core().creation(contract);
        missing.extend(selectors.iter().filter(|selector| !holds(code, **selector)).map(|selector| {
            format!("{} of {}", Revert::decode(Bytes::copy_from_slice(selector)).name, contract.name())
        }));
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whether code can revert with an error. The compiler writes its selector without the zero bits at the end, and shifts.
fn holds(code: &[u8], selector: [u8; 4]) -> bool {
    let selector = u32::from_be_bytes(selector);
    let shortened = (selector >> selector.trailing_zeros()).to_be_bytes();
    let constant = &shortened[shortened.iter().take_while(|byte| **byte == 0).count()..];
    code.windows(constant.len()).any(|window| window == constant)
}

#[test]
fn what_nobody_knows_is_shown_as_it_is() {
    for (data, text) in [
        (Bytes::new(), "the contract gave no reason"),
        (Bytes::from_static(&[1, 2, 3]), "a reason that is not one of Hallmark's (0x010203)"),
        (Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef, 1]), "a reason that is not one of Hallmark's (0xdeadbeef01)"),
    ] {
        assert_eq!(Revert::decode(data).to_string(), text);
    }
    // A known selector with arguments that are cut off is not the known error.
    let cut = &PaymentEscrow::NotDue { dueAt: 5 }.abi_encode()[..20];
    assert!(Revert::decode(Bytes::copy_from_slice(cut)).name.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn reverts_are_told_from_failures_of_the_node_whatever_its_dialect() {
    let world = World::new().await;
    let mut sender = world.sender().await;
    let fails = |what: &str, call: Vec<u8>| licensing_contracts::client::Action {
        what: what.to_owned(),
        to: Some(world.probe),
        data: call.into(),
        value: U256::ZERO,
    };
    use alloy::sol_types::SolCall as _;
    let error = sender.send(&fails("step", Probe::failWithTextCall {}.abi_encode())).await.unwrap_err();
    assert!(
        error.to_string().contains("Error (reason \"as asked\")") || error.to_string().contains("as asked"),
        "{error}"
    );
    let error = sender.send(&fails("step", Probe::failInsideCall {}.abi_encode())).await.unwrap_err();
    assert!(error.to_string().contains("Panic (code "), "{error}");
    let error = sender.send(&fails("step", Probe::failSilentlyCall {}.abi_encode())).await.unwrap_err();
    assert!(error.to_string().contains("step would be refused: the contract gave no reason"), "{error}");
    assert_eq!(world.nonce().await, 0, "a refusal costs nothing");

    for (code, message, is_revert) in [
        (3, "execution reverted", true),
        (-32000, "execution reverted", true),
        (-32603, "VM Exception while processing transaction: revert", true),
        (-32000, "header not available", false),
        (-32603, "internal error", false),
    ] {
        let node = Hostile::new(world.url.as_str(), move |method, _| match method {
            "eth_call" => Fault::Error(code, message),
            _ => Fault::None,
        })
        .await;
        let client = connect(&[node.url()]).await;
        let error = client.call(world.probe, &Probe::lastCall {}).await.unwrap_err();
        assert_eq!(matches!(error, ChainError::Reverted { .. }), is_revert, "{message}: {error}");
        assert_eq!(error.is_retryable(), !is_revert, "{message}");
    }
}
