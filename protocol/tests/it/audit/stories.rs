//! What becomes of cheats, and of honest hosts that are accused.

use super::*;

#[test]
fn a_statement_that_is_left_out_is_proven_and_the_creator_made_whole_first() {
    let (mut audit, mut world) = audit();
    let tree = world.report(3, START + EPOCH, &[statement(1), statement(3)]);
    let missing = statement(2);
    let absence = Absence { first_report: 0, proofs: vec![tree.prove_absence(digest(&missing)).unwrap()] };
    let call = by("customer", CHALLENGEABLE);
    let punishment = audit.prove_omission(call, &world, &evidence(&missing), &absence).unwrap();

    // A fifth of the bond: the royalty of 20 to the creator, 30 % of the other 1,980 to the reporter, the rest to the creator.
    assert_eq!((punishment.offence, punishment.shares), (Offence::Omission, shares(0, 1_406, 594)));
    let credits: Vec<_> = punishment.credits().collect();
    assert_eq!(credits, [(address("creator"), Amount::new(1_406)), (address("customer"), Amount::new(594))]);
    assert_eq!(punishment.slashed, Some(bps(1_000)));
    assert_eq!(audit.allocation(address("host"), OperatorSet::Hosts), WHOLE / 2 / 10 * 9);
    // 8,000 are less than the terms ask for.
    assert_eq!((bond(&audit), audit.lease(LEASE).unwrap().state), (8_000, LeaseState::Suspended));

    let again = audit.prove_omission(call, &world, &evidence(&missing), &absence);
    assert_eq!(again, Err(AuditError::AlreadyPunished { fault: Fault::Omission(digest(&missing)) }));
}

#[test]
fn a_statement_of_an_epoch_without_reports_is_missing() {
    let (mut audit, mut world) = audit();
    world.report(2, START, &[]);
    world.report(4, START + 2 * EPOCH, &[statement(2)]);
    let absence = Absence { first_report: 1, proofs: Vec::new() };
    audit.prove_omission(by("customer", CHALLENGEABLE), &world, &evidence(&statement(1)), &absence).unwrap();
}

#[test]
fn a_host_that_shows_the_statement_in_time_gets_the_bond_of_the_question() {
    let (mut audit, mut world) = audit();
    let tree = world.report(3, START + EPOCH, &[statement(1), statement(2)]);
    let asked = audit.challenge_inclusion(by("customer", CHALLENGEABLE), CHALLENGE_BOND, &evidence(&statement(2)));
    let digest = asked.unwrap();
    assert_eq!((audit.open_cases(LEASE), audit.court_coins().held()), (1, CHALLENGE_BOND));
    let proof = tree.prove_inclusion(digest).unwrap();
    audit.answer_inclusion(&world, digest, 0, &proof).unwrap();
    assert_eq!((audit.open_cases(LEASE), audit.court_coins().owed(address("host"))), (0, CHALLENGE_BOND));
    assert_eq!(audit.withdraw_from_court(address("host")), Ok(CHALLENGE_BOND));
    assert_eq!(audit.court_coins().held(), Amount::ZERO);

    // It is over: nothing is left to resolve, and the same question is not asked twice.
    let later = by("customer", CHALLENGEABLE + ANSWER + 1);
    assert_eq!(audit.resolve_inclusion(later, &world, digest), Err(AuditError::NoChallenge { statement: digest }));
    let again = audit.challenge_inclusion(later, CHALLENGE_BOND, &evidence(&statement(2)));
    assert_eq!(again, Err(AuditError::AlreadyChallenged { statement: digest }));
    assert_eq!(bond(&audit), BOND);
}

