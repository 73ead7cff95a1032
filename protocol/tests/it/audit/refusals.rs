//! Why calls are refused. That every refusal is the contracts' own is compared in `licensing-contracts`.

use super::*;
use protocol::signature::SignatureError;

#[test]
fn the_bond_of_a_question_is_exact_and_comes_first() {
    let (mut audit, _) = audit();
    for coins in [0, 4, 6] {
        let stranger = raw_evidence(wire::Statement { leaseId: 9, ..(&statement(1)).into() }, "anybody");
        let refused = audit.challenge_inclusion(by("a", 0), Amount::new(coins), &stranger);
        let actual = Amount::new(coins);
        assert_eq!(refused, Err(AuditError::WrongBond { expected: CHALLENGE_BOND, actual }));
    }
    assert_eq!(audit.court_coins().held(), Amount::ZERO);
    let refused = audit.open_task(by("a", 0), CHALLENGE_BOND, LEASE, TaskKind::Substitution, B256::ZERO);
    assert_eq!(refused, Err(AuditError::WrongBond { expected: TASK_BOND, actual: CHALLENGE_BOND }));
}

#[test]
fn evidence_is_signed_by_the_lease_key_under_the_leases_domain() {
    let (audit, world) = audit();
    let wrong = Statement { charge: Amount::new(7), ..statement(1) };
    let attempt = |evidence: StatementEvidence| audit.clone().prove_misprice(by("a", 1), &world, &evidence);
    let signature = evidence(&wrong).signature;
    let with = |signature: Vec<u8>| attempt(StatementEvidence { signature, ..evidence(&wrong) }).unwrap_err();
    attempt(evidence(&wrong)).unwrap();
    assert_eq!(with(Vec::new()), AuditError::Signature(SignatureError::Length { found: 0 }));
    assert_eq!(with(signature[..64].to_vec()), AuditError::Signature(SignatureError::Length { found: 64 }));
    let forged = attempt(raw_evidence((&wrong).into(), "anybody")).unwrap_err();
    assert_eq!(forged.name(), "WrongSigner");
    let other = Domain::new(ChainId::new(1), domains().statements.verifying_contract());
    let elsewhere = key("lease key").sign(wrong.digest(&other).into()).as_bytes().to_vec();
    assert_eq!(with(elsewhere).name(), "WrongSigner");
    let nowhere = Statement { lease: LeaseId::new(9), ..wrong };
    assert_eq!(attempt(evidence(&nowhere)), Err(AuditError::UnknownLease { lease: LeaseId::new(9) }));
}

#[test]
fn a_host_has_its_time_to_report() {
    let (audit, world) = audit();
    let too_early = by("a", CHALLENGEABLE - 1);
    let from = UnixSeconds::new(CHALLENGEABLE);
    let missing = evidence(&statement(1));
    let asked = audit.clone().challenge_inclusion(too_early, CHALLENGE_BOND, &missing);
    assert_eq!(asked, Err(AuditError::NotChallengeable { from }));
    let absence = Absence { first_report: 0, proofs: Vec::new() };
    let proven = audit.clone().prove_omission(too_early, &world, &missing, &absence);
    assert_eq!(proven, Err(AuditError::NotChallengeable { from }));
}

#[test]
fn an_answer_is_the_statement_in_a_report_of_its_epoch_from_before_the_question() {
    let (mut audit, mut world) = audit();
    let (mine, other) = (statement(1), Statement { request_hash: B256::repeat_byte(8), ..statement(2) });
    world.report(2, START, std::slice::from_ref(&mine));
    let tree = world.report(3, START + EPOCH, &[mine.clone(), other.clone()]);
    // In the very block of the question, which its host can have seen on its way.
    let late = world.report(3, CHALLENGEABLE, std::slice::from_ref(&mine));
    let digest = audit.challenge_inclusion(by("a", CHALLENGEABLE), CHALLENGE_BOND, &evidence(&mine)).unwrap();
    let mut attempt = |report, proof| audit.answer_inclusion(&world, digest, report, &proof);
    let (right, wrong) = (tree.prove_inclusion(digest).unwrap(), tree.prove_inclusion(super::digest(&other)).unwrap());
    assert_eq!(attempt(1, wrong), Err(AuditError::LeafMismatch { statement: digest }));
    assert_eq!(attempt(3, right.clone()), Err(AuditError::UnknownReport { lease: LEASE, number: 3 }));
    let (expected, actual) = (Epoch::new(3), Epoch::new(2));
    assert_eq!(attempt(0, right.clone()), Err(AuditError::WrongEpoch { expected, actual }));
    let refused = attempt(2, late.prove_inclusion(digest).unwrap());
    assert!(matches!(refused, Err(AuditError::ReportedAfterChallenge { .. })), "{refused:?}");
    let mut cut = right.clone();
    cut.path.clear();
    assert_eq!(attempt(1, cut).unwrap_err().name(), "WrongTotals");
    let mut bent = right.clone();
    bent.path[0].hash = B256::ZERO;
    assert_eq!(attempt(1, bent).unwrap_err().name(), "WrongRoot");
    attempt(1, right).unwrap();
}

