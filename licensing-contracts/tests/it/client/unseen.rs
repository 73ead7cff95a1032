//! Nodes that do not know what is on the chain. Nothing is done twice because of them.

use std::time::Duration;

use alloy::{primitives::U256, providers::Provider as _};
use licensing_contracts::client::{ChainError, Sender, SenderSettings};
use serde_json::{Value, json};

use super::{
    hostile::{Fault, Hostile},
    world::{SENDER, World, connect, journal, quick},
};
use crate::support::{address, signer};

async fn sender(world: &World, node: &Hostile, give_up_ms: u64) -> Sender {
    let settings = SenderSettings { give_up_after: Duration::from_millis(give_up_ms), ..quick() };
    Sender::new(connect(&[node.url()]).await, signer(SENDER), journal(world.journals.path()), settings)
}

/// No receipt, no transaction, and no blocks with transactions: what a node without an index, or one that is behind, says.
fn forgetful(method: &str, parameters: &Value) -> Fault {
    match method {
        "eth_getTransactionReceipt" | "eth_getTransactionByHash" | "eth_getTransactionBySenderAndNonce" => {
            Fault::Result(Value::Null)
        }
        "eth_getBlockByNumber" if parameters[1] == json!(true) => Fault::Result(Value::Null),
        _ => Fault::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_the_node_does_not_know_does_not_mean_that_nothing_happened() {
    let world = World::new().await;
    for (value, without_method) in [(0, false), (1, true)] {
        let node = Hostile::new(world.url.as_str(), move |method, parameters| match method {
            "eth_getTransactionBySenderAndNonce" if without_method => Fault::Error(-32601, "method not found"),
            _ => forgetful(method, parameters),
        })
        .await;
        let mut blind = sender(&world, &node, 200).await;
        for _ in 0..3 {
            let error = blind.send(&world.ping(value)).await.unwrap_err();
            assert!(matches!(error, ChainError::Unseen { .. }) && error.is_retryable(), "{error}");
        }
        drop(blind);
        assert!(node.asked("eth_getTransactionReceipt") > 5);
        // The chain's own blocks show that it is ours: still no reason to think that another took the nonce.
        node.behave(|method, parameters| match method {
            "eth_getBlockByNumber" => Fault::None,
            _ => forgetful(method, parameters),
        });
        let error = sender(&world, &node, 100).await.send(&world.ping(value)).await.unwrap_err();
        assert!(matches!(error, ChainError::Unseen { .. }), "{error}");
        node.behave(|_, _| Fault::None);
        let receipt = sender(&world, &node, 5_000).await.send(&world.ping(value)).await.unwrap();
        assert_eq!(world.receipt(receipt.transaction_hash).await.unwrap(), receipt);
        assert_eq!(world.nonce().await, value + 1);
    }
    assert_eq!(world.pings().await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_transaction_is_found_in_the_blocks_where_no_index_is() {
    let world = World::new().await;
    world.automine(false).await;
    let node = Hostile::new(world.url.as_str(), |method, _| match method {
        "eth_getTransactionBySenderAndNonce" => Fault::Error(-32601, "method not found"),
        _ => Fault::None,
    })
    .await;
    let mut unlucky = sender(&world, &node, 20_000).await;
    let action = world.ping(1);
    let sending = tokio_util::task::TaskTracker::new().spawn(async move { unlucky.send(&action).await });
    world.pooled(1).await;
    let other = crate::support::Transfer {
        max_fee: 900_000_000_000,
        tip: 400_000_000_000,
        ..crate::support::Transfer::new(SENDER, 0, address(3), U256::ONE)
    };
    let by = *world.provider.send_raw_transaction(&other.raw()).await.unwrap().tx_hash();
    crate::support::mine(&world.provider, 3).await;
    let error = sending.await.unwrap().unwrap_err();
    assert!(matches!(error, ChainError::Displaced { by: found, .. } if found == by), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_with_nonces_is_waited_for_and_makes_nothing_happen_twice() {
    let world = World::new().await;
    let node = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
    let mut patient = sender(&world, &node, 20_000).await;
    patient.send(&world.ping(1)).await.unwrap();
    // Ten times it tells the nonce before that.
    let mut left = 10;
    node.behave(move |method, parameters| match method {
        "eth_getTransactionCount" if parameters[1] == "pending" && left > 0 => {
            left -= 1;
            Fault::Result(json!("0x0"))
        }
        _ => Fault::None,
    });
    patient.send(&world.ping(2)).await.unwrap();
    assert_eq!((world.pings().await, world.nonce().await), (vec![1, 2], 2));
    // It never catches up: what is signed with a used number is refused, found out, and given up.
    node.behave(|method, parameters| match method {
        "eth_getTransactionCount" if parameters[1] == "pending" => Fault::Result(json!("0x1")),
        _ => Fault::None,
    });
    let error = patient.send(&world.ping(3)).await.unwrap_err();
    assert!(matches!(error, ChainError::Displaced { nonce: 1, .. }), "{error}");
    node.behave(|_, _| Fault::None);
    patient.send(&world.ping(3)).await.unwrap();
    assert_eq!((world.pings().await, world.nonce().await), (vec![1, 2, 3], 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_sending_is_no_second_transaction() {
    let world = World::new().await;
    for (value, fault) in [(1, Fault::CutAfterwards), (2, Fault::CutInside), (3, Fault::WrongId)] {
        let node = Hostile::new(world.url.as_str(), move |method, _| match method {
            "eth_sendRawTransaction" => fault.clone(),
            _ => Fault::None,
        })
        .await;
        let error = sender(&world, &node, 1_000).await.send(&world.ping(value)).await.unwrap_err();
        assert!(matches!(error, ChainError::Rpc { .. }), "{error}");
        world.sender().await.send(&world.ping(value)).await.unwrap();
    }
    assert_eq!((world.pings().await, world.nonce().await), (vec![1, 2, 3], 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_node_does_not_take_a_transaction_is_told_when_waiting_ends() {
    let world = World::new().await;
    let node = Hostile::new(world.url.as_str(), |method, _| match method {
        "eth_sendRawTransaction" => Fault::Error(-32000, "transaction type not supported"),
        _ => Fault::None,
    })
    .await;
    let error = sender(&world, &node, 100).await.send(&world.ping(1)).await.unwrap_err();
    assert!(matches!(error, ChainError::NotMined { .. }), "{error}");
    assert!(error.to_string().contains("the node says: transaction type not supported"), "{error}");
}