#[test]
fn a_host_that_is_silent_loses_and_is_not_punished_for_the_same_statement_twice() {
    let (mut audit, world) = audit();
    let missing = evidence(&statement(1));
    let digest = audit.challenge_inclusion(by("customer", CHALLENGEABLE), CHALLENGE_BOND, &missing).unwrap();
    let until = CHALLENGEABLE + ANSWER;
    let early = audit.resolve_inclusion(by("anybody", until), &world, digest);
    assert_eq!(early, Err(AuditError::TooEarly { from: UnixSeconds::new(until) }));
    let punishment = audit.resolve_inclusion(by("anybody", until + 1), &world, digest).unwrap().unwrap();
    // The reporter is who asked, not who called.
    assert_eq!((punishment.offence, punishment.shares), (Offence::Silence, shares(0, 1_406, 594)));
    assert_eq!(punishment.compensation.reporter, Some(address("customer")));
    assert_eq!(audit.court_coins().owed(address("customer")), CHALLENGE_BOND);

    let absence = Absence { first_report: 0, proofs: Vec::new() };
    let again = audit.prove_omission(by("customer", until + 2), &world, &missing, &absence);
    assert_eq!(again, Err(AuditError::AlreadyPunished { fault: Fault::Omission(digest) }));
}

#[test]
fn a_question_that_a_proof_overtakes_gives_the_bond_back_and_punishes_no_more() {
    let (mut audit, world) = audit();
    let missing = evidence(&statement(1));
    let digest = audit.challenge_inclusion(by("customer", CHALLENGEABLE), CHALLENGE_BOND, &missing).unwrap();
    let absence = Absence { first_report: 0, proofs: Vec::new() };
    audit.prove_omission(by("quicker", CHALLENGEABLE + 1), &world, &missing, &absence).unwrap();
    let left = bond(&audit);
    let resolved = audit.resolve_inclusion(by("anybody", CHALLENGEABLE + ANSWER + 1), &world, digest);
    assert_eq!(resolved, Ok(None));
    assert_eq!((bond(&audit), audit.court_coins().owed(address("customer"))), (left, CHALLENGE_BOND));
}

#[test]
fn two_accounts_of_one_request_cost_half_of_everything_and_a_third_one_nothing() {
    let (mut audit, world) = audit();
    let accounts: Vec<Statement> =
        (0..3).map(|number| Statement { response_hash: B256::repeat_byte(number), ..statement(2) }).collect();
    let [a, b, c] = [0, 1, 2].map(|number: usize| evidence(&accounts[number]));
    let punishment = audit.prove_equivocation(by("anybody", 1), &world, &a, &b).unwrap();
    assert_eq!((punishment.shares, punishment.slashed), (shares(0, 3_500, 1_500), Some(bps(5_000))));
    assert_eq!(audit.allocation(address("host"), OperatorSet::Hosts), WHOLE / 4);
    let again = audit.prove_equivocation(by("anybody", 1), &world, &a, &c);
    let channel = channel().digest(&domains().channels);
    let request = Request { lease: LEASE, channel, lane: Lane::new(7), sequence: 2 };
    assert_eq!(again, Err(AuditError::AlreadyPunished { fault: Fault::Equivocation(request) }));
}

#[test]
fn a_statement_contradicts_the_one_before_it_unless_it_goes_on_from_there() {
    let (audit, world) = audit();
    let (first, next) = (evidence(&statement(1)), evidence(&statement(2)));
    let attempt = |first: &StatementEvidence, second: &StatementEvidence| {
        audit.clone().prove_equivocation(by("anybody", 1), &world, first, second)
    };
    assert_eq!(attempt(&first, &next), Err(AuditError::NoContradiction));
    assert_eq!(attempt(&next, &first), Err(AuditError::NoContradiction));
    assert_eq!(attempt(&first, &first), Err(AuditError::NoContradiction));
    assert_eq!(attempt(&first, &evidence(&statement(3))), Err(AuditError::NoContradiction));
    let elsewhere = Statement { lane: Lane::new(8), ..statement(1) };
    assert_eq!(attempt(&first, &evidence(&elsewhere)), Err(AuditError::NoContradiction));

    let fork = Statement { previous: Some(B256::repeat_byte(9).into()), ..statement(2) };
    attempt(&first, &evidence(&fork)).unwrap();
    for change in [
        |raw: &mut wire::Statement| raw.promptTokensBefore = "101".parse().unwrap(),
        |raw: &mut wire::Statement| raw.cachedTokensBefore = "1".parse().unwrap(),
        |raw: &mut wire::Statement| raw.completionTokensBefore = "98".parse().unwrap(),
    ] {
        let mut raw = wire::Statement::from(&statement(2));
        change(&mut raw);
        attempt(&first, &raw_evidence(raw, "lease key")).unwrap();
    }
}

