//! Everything that the contracts show, as the models have it.

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::SolValue as _,
};
use licensing_contracts::{
    actions::operators::AuditSet,
    bindings::{AuditServiceManager, EvidenceCourt, LeaseManager, PaymentEscrow},
    eigenlayer::interfaces::AllocationManager,
};
use protocol::{
    audit::{Decision, Fault, LeaseState, OperatorSet, Request, Subject, Task, TaskState},
    messages::Outcome,
};

use super::world::{CREATORS, HOSTS, LEASES, PAYERS, REPORTER, STRANGER, VALIDATORS, World};
use crate::differential::{Fact, address};

/// Everybody who can be paid.
fn accounts() -> Vec<Address> {
    let names = PAYERS.into_iter().chain(HOSTS).chain(CREATORS).chain([STRANGER, REPORTER]);
    names.map(address).collect()
}

/// Of statements those alone that the last call was about, or `all` that any call was about.
pub(super) fn facts(world: &World, all: bool) -> Vec<Fact> {
    let parts = [leases(world), court(world, all), tasks(world), validators(world), money(world)];
    parts.into_iter().flatten().collect()
}

/// What no single answer says. Fails where it is wrong.
pub(super) fn differences(world: &World) -> Vec<String> {
    let (to, audit) = (world.chain.to(), &world.models.audit);
    let mut wrong = Vec::new();
    for (lease, record) in audit.leases() {
        let shown = world.chain.read(to.lease_manager, &LeaseManager::leaseCall { leaseId: lease.get() });
        let state = match record.state {
            LeaseState::Open => 1,
            LeaseState::Suspended => 2,
            LeaseState::Revoked => 3,
        };
        let expected = (record.bond.get(), state, record.ends_at.get());
        let actual = (shown.bond, shown.state, shown.to);
        if actual != expected {
            wrong.push(format!(
                "bond, state and end of lease {lease}: the model has {expected:?}, the chain {actual:?}"
            ));
        }
    }
    for (contract, coins) in [(to.evidence_court, audit.court_coins()), (to.audit_service_manager, audit.audit_coins())]
    {
        let (expected, actual) = (U256::from(coins.held().get()), world.chain.coins(contract));
        if actual != expected {
            wrong.push(format!("coins of {contract}: the model has {expected}, the chain {actual}"));
        }
    }
    wrong
}

fn leases(world: &World) -> Vec<Fact> {
    let (to, audit) = (world.chain.to(), &world.models.audit);
    let cases = audit.leases().map(|(lease, _)| {
        let question = AuditServiceManager::openCasesCall(lease.get());
        let answer = U256::from(audit.open_cases(lease)).abi_encode();
        Fact::new(format!("open cases of lease {lease}"), to.audit_service_manager, &question, answer)
    });
    assert_eq!(audit.leases().count() as u64, LEASES);
    let hosts = HOSTS.map(|name| (name, OperatorSet::Hosts, AuditSet::Hosts));
    let validators = VALIDATORS.map(|(name, _)| (name, OperatorSet::Validators, AuditSet::Validators));
    let allocations = hosts.into_iter().chain(validators).map(|(name, set, on_chain)| {
        let question = AllocationManager::getAllocationCall {
            operator: address(name),
            operatorSet: on_chain.of(to),
            strategy: to.eigenlayer.strategies[0],
        };
        let answer = (audit.allocation(address(name), set), U256::ZERO, 0_u32).abi_encode_params();
        Fact::new(format!("allocation of {name}"), to.eigenlayer.allocation_manager, &question, answer)
    });
    cases.chain(allocations).collect()
}

fn court(world: &World, all: bool) -> Vec<Fact> {
    let (court, audit) = (world.chain.to().evidence_court, &world.models.audit);
    let mut facts = Vec::new();
    let book = &world.models.book;
    for (digest, request) in if all { &book.held_against } else { &book.lately } {
        let digest = *digest;
        let challenge = audit.inclusion_challenge(digest);
        let answer = challenge.map(|asked| {
            let (lease, epoch, opened_at) = (asked.lease.get(), asked.epoch.get(), asked.opened_at.get());
            (lease, epoch, opened_at, asked.challenger, asked.open, asked.royalty.get(), asked.leaf.hash())
        });
        let question = EvidenceCourt::inclusionChallengeCall { statementDigest: digest.word() };
        let answer = answer.unwrap_or_default().abi_encode_params();
        facts.push(Fact::new(format!("question for {digest}"), court, &question, answer));
        let faults = [Fault::Omission(digest), Fault::Misprice(digest), Fault::Equivocation(*request)];
        for fault in faults {
            let question = EvidenceCourt::punishedCall { offence: name_of(&fault) };
            let answer = audit.is_punished(&fault).abi_encode();
            facts.push(Fact::new(format!("whether {fault:?} was punished"), court, &question, answer));
        }
    }
    facts
}

