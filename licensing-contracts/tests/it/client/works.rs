//! Several transactions that belong together, and what is left of them when a process ends.

use std::time::Duration;

use alloy::primitives::{B256, U256};
use licensing_contracts::client::{Action, ChainError, SenderSettings};

use super::world::{World, quick};
use crate::support::{Probe, mine};

const WORK: B256 = B256::repeat_byte(0xaa);
const OTHER: B256 = B256::repeat_byte(0xbb);

fn hasty() -> SenderSettings {
    SenderSettings { give_up_after: Duration::from_millis(10), ..quick() }
}

/// The same step with other data, as when a deadline is computed again.
fn step(world: &World, what: &str, value: u64) -> Action {
    Action::call(what, world.probe, &Probe::pingCall { value: U256::from(value) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_is_started_again_does_each_step_once_whatever_its_data() {
    let world = World::new().await;
    let mut sender = world.sender().await;
    let first = sender.send_in(WORK, &step(&world, "approve", 1)).await.unwrap();
    drop(sender);
    let mut sender = world.sender().await;
    assert!(sender.is_under_way(WORK, &step(&world, "approve", 50)));
    assert!(!sender.is_under_way(WORK, &step(&world, "deposit", 2)));
    assert!(!sender.is_under_way(OTHER, &step(&world, "approve", 1)));
    assert_eq!(sender.send_in(WORK, &step(&world, "approve", 50)).await.unwrap(), first);
    sender.send_in(WORK, &step(&world, "deposit", 2)).await.unwrap();
    sender.finish(WORK).unwrap();
    assert_eq!(world.pings().await, [1, 2]);
    drop(sender);
    // Finished: the same again is wanted again.
    let mut sender = world.sender().await;
    sender.send_in(WORK, &step(&world, "approve", 3)).await.unwrap();
    assert_eq!(world.pings().await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_refused_is_tried_again() {
    let world = World::new().await;
    let refused = Action::call("step", world.probe, &Probe::failCall { asked: U256::from(4) });
    let mut sender = world.sender().await;
    let error = sender.send_in(WORK, &refused).await.unwrap_err();
    assert!(matches!(error, ChainError::Reverted { .. }), "{error}");
    sender.send_in(WORK, &step(&world, "step", 1)).await.unwrap();
    assert_eq!(world.pings().await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_work_left_behind_is_told_once() {
    let world = World::new().await;
    world.automine(false).await;
    for (work, what) in [(WORK, "deposit"), (OTHER, "lease open")] {
        let error = world.sender_with(hasty()).await.send_in(work, &step(&world, what, 1)).await.unwrap_err();
        // The second waits for the first one's nonce.
        assert!(matches!(error, ChainError::NotMined { ref what, .. } if what == "deposit"), "{error}");
    }
    world.automine(true).await;
    mine(&world.provider, 1).await;
    let mut sender = world.sender().await;
    let left = sender.settle_others(OTHER).await.unwrap();
    assert_eq!(left.iter().map(|left| left.what.as_str()).collect::<Vec<_>>(), ["deposit"]);
    assert!(left[0].outcome.as_ref().unwrap().status());
    assert!(sender.settle_others(OTHER).await.unwrap().is_empty());
    sender.send_in(OTHER, &step(&world, "lease open", 2)).await.unwrap();
    // The one that goes on is not told, and not closed.
    drop(sender);
    let mut sender = world.sender().await;
    assert!(sender.settle_others(OTHER).await.unwrap().is_empty());
    assert!(sender.is_under_way(OTHER, &step(&world, "lease open", 2)));
    let left = sender.settle_others(WORK).await.unwrap();
    assert_eq!(left[0].what, "lease open");
    assert_eq!(world.pings().await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_is_not_sent_again_because_something_else_came_first() {
    let world = World::new().await;
    world.automine(false).await;
    // A process dies while its deposit is on its way…
    world.sender_with(hasty()).await.send(&world.ping(2)).await.unwrap_err();
    world.automine(true).await;
    mine(&world.provider, 1).await;
    // …and is started again; the approval before it was used up and is needed once more.
    let mut sender = world.sender().await;
    sender.send(&world.ping(1)).await.unwrap();
    let receipt = sender.send(&world.ping(2)).await.unwrap();
    assert_eq!(receipt.block_number, Some(2));
    assert_eq!(world.pings().await, [2, 1]);
    sender.send(&world.ping(2)).await.unwrap();
    assert_eq!(world.pings().await, [2, 1, 2], "a third one is wanted on purpose");
}