#[test]
fn a_wrong_charge_is_punished_too_high_or_too_low_and_nonsense_has_no_right_one() {
    let (audit, world) = audit();
    let attempt = |evidence| audit.clone().prove_misprice(by("anybody", 1), &world, &evidence);
    let right = AuditError::ChargeIsRight { charge: Amount::new(200) };
    assert_eq!(attempt(evidence(&statement(4))), Err(right));
    for charge in [199, 201, u128::MAX] {
        let wrong = Statement { charge: Amount::new(charge), ..statement(4) };
        assert_eq!(attempt(evidence(&wrong)).unwrap().shares, shares(0, 1_400, 600));
    }
    for change in [
        |raw: &mut wire::Statement| raw.seq = "0".parse().unwrap(),
        |raw: &mut wire::Statement| raw.cachedTokens = "101".parse().unwrap(),
        |raw: &mut wire::Statement| raw.cachedTokensBefore = "301".parse().unwrap(),
    ] {
        let mut raw = wire::Statement::from(&statement(4));
        change(&mut raw);
        attempt(raw_evidence(raw, "lease key")).unwrap();
    }
}

#[test]
fn counts_beyond_a_lane_still_have_a_right_charge() {
    let (mut audit, world) = audit();
    let mut raw = wire::Statement::from(&statement(1));
    let most = UsageCounts::MAX;
    raw.promptTokensBefore = most.to_string().parse().unwrap();
    raw.promptTokens = most.to_string().parse().unwrap();
    // At a unit for a unit: one request, all those prompt tokens and 99 more.
    raw.charge = u128::from(most) + 100;
    let right = audit.prove_misprice(by("anybody", 1), &world, &raw_evidence(raw, "lease key"));
    assert_eq!(right, Err(AuditError::ChargeIsRight { charge: Amount::new(u128::from(most) + 100) }));
}

#[test]
fn a_guilty_host_pays_its_customer_back_before_anybody_else() {
    let (mut audit, mut world) = audit();
    let id = channel().digest(&domains().channels);
    let claimed = LaneState { lease: LEASE, counts: statement(3).step.after() };
    world.lanes.insert((id, Lane::new(7)), claimed);
    let bill = Statement { charge: Amount::new(550), ..statement(3) };
    let accusation = Accusation {
        kind: TaskKind::TokenCount,
        evidence_root: B256::repeat_byte(3),
        bill: evidence(&bill),
        channel: channel(),
    };
    let task = audit.accuse(by("customer", 100), TASK_BOND, &world, &accusation).unwrap();
    let verdict = Verdict { kind: TaskKind::TokenCount, ..verdict(task, Outcome::Guilty) };
    let signature = signed(&audit, &verdict, &VALIDATORS[..3]);
    audit.submit_verdict(by("anybody", 100 + VERDICT), &verdict, &signature).unwrap();
    let closure = audit.resolve(by("anybody", 100 + VERDICT + RESOLVE + 1), &world, task).unwrap();
    let punishment = closure.punishment.unwrap();
    assert_eq!(punishment.shares, shares(550, 1_015, 435));
    assert_eq!(punishment.credits().next(), Some((address("payer"), Amount::new(550))));
    assert_eq!(audit.audit_coins().owed(address("customer")), TASK_BOND);
    assert_eq!(audit.lease(LEASE).unwrap().ends_at, UnixSeconds::new(5_000), "it may serve on");
}

#[test]
fn one_request_is_convicted_once_however_many_accuse() {
    let (mut audit, mut world) = audit();
    let id = channel().digest(&domains().channels);
    world.lanes.insert((id, Lane::new(7)), LaneState { lease: LEASE, counts: statement(3).step.after() });
    let mut convict = |charge, second| {
        let bill = evidence(&Statement { charge: Amount::new(charge), ..statement(3) });
        let (kind, evidence_root) = (TaskKind::TokenCount, B256::ZERO);
        let accusation = Accusation { kind, evidence_root, bill, channel: channel() };
        let task = audit.accuse(by("customer", second), TASK_BOND, &world, &accusation).unwrap();
        let verdict = Verdict { kind, ..verdict(task, Outcome::Guilty) };
        audit.submit_verdict(by("a", second), &verdict, &signed(&audit, &verdict, &VALIDATORS)).unwrap();
        audit.resolve(by("a", second + RESOLVE + 1), &world, task).unwrap().punishment.map(|it| it.shares.payer.get())
    };
    assert_eq!(convict(550, 100), Some(550));
    // Also by another account of it.
    assert_eq!(convict(549, 200), None);
}