#[test]
fn no_report_of_the_epoch_is_left_out_of_a_proof_of_absence() {
    let (audit, mut world) = audit();
    let missing = statement(4);
    let absent = |tree: MerkleSumTree| tree.prove_absence(digest(&missing)).unwrap();
    absent(world.report(2, START, &[statement(5)]));
    let first = absent(world.report(3, START + EPOCH, &[statement(1), statement(2)]));
    let second = absent(world.report(3, START + EPOCH, &[statement(3)]));
    absent(world.report(4, START + 2 * EPOCH, &[statement(6)]));
    let attempt = |first_report, proofs: &[&AbsenceProof]| {
        let proofs = proofs.iter().map(|proof| (*proof).clone()).collect();
        let absence = Absence { first_report, proofs };
        audit.clone().prove_omission(by("a", CHALLENGEABLE), &world, &evidence(&missing), &absence)
    };
    attempt(1, &[&first, &second]).unwrap();
    let wrong = |actual| Err(AuditError::WrongEpoch { expected: Epoch::new(3), actual: Epoch::new(actual) });
    assert_eq!(attempt(1, &[&first]), wrong(3), "the second is left out");
    assert_eq!(attempt(2, &[&second]), wrong(3), "the first is left out");
    assert_eq!(attempt(0, &[]), wrong(2), "there is one");
    assert_eq!(attempt(4, &[]), wrong(4), "there is one before");
    assert_eq!(attempt(1, &[&first, &second, &second]), wrong(4));
    let unknown = Err(AuditError::UnknownReport { lease: LEASE, number: 5 });
    assert_eq!(attempt(6, &[]), unknown);
}

#[test]
fn a_verdict_needs_two_thirds_of_the_weight_and_names_all_others() {
    let (mut audit, mut world) = audit();
    let task = audit.open_task(by("a", 100), TASK_BOND, LEASE, TaskKind::Substitution, B256::ZERO).unwrap();
    let verdict = verdict(task, Outcome::Guilty);
    let attempt = |audit: &Audit, signature: &QuorumSignature| {
        audit.clone().submit_verdict(by("a", 110), &verdict, signature).err().map(|error| error.name())
    };
    let three = signed(&audit, &verdict, &VALIDATORS[..3]);
    assert_eq!(attempt(&audit, &three), None);
    assert_eq!(attempt(&audit, &signed(&audit, &verdict, &VALIDATORS[..2])), Some("QuorumMissed"));

    let with = |change: fn(&mut QuorumSignature)| {
        let mut signature = signed(&audit, &verdict, &VALIDATORS[1..]);
        change(&mut signature);
        attempt(&audit, &signature)
    };
    assert_eq!(with(|_| ()), None);
    assert_eq!(with(|signature| signature.non_signers.clear()), Some("AggregateSignature"));
    assert_eq!(with(|signature| signature.non_signers[0].number = 0), Some("NonSignerOrder"));
    assert_eq!(with(|signature| signature.non_signers.push(signature.non_signers[0])), Some("NonSignerOrder"));
    assert_eq!(with(|signature| signature.non_signers[0].number = 5), Some("NonSignerUnknown"));
    assert_eq!(with(|signature| signature.non_signers[0].weight = StakeWeight::new(1)), Some("NonSignerUnknown"));
    let other = signed(&audit, &Verdict { evidence_bits: 1, ..verdict.clone() }, &VALIDATORS[..3]);
    assert_eq!(attempt(&audit, &other), Some("AggregateSignature"));

    // Weights are those of the last look at them: one that lost its stake no longer counts, and its place is another's.
    world.stakes.insert((address("second"), OperatorSet::Validators), StakeWeight::new(9));
    audit.update_stakes(&world, &[address("second")]).unwrap();
    assert_eq!((audit.number(address("second")), audit.number(address("fourth"))), (None, Some(2)));
    assert_eq!(audit.total_weight(), StakeWeight::new(300));
    assert_eq!(attempt(&audit, &three), Some("NonSignerUnknown"));
    let two = signed(&audit, &verdict, &["first", "third"]);
    // 200 of 300 are less than 66.67 %.
    assert_eq!(attempt(&audit, &two), Some("QuorumMissed"));
    assert_eq!(QUORUM.get(), 6_667);
}

