//! The model of the audit: what becomes of cheats and of honest hosts that are accused, every refusal, and what holds after any
//! calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use alloy_primitives::keccak256;
use protocol::{
    Address, B256,
    audit::{
        Absence, Accusation, Audit, AuditDomains, AuditError, AuditRules, AuditedLease, Bill, BondShares, Closure,
        Compensation, Conflict, Decision, Fault, LeaseState, NonSigner, Offence, OperatorSet, QUORUM, QuorumSignature,
        Request, StatementEvidence, Subject, Surroundings, TaskState, UsageReport,
    },
    bls::{BlsSignature, PublicKey, SecretKey},
    counts::{LaneStep, RequestUsage, UsageCounts, UsageTotals},
    escrow::{Call, LaneState},
    ids::{ChainId, ChannelId, Epoch, Lane, LeaseId, ModelId, StatementDigest, TaskId},
    merkle_sum::{AbsenceProof, Leaf, MerkleSumTree},
    messages::{Channel, Domain, FinishReason, Message as _, Outcome, Statement, TaskKind, Verdict, wire},
    money::Shares,
    units::{Amount, Seconds, StakeWeight, UnixMilliseconds, UnixSeconds},
};

use crate::escrow::{address, bps, key, prices};

mod properties;
mod refusals;
mod stories;

const EPOCH: u64 = 60;
const GRACE: u64 = 30;
const ANSWER: u64 = 100;
const VERDICT: u64 = 300;
const RESOLVE: u64 = 50;
const CHALLENGE_BOND: Amount = Amount::new(5);
const TASK_BOND: Amount = Amount::new(50);
const BOND: u128 = 10_000;
const LEASE: LeaseId = LeaseId::new(1);
const MODEL: ModelId = ModelId::from_bytes([1; 32]);
const WHOLE: u64 = 1_000_000_000_000_000_000;
const VALIDATORS: [&str; 4] = ["first", "second", "third", "fourth"];

/// The first second of the third epoch.
const START: u64 = 3 * EPOCH;
/// From here on statements of the third epoch can be demanded.
const CHALLENGEABLE: u64 = START + EPOCH + GRACE;

/// What the audit is told.
#[derive(Clone, Debug, Default)]
struct World {
    reports: Vec<UsageReport>,
    lanes: BTreeMap<(ChannelId, Lane), LaneState>,
    stakes: BTreeMap<(Address, OperatorSet), StakeWeight>,
    gone: BTreeSet<Address>,
    settled: UsageTotals,
    debt: Amount,
}

impl Surroundings for World {
    fn reports(&self, lease: LeaseId) -> &[UsageReport] {
        if lease == LEASE { &self.reports } else { &[] }
    }

    fn lane(&self, channel: ChannelId, lane: Lane) -> Option<LaneState> {
        self.lanes.get(&(channel, lane)).copied()
    }

    fn settled(&self, _: LeaseId) -> UsageTotals {
        self.settled
    }

    fn royalty_debt(&self, _: LeaseId) -> Amount {
        self.debt
    }

    fn stake(&self, operator: Address, set: OperatorSet) -> StakeWeight {
        self.stakes.get(&(operator, set)).copied().unwrap_or_default()
    }

    fn is_member(&self, operator: Address, _: OperatorSet) -> bool {
        !self.gone.contains(&operator)
    }

    fn is_slashable(&self, operator: Address, _: OperatorSet) -> bool {
        !self.gone.contains(&operator)
    }
}

impl World {
    /// Commits to statements of an epoch, and gives the tree.
    fn report(&mut self, epoch: u64, committed_at: u64, statements: &[Statement]) -> MerkleSumTree {
        let leaf = |made: &Statement| Leaf::new(digest(made), made.step.usage(), made.charge);
        let tree = MerkleSumTree::new(statements.iter().map(leaf).collect()).unwrap();
        let before = self.reports.last().map_or(UsageTotals::ZERO, |last| last.cumulative);
        let cumulative = before.checked_add(tree.commitment().totals).unwrap();
        let (root, committed_at) = (tree.commitment().root, UnixSeconds::new(committed_at));
        self.reports.push(UsageReport { root, epoch: Epoch::new(epoch), committed_at, cumulative });
        tree
    }
}

fn domains() -> AuditDomains {
    let chain = ChainId::new(31_337);
    AuditDomains {
        statements: Domain::new(chain, Address::repeat_byte(0x1e)),
        channels: Domain::new(chain, Address::repeat_byte(0xe5)),
        verdicts: Domain::new(chain, Address::repeat_byte(0xa0)),
    }
}

/// One lease at a unit for a unit, of which a tenth is royalty, and four validators of equal weight.
fn audit() -> (Audit, World) {
    // Proofs that keys are held take their time.
    static READY: LazyLock<(Audit, World)> = LazyLock::new(founded);
    READY.clone()
}