#[test]
fn a_statement_that_is_dated_in_the_future_is_as_good_as_missing() {
    let (mut audit, world) = audit();
    let ended = START + 5_000;
    let postdated = Statement { ended: UnixMilliseconds::new(ended * 1_000), ..statement(1) };
    let tolerated = by("customer", ended - 900);
    let refused = audit.prove_postdating(tolerated, &world, &evidence(&postdated));
    assert_eq!(refused, Err(AuditError::NotPostdated { ended: UnixSeconds::new(ended) }));
    let punishment = audit.prove_postdating(by("customer", ended - 901), &world, &evidence(&postdated)).unwrap();
    assert_eq!((punishment.offence, punishment.shares), (Offence::Omission, shares(0, 1_406, 594)));
    let absence = Absence { first_report: 0, proofs: Vec::new() };
    let again = audit.prove_omission(by("customer", ended + 500), &world, &evidence(&postdated), &absence);
    assert!(matches!(again, Err(AuditError::AlreadyPunished { .. })), "{again:?}");
}

#[test]
fn nobody_is_paid_back_for_a_bill_that_was_not_paid() {
    let (audit, world) = audit();
    let refund = |world: &World, bill: &Statement| {
        let accusation = Accusation {
            kind: TaskKind::TokenCount,
            evidence_root: B256::ZERO,
            bill: evidence(bill),
            channel: channel(),
        };
        let mut audit = audit.clone();
        let task = audit.accuse(by("host", 100), TASK_BOND, world, &accusation).unwrap();
        match audit.task(task).unwrap().subject {
            Subject::Lease { bill: Some(Bill { refund, .. }), .. } => refund.get(),
            other => panic!("{other:?}"),
        }
    };
    let id = channel().digest(&domains().channels);
    let with = |lease: u64, sequence: u64| {
        let mut world = world.clone();
        let counts = statement(sequence).step.after();
        world.lanes.insert((id, Lane::new(7)), LaneState { lease: LeaseId::new(lease), counts });
        world
    };
    let dear = Statement { charge: Amount::new(1_000_000), ..statement(3) };
    assert_eq!(refund(&world, &dear), 0, "nothing was claimed");
    assert_eq!(refund(&with(1, 2), &dear), 0, "not so much was claimed");
    assert_eq!(refund(&with(2, 3), &dear), 0, "it was claimed under another lease");
    assert_eq!(refund(&with(1, 3), &dear), 600, "not more than was claimed");
    assert_eq!(refund(&with(1, 5), &statement(3)), 200, "not more than was charged");
}

#[test]
fn verdicts_cost_what_they_are_about() {
    for (kind, seized, slashed, revoked) in [
        (TaskKind::TokenCount, 2_000, 1_000, false),
        (TaskKind::Substitution, 5_000, 5_000, true),
        (TaskKind::OutsideService, 10_000, 10_000, true),
        (TaskKind::VariantLeak, 10_000, 10_000, true),
    ] {
        let (mut audit, world) = audit();
        let closure = decide(&mut audit, &world, kind, Outcome::Guilty);
        let punishment = closure.punishment.unwrap();
        assert_eq!(punishment.shares.total().get(), seized, "{kind:?}");
        assert_eq!(punishment.slashed, Some(bps(slashed)), "{kind:?}");
        let lease = audit.lease(LEASE).unwrap();
        let ends_at = if revoked { 200 + RESOLVE + 1 } else { 5_000 };
        assert_eq!((lease.state == LeaseState::Revoked, lease.ends_at.get()), (revoked, ends_at), "{kind:?}");
        assert_eq!(audit.open_cases(LEASE), 0);
    }
}