#[test]
fn a_key_has_one_operator_who_holds_it_and_enough_stake() {
    let (mut audit, mut world) = audit();
    assert_eq!(join(&mut audit, &world, "first").unwrap_err().name(), "AlreadyValidator");
    assert_eq!(join(&mut audit, &world, "fifth").unwrap_err().name(), "WeightTooSmall");
    world.stakes.insert((address("fifth"), OperatorSet::Validators), StakeWeight::new(10));
    join(&mut audit, &world, "fifth").unwrap();
    let stolen = |audit: &mut Audit, operator: &str| {
        let thief = secret("first");
        let possession = thief.prove_possession(&domains().verdicts, address(operator));
        audit.join_validators(&world, address(operator), thief.public_key(), &possession).unwrap_err().name()
    };
    assert_eq!(stolen(&mut audit, "sixth"), "KeyTaken");
    audit.leave_validators(address("first"));
    assert_eq!(stolen(&mut audit, "sixth"), "KeyTaken", "what it signed stays its own");
    let other = secret("another");
    let possession = other.prove_possession(&domains().verdicts, address("first"));
    let refused = audit.join_validators(&world, address("first"), other.public_key(), &possession);
    assert_eq!(refused, Err(AuditError::OtherKey { operator: address("first") }));
    let unproven = secret("sixth").prove_possession(&domains().verdicts, address("seventh"));
    let refused = audit.join_validators(&world, address("sixth"), secret("sixth").public_key(), &unproven);
    assert_eq!(refused, Err(AuditError::ProofOfPossession));
    join(&mut audit, &world, "first").unwrap();
    assert_eq!(audit.update_stakes(&world, &[address("sixth")]).unwrap_err().name(), "NotValidator");
}

#[test]
fn a_verdict_is_on_its_own_task_and_in_time() {
    let (mut audit, world) = audit();
    let task = audit.open_task(by("a", 100), TASK_BOND, LEASE, TaskKind::Substitution, B256::ZERO).unwrap();
    let attempt = |audit: &mut Audit, verdict: Verdict, second| {
        let signature = signed(audit, &verdict, &VALIDATORS);
        audit.submit_verdict(by("a", second), &verdict, &signature).err()
    };
    let guilty = verdict(task, Outcome::Guilty);
    let of_other_lease = Verdict { lease: LeaseId::new(2), ..guilty.clone() };
    assert_eq!(attempt(&mut audit, of_other_lease, 110), Some(AuditError::VerdictMismatch));
    let of_other_kind = Verdict { kind: TaskKind::TokenCount, ..guilty.clone() };
    assert_eq!(attempt(&mut audit, of_other_kind, 110), Some(AuditError::VerdictMismatch));
    let unknown = Verdict { task: TaskId::new(2), ..guilty.clone() };
    assert_eq!(attempt(&mut audit, unknown, 110), Some(AuditError::UnknownTask { task: TaskId::new(2) }));
    let deadline = UnixSeconds::new(100 + VERDICT);
    assert_eq!(attempt(&mut audit, guilty.clone(), 101 + VERDICT), Some(AuditError::TooLate { deadline }));
    assert_eq!(audit.resolve(by("a", 100 + VERDICT), &world, task), Err(AuditError::TooEarly { from: deadline }));
    assert_eq!(attempt(&mut audit, guilty.clone(), 100 + VERDICT), None);
    let until = UnixSeconds::new(100 + VERDICT + RESOLVE);
    assert_eq!(audit.resolve(by("a", until.get()), &world, task), Err(AuditError::TooEarly { from: until }));
    audit.resolve(by("a", until.get() + 1), &world, task).unwrap();
    assert_eq!(attempt(&mut audit, guilty, 110), Some(AuditError::TaskClosed));
    assert_eq!(audit.resolve(by("a", 9_000), &world, task), Err(AuditError::TaskClosed));
    let nobodys = audit.open_task(by("a", 100), TASK_BOND, LEASE, TaskKind::Ownership, B256::ZERO);
    assert_eq!(nobodys, Err(AuditError::WrongKind { kind: TaskKind::Ownership }));
}

#[test]
fn only_two_different_verdicts_on_one_task_conflict() {
    let (mut audit, world) = audit();
    let conflict = |name: &str, first: Verdict, second: Verdict| {
        let sign = |verdict: &Verdict| secret(name).sign(verdict.digest(&domains().verdicts).into());
        let (a, b) = (sign(&first), sign(&second));
        Conflict { operator: address(name), key: secret(name).public_key().g2, verdicts: [(first, a), (second, b)] }
    };
    let [one, two] = [1, 2].map(|task| verdict(TaskId::new(task), Outcome::Guilty));
    let same = audit.prove_verdict_conflict(&world, &conflict("first", one.clone(), one.clone()));
    assert_eq!(same, Err(AuditError::NoContradiction));
    let apart = audit.prove_verdict_conflict(&world, &conflict("first", one.clone(), two));
    assert_eq!(apart, Err(AuditError::NoContradiction));
    let more = Verdict { evidence_bits: 22, ..one.clone() };
    let nobody = audit.prove_verdict_conflict(&world, &conflict("nobody", one.clone(), more.clone()));
    assert_eq!(nobody, Err(AuditError::NotValidator { operator: address("nobody") }));
    // It signs at most one: not even the same outcome twice, in other words.
    audit.prove_verdict_conflict(&world, &conflict("first", one, more)).unwrap();
}
