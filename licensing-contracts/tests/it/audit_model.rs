//! The real audit, its court and the leases' bonds beside the model of them, call by call: whatever comes in any order, both
//! accept or both refuse, for the same reason, and show, pay and slash the same afterwards.

use std::{collections::BTreeSet, time::Instant};

use alloy::{
    primitives::{Address, U256},
    sol_types::SolEvent as _,
};
use licensing_contracts::bindings::{AuditServiceManager, LeaseManager};
use protocol::{
    audit::{AuditRules, Offence, Punishment},
    units::{Amount, Seconds},
};

use self::{
    chance::Chance,
    step::{Act, Step},
    world::World,
};
use crate::differential::{Done, Outcomes, address, declared_errors};

mod chance;
mod facts;
mod step;
mod world;

/// At least so many; then on until every call and every error was reached.
const LEAST_RUNS: u64 = 20;
const MOST_RUNS: u64 = 80;
const CALLS: usize = 150;

impl World {
    /// One call on both sides; says in what they differ.
    fn compare(&mut self, step: &Step, all: bool, outcomes: &mut Outcomes) -> Vec<String> {
        self.chain.pass(step.after);
        self.models.book.note(&step.act, &self.domains);
        if let Act::Join { operator, .. } = step.act {
            self.foresee_stake(address(operator));
        }
        let really = self.really(step);
        let mut differences = Vec::new();
        match (self.supposedly(step), &really) {
            (Ok(supposed), Ok(done)) => {
                if let Some(output) = supposed.output.filter(|output| output[..] != done.output[..]) {
                    let output = alloy::hex::encode(output);
                    differences.push(format!("the model returns {output}, the chain {}", done.output));
                }
                let (expected, actual) = (supposed.punishment.map(told), punished(done));
                if actual != expected {
                    differences.push(format!("the model punishes {expected:?}, the chain {actual:?}"));
                }
            }
            (Err((name, _)), Err(refused)) if refused.name == name => {}
            (Err((name, text)), Err(refused)) => {
                differences.push(format!("the model says {name}: {text}; the chain says {refused}"));
            }
            (Ok(_), Err(refused)) => differences.push(format!("only the chain refuses: {refused}")),
            (Err((_, text)), Ok(_)) => differences.push(format!("only the model refuses: {text}")),
        }
        outcomes.note(step.act.name(), &really);
        differences.extend(self.chain.differences(&facts::facts(self, all)));
        differences.extend(facts::differences(self));
        differences
    }
}

/// A punishment as events tell of it: lease, host, number of the offence, what is taken of the bond, who gets which part of
/// it, and the slashed share of the allocation in EigenLayer's unit.
type Told = (u64, Address, u8, u128, [u128; 3], U256);

fn told(punishment: Punishment) -> Told {
    let number = match punishment.offence {
        Offence::Substitution => 1,
        Offence::TokenCount => 2,
        Offence::OutsideService => 3,
        Offence::VariantLeak => 4,
        Offence::Silence => 5,
        Offence::Omission => 6,
        Offence::Equivocation => 7,
        Offence::Misprice => 8,
    };
    let shares = punishment.shares;
    let parts = [shares.payer, shares.creator, shares.reporter].map(Amount::get);
    let share = punishment.slashed.map_or(0, |share| share.get());
    let wad = U256::from(share) * U256::from(100_000_000_000_000_u64);
    (punishment.lease.get(), punishment.host, number, shares.total().get(), parts, wad)
}

fn punished(done: &Done) -> Option<Told> {
    let logs = || done.receipt.inner.logs().iter().map(|log| log.data());
    let host = logs().find_map(|log| AuditServiceManager::HostPunished::decode_log_data(log).ok())?;
    let bond = logs().find_map(|log| LeaseManager::BondSlashed::decode_log_data(log).ok())?;
    let parts = [bond.toPayer, bond.toCreator, bond.toReporter];
    Some((host.leaseId, host.host, host.offence, host.bondSlashed, parts, host.wad))
}

/// Random calls; what differs after one of them, with all of them up to it.
fn run(world: &mut World, seed: u64, outcomes: &mut Outcomes) -> Result<(), String> {
    let mut chance = Chance::new(seed);
    let mut steps = Vec::new();
    for _ in 0..CALLS {
        // Often nothing happens for a while, and sometimes so long that EigenLayer forgets who left.
        let blocks = chance.idle_blocks();
        if blocks != 0 {
            world.chain.mine(blocks);
        }
        // What validators and hosts have at stake is EigenLayer's matter: the models are told it.
        world.ask_eigenlayer();
        let step = chance.step(world);
        steps.push(format!("{step:?}"));
        let all = steps.len() % 10 == 0;
        let differences = world.compare(&step, all, outcomes);
        if !differences.is_empty() {
            return Err(format!("seed {seed}, after\n{}\n{}", steps.join("\n"), differences.join("\n")));
        }
    }
    Ok(())
}