#[test]
fn a_host_that_is_cleared_gets_the_bond_of_the_accusation() {
    let (mut audit, world) = audit();
    let closure = decide(&mut audit, &world, TaskKind::Substitution, Outcome::NotGuilty);
    let expected = Closure { decision: Decision::Verdict(Outcome::NotGuilty), punishment: None, transferred: None };
    assert_eq!(closure, expected);
    assert_eq!((audit.audit_coins().owed(address("host")), bond(&audit)), (TASK_BOND, BOND));
    assert_eq!(audit.allocation(address("host"), OperatorSet::Hosts), WHOLE / 2);
}

#[test]
fn a_quorum_that_says_both_has_said_nothing() {
    let (mut audit, _) = audit();
    let task = audit.open_task(by("stranger", 100), TASK_BOND, LEASE, TaskKind::Substitution, B256::ZERO).unwrap();
    let (guilty, not_guilty) = (verdict(task, Outcome::Guilty), verdict(task, Outcome::NotGuilty));
    audit.submit_verdict(by("a", 110), &guilty, &signed(&audit, &guilty, &VALIDATORS[..3])).unwrap();
    let again = audit.submit_verdict(by("a", 120), &guilty, &signed(&audit, &guilty, &VALIDATORS));
    assert_eq!(again, Err(AuditError::VerdictMismatch));
    let signature = signed(&audit, &not_guilty, &VALIDATORS[1..]);
    let closure = audit.submit_verdict(by("a", 110 + RESOLVE), &not_guilty, &signature).unwrap().unwrap();
    assert_eq!(closure.decision, Decision::Void);
    assert_eq!(audit.audit_coins().owed(address("stranger")), TASK_BOND);
    assert_eq!((bond(&audit), audit.open_cases(LEASE)), (BOND, 0));

    // The two that signed both lose all that they allocated, once; the others nothing.
    for (name, signed_both) in [("first", false), ("second", true), ("third", true)] {
        let (secret, verdicts) = (secret(name), domains().verdicts);
        let sign = |verdict: &Verdict| secret.sign(verdict.digest(&verdicts).into());
        let second = if signed_both { sign(&not_guilty) } else { sign(&guilty) };
        let conflict = Conflict {
            operator: address(name),
            key: secret.public_key().g2,
            verdicts: [(guilty.clone(), sign(&guilty)), (not_guilty.clone(), second)],
        };
        let mut world = World::default();
        if signed_both {
            // While it cannot be slashed the evidence is kept.
            world.gone.insert(address(name));
            let early = audit.prove_verdict_conflict(&world, &conflict);
            assert_eq!(early, Err(AuditError::NotSlashable { operator: address(name) }));
            world.gone.clear();
        }
        let punished = audit.prove_verdict_conflict(&world, &conflict);
        let left = audit.allocation(address(name), OperatorSet::Validators);
        if signed_both {
            assert_eq!((punished, left), (Ok(()), 0));
            let again = audit.prove_verdict_conflict(&world, &conflict);
            assert_eq!(again, Err(AuditError::ConflictPunished { operator: address(name), task }));
        } else {
            assert_eq!((punished, left), (Err(AuditError::AggregateSignature), WHOLE));
        }
    }
}

#[test]
fn a_task_without_a_verdict_ends_with_nothing() {
    let (mut audit, world) = audit();
    let task = audit.open_task(by("stranger", 100), TASK_BOND, LEASE, TaskKind::VariantLeak, B256::ZERO).unwrap();
    let closure = audit.resolve(by("anybody", 100 + VERDICT + 1), &world, task).unwrap();
    assert_eq!((closure.decision, closure.punishment), (Decision::Void, None));
    assert_eq!(audit.audit_coins().owed(address("stranger")), TASK_BOND);
    assert_eq!(audit.task(task).unwrap().state, TaskState::Closed(Decision::Void));
}

#[test]
fn a_model_goes_to_the_challenger_whose_claim_is_upheld() {
    let (mut audit, world) = audit();
    let task = audit.open_ownership_task(by("author", 100), TASK_BOND, MODEL, B256::ZERO).unwrap();
    let upheld = Verdict { lease: LeaseId::new(0), kind: TaskKind::Ownership, ..verdict(task, Outcome::Guilty) };
    audit.submit_verdict(by("a", 200), &upheld, &signed(&audit, &upheld, &VALIDATORS)).unwrap();
    let closure = audit.resolve(by("a", 300), &world, task).unwrap();
    assert_eq!((closure.transferred, closure.punishment), (Some(MODEL), None));
    assert_eq!(audit.creator(MODEL), Some(address("author")));
    // From now on the author is who is made whole.
    let wrong = Statement { charge: Amount::new(7), ..statement(1) };
    let punishment = audit.prove_misprice(by("anybody", 400), &world, &evidence(&wrong)).unwrap();
    assert_eq!(punishment.creator, address("author"));
}