fn founded() -> (Audit, World) {
    let rules = AuditRules {
        epoch: Seconds::new(EPOCH),
        commit_grace: Seconds::new(GRACE),
        answer_window: Seconds::new(ANSWER),
        verdict_window: Seconds::new(VERDICT),
        resolve_window: Seconds::new(RESOLVE),
        claim_delay: Seconds::new(1_000),
        unbonding_delay: Seconds::new(2_000),
        task_bond: TASK_BOND,
        challenge_bond: CHALLENGE_BOND,
        min_weight: StakeWeight::new(10),
    };
    let mut audit = Audit::new(domains(), rules);
    let unit = prices(1_000_000, 1_000_000, 1_000_000, 1_000_000);
    let lease = AuditedLease {
        model: MODEL,
        host: address("host"),
        lease_key: address("lease key"),
        prices: unit,
        shares: Shares::new(bps(1_000), bps(100), prices(0, 0, 0, 0)).unwrap(),
        min_bond: Amount::new(9_000),
        min_restake: StakeWeight::new(100),
        bond: Amount::new(BOND),
        state: LeaseState::Open,
        ends_at: UnixSeconds::new(5_000),
    };
    audit.add_lease(LEASE, lease);
    audit.set_creator(MODEL, address("creator"));
    audit.set_allocation(address("host"), OperatorSet::Hosts, WHOLE / 2);
    let mut world = World::default();
    world.stakes.insert((address("host"), OperatorSet::Hosts), StakeWeight::new(100));
    for name in VALIDATORS {
        world.stakes.insert((address(name), OperatorSet::Validators), StakeWeight::new(100));
        join(&mut audit, &world, name).unwrap();
    }
    (audit, world)
}

fn secret(name: &str) -> SecretKey {
    SecretKey::from_entropy(keccak256(name).as_slice()).unwrap()
}

fn join(audit: &mut Audit, world: &World, name: &str) -> Result<(), AuditError> {
    let secret = secret(name);
    let possession = secret.prove_possession(&domains().verdicts, address(name));
    audit.set_allocation(address(name), OperatorSet::Validators, WHOLE);
    audit.join_validators(world, address(name), secret.public_key(), &possession)
}

fn by(name: &str, second: u64) -> Call {
    Call { caller: address(name), now: UnixSeconds::new(second) }
}

fn channel() -> Channel {
    Channel {
        payer: address("payer"),
        host: address("host"),
        token: Address::repeat_byte(0x71),
        withdraw_delay: Seconds::new(7_200),
        salt: B256::ZERO,
    }
}

/// The account of a request of 100 prompt and 99 completion tokens, which costs 200; it ended in the third epoch.
fn statement(sequence: u64) -> Statement {
    let before = UsageCounts::new(sequence - 1, 100 * (sequence - 1), 0, 99 * (sequence - 1)).unwrap();
    Statement {
        channel: Some(channel().digest(&domains().channels)),
        lease: LEASE,
        lane: Lane::new(7),
        step: LaneStep::new(before, RequestUsage::new(100, 0, 99).unwrap()).unwrap(),
        charge: Amount::new(200),
        request_hash: B256::repeat_byte(1),
        response_hash: B256::repeat_byte(2),
        started: UnixMilliseconds::new(START * 1_000),
        ended: UnixMilliseconds::new(START * 1_000 + 500),
        finish_reason: FinishReason::Stop,
        execution: None,
        previous: (sequence > 1).then(|| digest(&statement(sequence - 1))),
    }
}

fn digest(statement: &Statement) -> StatementDigest {
    statement.digest(&domains().statements)
}

fn evidence(statement: &Statement) -> StatementEvidence {
    raw_evidence(statement.into(), "lease key")
}

fn raw_evidence(statement: wire::Statement, signer: &str) -> StatementEvidence {
    let signature = key(signer).sign(statement.digest(&domains().statements).into()).as_bytes().to_vec();
    StatementEvidence { statement, signature }
}

fn verdict(task: TaskId, outcome: Outcome) -> Verdict {
    Verdict {
        task,
        lease: LEASE,
        kind: TaskKind::Substitution,
        outcome,
        evidence_bits: 21,
        evidence_root: B256::repeat_byte(3),
        epoch: Epoch::new(3),
    }
}

/// The signature of these validators, with all other active ones named.
fn signed(audit: &Audit, verdict: &Verdict, signers: &[&str]) -> QuorumSignature {
    let digest = verdict.digest(&domains().verdicts).into();
    let secrets: Vec<SecretKey> = signers.iter().map(|name| secret(name)).collect();
    let signatures: Vec<BlsSignature> = secrets.iter().map(|secret| secret.sign(digest)).collect();
    let keys: Vec<PublicKey> = secrets.iter().map(SecretKey::public_key).collect();
    let absent =
        (1..).zip(audit.validators()).filter(|(_, one)| signers.iter().all(|name| address(name) != one.operator));
    let non_signer = |(number, one): (u32, &protocol::audit::Validator)| NonSigner {
        number,
        operator: one.operator,
        weight: one.weight,
        key: one.key.g1,
    };
    QuorumSignature {
        signature: BlsSignature::aggregate(&signatures).unwrap(),
        key: PublicKey::aggregate(&keys).unwrap().g2,
        non_signers: absent.map(non_signer).collect(),
    }
}

/// A task that these validators decided.
fn decide(audit: &mut Audit, world: &World, kind: TaskKind, outcome: Outcome) -> Closure {
    let task = audit.open_task(by("stranger", 100), TASK_BOND, LEASE, kind, B256::ZERO).unwrap();
    let verdict = Verdict { kind, ..verdict(task, outcome) };
    let signature = signed(audit, &verdict, &VALIDATORS);
    assert_eq!(audit.submit_verdict(by("anybody", 200), &verdict, &signature), Ok(None));
    audit.resolve(by("anybody", 200 + RESOLVE + 1), world, task).unwrap()
}

fn bond(audit: &Audit) -> u128 {
    audit.lease(LEASE).unwrap().bond.get()
}

fn shares(payer: u128, creator: u128, reporter: u128) -> BondShares {
    let [payer, creator, reporter] = [payer, creator, reporter].map(Amount::new);
    BondShares { payer, creator, reporter }
}
