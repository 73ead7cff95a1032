//! The real escrow and the model of it, call by call: whatever comes in any order, both accept or both refuse, for the same
//! reason, and show the same afterwards.

use std::{collections::BTreeSet, time::Instant};

use alloy::{hex, sol_types::SolEvent as _};
use licensing_contracts::bindings::PaymentEscrow;
use protocol::{escrow::Escrow, units::Seconds};

use self::{
    chance::Chance,
    facts::Known,
    step::{Act, Step},
    world::{CLAIM_INTERVAL, World},
};
use crate::differential::{Outcomes, declared_errors};

mod chance;
mod facts;
mod step;
mod world;

const RUNS: u64 = 24;
const CALLS: usize = 180;

impl World {
    /// One call on both sides; says in what they differ.
    fn compare(&mut self, step: &Step, known: &mut Known, outcomes: &mut Outcomes) -> Vec<String> {
        self.chain.pass(step.after);
        known.note(step, self);
        let really = self.really(step);
        let mut differences = Vec::new();
        if let Act::Nonsense { .. } = step.act {
            if really.is_ok() {
                differences.push("the contract accepts what is no claim".to_owned());
            }
        } else {
            match (self.supposedly(step), &really) {
                (Ok((output, claimed)), Ok(done)) => {
                    let told = done.receipt.inner.logs().iter().filter(|log| {
                        log.address() == self.chain.to().payment_escrow
                            && log.topic0() == Some(&PaymentEscrow::Claimed::SIGNATURE_HASH)
                    });
                    if done.output.as_ref() != output {
                        differences.push(format!(
                            "the model returns {}, the chain {}",
                            hex::encode(output),
                            done.output
                        ));
                    }
                    if !told.map(|log| &log.inner.data).eq(&claimed) {
                        differences.push(format!("the model tells of other claims than the chain: {claimed:?}"));
                    }
                }
                (Err(expected), Err(refused)) if refused.name == expected.name() => {}
                (Err(expected), Err(refused)) => {
                    differences
                        .push(format!("the model says {}: {expected}; the chain says {refused}", expected.name()));
                }
                (Ok(_), Err(refused)) => differences.push(format!("only the chain refuses: {refused}")),
                (Err(expected), Ok(_)) => differences.push(format!("only the model refuses: {expected}")),
            }
        }
        outcomes.note(step.act.name(), &really);
        differences.extend(self.chain.differences(&known.facts(self)));
        differences
    }
}

/// Random calls; what differs after one of them, with all of them up to it.
fn run(world: &mut World, seed: u64, outcomes: &mut Outcomes) -> Result<(), String> {
    let (mut chance, mut known) = (Chance::new(seed), Known::default());
    let mut steps = Vec::new();
    for _ in 0..CALLS {
        let step = chance.step(world);
        steps.push(format!("{step:?}"));
        let differences = world.compare(&step, &mut known, outcomes);
        if !differences.is_empty() {
            return Err(format!("seed {seed}, after\n{}\n{}", steps.join("\n"), differences.join("\n")));
        }
    }
    Ok(())
}

/// Errors of the escrow that no call here can end with.
const OUT_OF_REACH: [&str; 6] = [
    // Of the constructor.
    "Delays",
    // Messages of the model carry one statement or none.
    "OneStatement",
    // These tokens move what they are told to; hostile ones have tests of their own in Solidity.
    "SafeERC20FailedOperation",
    "TokenTookFee",
    "ReentrancyGuardReentrantCall",
    // A sum of more than 2^128 units.
    "SafeCastOverflowedUintDowncast",
];

#[tokio::test]
async fn the_escrow_does_what_its_model_does() {
    let start = Instant::now();
    let mut world = World::new().await;
    let (others, escrow, now) = (world.others.clone(), world.escrow.clone(), world.chain.now());
    let mut outcomes = Outcomes::default();
    let ready = start.elapsed();
    for seed in 0..RUNS {
        run(&mut world, seed, &mut outcomes).unwrap_or_else(|difference| panic!("{difference}"));
        world.chain.go_back(now);
        (world.others, world.escrow) = (others.clone(), escrow.clone());
    }
    eprintln!("ready after {ready:?}; {} calls in {:?}: {outcomes:?}", outcomes.count(), start.elapsed() - ready);

    // The calls reach all that there is.
    let mut expected = declared_errors("PaymentEscrow");
    expected.retain(|name| !OUT_OF_REACH.contains(&name.as_str()));
    expected.extend(["Panic", "UnknownLease"].map(str::to_owned));
    let reached: BTreeSet<String> = outcomes.refused.keys().cloned().collect();
    assert_eq!(reached, expected);
    let done = [
        "deposit",
        "collectDeposit",
        "initiateWithdraw",
        "cancelWithdraw",
        "withdraw",
        "release",
        "registerGrant",
        "revokeGrant",
        "claimBatch",
        "settleRoyalty",
        "enforceRoyalty",
        "credit",
        "payOut",
        "report",
        "close",
        "addBond",
        "sell",
    ];
    for name in done {
        assert!(outcomes.done.get(name).is_some_and(|count| *count >= 10), "{name}: {outcomes:?}");
    }
    assert_eq!(outcomes.done.len(), done.len());
    assert!(outcomes.done["claimBatch"] >= 150, "{outcomes:?}");
}

#[tokio::test]
async fn a_model_that_is_wrong_by_a_second_is_found_out() {
    let mut world = World::new().await;
    let audit = world.chain.to().audit_service_manager;
    world.escrow = Escrow::new(world.domain, world.statements, audit, Seconds::new(CLAIM_INTERVAL + 1));
    let difference = run(&mut world, 0, &mut Outcomes::default()).unwrap_err();
    assert!(difference.starts_with("seed 0, after\nStep"), "{difference}");
}