#[test]
fn a_host_that_left_long_ago_loses_its_bond_only() {
    let (mut audit, mut world) = audit();
    world.gone.insert(address("host"));
    let wrong = Statement { charge: Amount::new(7), ..statement(1) };
    let punishment = audit.prove_misprice(by("anybody", 400), &world, &evidence(&wrong)).unwrap();
    assert_eq!((punishment.slashed, punishment.shares.total().get()), (None, 2_000));
    assert_eq!(audit.allocation(address("host"), OperatorSet::Hosts), WHOLE / 2);
}

#[test]
fn the_bond_stays_as_long_as_anything_is_open_or_owed_and_is_the_hosts_then() {
    let (mut audit, mut world) = audit();
    audit.close(by("host", 1_000), LEASE).unwrap();
    let task = audit.open_task(by("stranger", 2_000), TASK_BOND, LEASE, TaskKind::Substitution, B256::ZERO).unwrap();
    let late = audit.open_task(by("stranger", 2_001), TASK_BOND, LEASE, TaskKind::Substitution, B256::ZERO);
    assert_eq!(late, Err(AuditError::TooLate { deadline: UnixSeconds::new(2_000) }));
    let locked = audit.withdraw_bond(by("host", 2_999), &world, LEASE);
    assert_eq!(locked, Err(AuditError::BondLocked { until: UnixSeconds::new(3_000) }));
    let call = by("host", 3_000);
    assert_eq!(audit.withdraw_bond(call, &world, LEASE), Err(AuditError::CasesOpen { open: 1 }));
    audit.resolve(by("anybody", 3_000), &world, task).unwrap();
    // A tenth of what was reported and not claimed, and what is owed from before.
    world.report(3, START + EPOCH, &[statement(1)]);
    world.debt = Amount::new(7);
    let owed = Amount::new(27);
    assert_eq!(audit.withdraw_bond(call, &world, LEASE), Err(AuditError::RoyaltyOwed { owed }));
    (world.settled, world.debt) = (world.reports[0].cumulative, Amount::ZERO);
    assert_eq!(audit.withdraw_bond(call, &world, LEASE), Ok(Amount::new(BOND)));
    assert_eq!(bond(&audit), 0);
}

#[test]
fn a_suspended_lease_comes_back_with_its_collateral_and_a_revoked_one_does_not() {
    let (mut audit, mut world) = audit();
    let enough = audit.suspend(&world, LEASE);
    assert_eq!(enough, Err(AuditError::CollateralIsEnough));
    decide(&mut audit, &world, TaskKind::TokenCount, Outcome::Guilty);
    assert_eq!(audit.lease(LEASE).unwrap().state, LeaseState::Suspended);
    let short = audit.reinstate(by("host", 500), &world, LEASE);
    assert_eq!(short, Err(AuditError::BondTooSmall { least: Amount::new(9_000), actual: Amount::new(8_000) }));
    audit.add_bond(LEASE, Amount::new(1_000)).unwrap();
    audit.reinstate(by("host", 500), &world, LEASE).unwrap();
    // What was slashed is missing there, too, and anybody may say so.
    world.stakes.insert((address("host"), OperatorSet::Hosts), StakeWeight::new(90));
    audit.suspend(&world, LEASE).unwrap();
    let small = audit.reinstate(by("host", 500), &world, LEASE);
    assert_eq!(small, Err(AuditError::RestakeTooSmall { least: StakeWeight::new(100), actual: StakeWeight::new(90) }));
    decide(&mut audit, &world, TaskKind::Substitution, Outcome::Guilty);
    let revoked = audit.reinstate(by("host", 500), &world, LEASE);
    let (expected, actual) = (LeaseState::Suspended, LeaseState::Revoked);
    assert_eq!(revoked, Err(AuditError::WrongState { expected, actual }));
}