/// The name of what is punished, as `Evidence.sol` has it.
fn name_of(fault: &Fault) -> B256 {
    keccak256(match fault {
        Fault::Omission(digest) => ("omission", digest.word()).abi_encode_params(),
        Fault::Misprice(digest) => ("misprice", digest.word()).abi_encode_params(),
        Fault::Equivocation(request) => named("equivocation", request),
        Fault::Bill(request) => named("request", request),
    })
}

fn named(kind: &str, request: &Request) -> Vec<u8> {
    let Request { lease, channel, lane, sequence } = request;
    (kind, lease.get(), channel.word(), lane.get(), *sequence).abi_encode_params()
}

fn tasks(world: &World) -> Vec<Fact> {
    let (audit, models) = (world.chain.to().audit_service_manager, &world.models);
    let bond = models.audit.rules().task_bond.get();
    let tasks = models.audit.tasks().map(|(number, task)| {
        let question = AuditServiceManager::taskCall { taskId: number.get() };
        Fact::new(format!("task {number}"), audit, &question, encode_task(task, bond))
    });
    let count = U256::from(models.audit.tasks().count()).abi_encode();
    let count = Fact::new("number of tasks", audit, &AuditServiceManager::tasksCall {}, count);
    tasks.chain([count]).collect()
}

fn encode_task(task: &Task, bond: u128) -> Vec<u8> {
    let (lease, model, bill) = match task.subject {
        Subject::Lease { lease, bill } => (lease.get(), U256::ZERO, bill),
        Subject::Ownership { model } => (0, U256::from_be_bytes(*model.as_bytes()), None),
    };
    let outcome = |outcome| if outcome == Outcome::Guilty { 1_u8 } else { 2 };
    let (state, outcome) = match task.state {
        TaskState::Open => (1_u8, 0),
        TaskState::Decided(found) => (2, outcome(found)),
        TaskState::Closed(Decision::Verdict(found)) => (3, outcome(found)),
        TaskState::Closed(Decision::Void) => (3, 3),
    };
    let bill = bill.map(|bill| (name_of(&Fault::Bill(bill.request)), bill.payer, bill.refund.get()));
    let what = (U256::from(lease), U256::from(task.kind.code()), U256::from(state), U256::from(outcome));
    let who = (U256::from(task.deadline.get()), task.opener, model, task.accused, bond, task.evidence_root);
    [what.abi_encode_params(), who.abi_encode_params(), bill.unwrap_or_default().abi_encode_params()].concat()
}

fn validators(world: &World) -> Vec<Fact> {
    let (contract, audit) = (world.chain.to().audit_service_manager, &world.models.audit);
    let count = U256::from(audit.validators().len()).abi_encode();
    let weight = U256::from(audit.total_weight().get()).abi_encode();
    let mut facts = vec![
        Fact::new("number of validators", contract, &AuditServiceManager::validatorsCall {}, count),
        Fact::new("weight of all validators", contract, &AuditServiceManager::totalWeightCall {}, weight),
    ];
    for (name, _) in VALIDATORS {
        let operator = address(name);
        let number = audit.number(operator).unwrap_or_default();
        let active = audit.validators().iter().find(|one| one.operator == operator);
        let weight = active.map_or(0, |one| one.weight.get());
        let [x, y] = audit.validator_key(operator).map_or([U256::ZERO; 2], |key| key.g1.to_words());
        let answer = (x, y, weight, number).abi_encode_params();
        let question = AuditServiceManager::validatorCall { operator };
        facts.push(Fact::new(format!("validator {name}"), contract, &question, answer));
        if number != 0 {
            let question = AuditServiceManager::operatorAtCall { number };
            facts.push(Fact::new(format!("number of {name}"), contract, &question, operator.abi_encode()));
        }
    }
    facts
}

fn money(world: &World) -> Vec<Fact> {
    let (to, models) = (world.chain.to(), &world.models);
    let mut facts = Vec::new();
    for account in accounts().into_iter().chain([to.audit_service_manager]) {
        let balance = U256::from(models.escrow.balance(world.token, account).get()).abi_encode();
        let question = PaymentEscrow::balanceCall { token: world.token, account };
        facts.push(Fact::new(format!("balance of {account}"), to.payment_escrow, &question, balance));
        let owed = U256::from(models.audit.court_coins().owed(account).get()).abi_encode();
        let question = EvidenceCourt::owedCall { account };
        facts.push(Fact::new(format!("what the court owes {account}"), to.evidence_court, &question, owed));
        let owed = U256::from(models.audit.audit_coins().owed(account).get()).abi_encode();
        let question = AuditServiceManager::owedCall { account };
        facts.push(Fact::new(format!("what the audit owes {account}"), to.audit_service_manager, &question, owed));
    }
    for (channel, lane, state) in models.escrow.lanes() {
        let counts = state.counts;
        let tokens = (counts.prompt().get(), counts.cached().get(), counts.completion().get());
        let answer = (state.lease.get(), counts.requests(), tokens.0, tokens.1, tokens.2).abi_encode_params();
        let question = PaymentEscrow::laneCall { id: channel.word(), number: lane.get() };
        facts.push(Fact::new(format!("lane {lane} of {channel}"), to.payment_escrow, &question, answer));
    }
    facts
}