/// Errors of these contracts that no call here can end with.
const OUT_OF_REACH: &[&str] = &[
    // Of constructors.
    "Delays",
    "NotThisCourt",
    "Windows",
    "Zero",
    // Of calls that only one contract may make, or EigenLayer.
    "NotAllocationManager",
    "NotAuthorized",
    "NotCourt",
    "NotRegistry",
    "UnknownOperatorSet",
    // EigenLayer lets no member join again.
    "AlreadyValidator",
    // Of opening, renewing and revoking leases, and of rewards.
    "CachedPriceAbovePrice",
    "HostExcluded",
    "LeaseEnding",
    "NotCreator",
    "NotLater",
    "OperatorsNotAscending",
    "OutsideTerms",
    "OwnershipDisputed",
    "PriceBelowFloor",
    "TermsClosedForLeases",
    "WrongOperatorCount",
    // Points that are none have no type here; forge tests try them.
    "KeyAtInfinity",
    "NotOnCurve",
    "PairingRefused",
    "PrecompileFailed",
    // Of tokens and coins that do as they are told.
    "FailedCall",
    "InsufficientBalance",
    "ReentrancyGuardReentrantCall",
    "SafeCastOverflowedUintDowncast",
    "SafeERC20FailedOperation",
    "TokenTookFee",
    // What was claimed had a cost.
    "CostTooLarge",
];

#[tokio::test]
async fn the_audit_does_what_its_model_does() {
    let start = Instant::now();
    let mut world = World::new().await;
    let (models, now) = (world.models.clone(), world.chain.now());
    let mut outcomes = Outcomes::default();
    let (ready, errors) = (start.elapsed(), reachable_errors());
    for seed in 0..MOST_RUNS {
        run(&mut world, seed, &mut outcomes).unwrap_or_else(|difference| panic!("{difference}"));
        world.chain.go_back(now);
        world.models.clone_from(&models);
        let complete = LEAST.iter().all(|(call, least)| outcomes.done.get(call).is_some_and(|count| count >= least));
        if seed + 1 >= LEAST_RUNS && complete && errors == refusals(&outcomes) {
            break;
        }
    }
    eprintln!("ready after {ready:?}; {} calls in {:?}: {outcomes:?}", outcomes.count(), start.elapsed() - ready);

    // The calls reach all that there is.
    assert_eq!(refusals(&outcomes), errors);
    for (call, least) in LEAST {
        assert!(outcomes.done.get(call).is_some_and(|count| count >= least), "{call}: {outcomes:?}");
    }
    assert_eq!(outcomes.done.len(), LEAST.len(), "{outcomes:?}");
}

/// Every error of these contracts, and of the log of reports, with which a call here can end.
fn reachable_errors() -> BTreeSet<String> {
    let contracts = ["EvidenceCourt", "AuditServiceManager", "LeaseManager"];
    let mut errors: BTreeSet<String> = contracts.into_iter().flat_map(declared_errors).collect();
    errors.retain(|name| !OUT_OF_REACH.contains(&name.as_str()));
    errors.insert("UnknownReport".to_owned());
    errors
}

/// The errors of these contracts with which calls did end. Those of claims are compared elsewhere in full.
fn refusals(outcomes: &Outcomes) -> BTreeSet<String> {
    let of_claims = ["InsufficientDeposit", "LeaseNotClaimable", "MoreThanReported", "NotNewer", "VoucherExpired"];
    outcomes.refused.keys().filter(|name| !of_claims.contains(&name.as_str())).cloned().collect()
}

/// How often each call succeeds at least.
const LEAST: &[(&str, u32)] = &[
    ("accuse", 20),
    ("addBond", 10),
    ("answerInclusion", 10),
    ("challenge", 20),
    ("challengeInclusion", 100),
    ("claimBatch", 10),
    ("close", 3),
    ("commit", 150),
    ("deregisterFromOperatorSets", 10),
    ("openTask", 30),
    ("proveEquivocation", 8),
    ("proveMisprice", 10),
    ("proveOmission", 50),
    ("provePostdating", 5),
    ("proveVerdictConflict", 10),
    ("registerForOperatorSets", 10),
    ("reinstate", 1),
    ("resolve", 50),
    ("resolveInclusion", 50),
    ("settleRoyalty", 10),
    ("submitVerdict", 40),
    ("suspend", 3),
    ("updateStakes", 50),
    ("withdrawBond", 5),
    ("withdrawOwed of the audit", 5),
    ("withdrawOwed of the court", 5),
];

#[tokio::test]
async fn a_model_with_other_rules_is_found_out() {
    let longer = |rules: &mut AuditRules| rules.answer_window = Seconds::new(rules.answer_window.get() + 100);
    let mut world = World::with(longer).await;
    let (models, now) = (world.models.clone(), world.chain.now());
    let difference = (0..LEAST_RUNS).find_map(|seed| {
        let difference = run(&mut world, seed, &mut Outcomes::default()).err();
        world.chain.go_back(now);
        world.models.clone_from(&models);
        difference
    });
    let difference = difference.unwrap();
    assert!(difference.contains("only the model refuses"), "{difference}");
}
