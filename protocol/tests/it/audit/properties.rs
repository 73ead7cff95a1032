//! What holds whatever the numbers are.

use proptest::prelude::*;

use super::*;

/// Amounts that meet each other's bounds.
fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![0_u128..12, 0_u128..100_000, u128::MAX - 3..=u128::MAX].prop_map(Amount::new)
}

/// Statements of one lane, in the third epoch.
fn lane(length: u64) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    for number in 1..=length {
        let previous = statements.last().map(digest);
        let before = statements.last().map_or(UsageCounts::ZERO, |last| last.step.after());
        let step = LaneStep::new(before, RequestUsage::new(100, 0, 99).unwrap()).unwrap();
        statements.push(Statement { step, previous, lane: Lane::new(number % 3), ..statement(1) });
    }
    statements
}

proptest! {
    #[test]
    fn the_parts_of_a_bond_add_up_and_those_who_were_harmed_come_first(
        seized in amount(), refund in proptest::option::of(amount()), loss in amount(), reported: bool,
    ) {
        let compensation = Compensation {
            payer: refund.map(|refund| (address("payer"), refund)),
            creator_loss: loss,
            reporter: reported.then(|| address("reporter")),
        };
        let shares = BondShares::divide_down(seized, &compensation);
        prop_assert_eq!(shares.total(), seized);
        let refund = refund.unwrap_or_default();
        prop_assert_eq!(shares.payer, refund.min(seized));
        prop_assert!(shares.creator >= loss.min(seized.saturating_sub(refund)), "the creator is whole before a reporter is paid");
        let rest = seized.saturating_sub(refund).saturating_sub(loss);
        prop_assert_eq!(shares.reporter, if reported { bps(3_000).share_down(rest) } else { Amount::ZERO });
    }

    #[test]
    fn no_more_is_slashed_than_there_is(deposited in amount(), royalty in 0_u128..=u128::MAX, magnitude: u64, times in 1_usize..6) {
        let (mut audit, world) = audit();
        let lease = AuditedLease { bond: deposited, ..audit.lease(LEASE).unwrap().clone() };
        audit.add_lease(LEASE, lease);
        audit.set_allocation(address("host"), OperatorSet::Hosts, magnitude);
        for number in 1..=times {
            let (before, allocated) = (bond(&audit), audit.allocation(address("host"), OperatorSet::Hosts));
            let missing = Statement { charge: Amount::new(royalty), lane: Lane::new(number as u64), ..statement(1) };
            let absence = Absence { first_report: 0, proofs: Vec::new() };
            let call = by("reporter", CHALLENGEABLE);
            let punishment = audit.prove_omission(call, &world, &evidence(&missing), &absence).unwrap();
            // Nothing comes from anywhere else.
            let paid: Vec<u128> = punishment.credits().map(|(_, amount)| amount.get()).collect();
            let paid = paid.iter().try_fold(0_u128, |sum, part| sum.checked_add(*part)).unwrap();
            prop_assert_eq!(paid, before - bond(&audit));
            let harm = bps(1_000).share_down(Amount::new(royalty)).get();
            prop_assert_eq!(paid, harm.max(bps(2_000).share_down(Amount::new(before)).get()).min(before));
            // A tenth, rounded up.
            let left = audit.allocation(address("host"), OperatorSet::Hosts);
            prop_assert_eq!(allocated - left, allocated.div_ceil(10));
        }
    }

    #[test]
    fn what_is_reported_is_never_proven_missing_and_what_is_not_always_is(
        length in 1_u64..24, kept: u32, asked in any::<proptest::sample::Index>(), tried in any::<[proptest::sample::Index; 2]>(),
    ) {
        let (mut audit, mut world) = audit();
        let all = lane(length);
        let reported: Vec<Statement> =
            all.iter().zip(0..).filter(|(_, place)| kept >> place & 1 == 1).map(|(made, _)| made.clone()).collect();
        let tree = world.report(3, START + EPOCH, &reported);
        let asked = asked.get(&all);
        let call = by("customer", CHALLENGEABLE);
        let prove = |audit: &mut Audit, proof: AbsenceProof| {
            let absence = Absence { first_report: 0, proofs: vec![proof] };
            audit.prove_omission(call, &world, &evidence(asked), &absence)
        };
        if let Ok(proof) = tree.prove_absence(digest(asked)) {
            prop_assert!(!reported.contains(asked));
            prove(&mut audit, proof).unwrap();
            return Ok(());
        }
        // Whatever leaves a liar shows, alone or in pairs.
        let leaves: Vec<_> = tried.iter().map(|leaf| tree.prove_inclusion(digest(leaf.get(&reported))).unwrap()).collect();
        for neighbours in [Vec::new(), leaves[..1].to_vec(), leaves.clone()] {
            let proof = AbsenceProof { neighbours };
            prop_assert!(prove(&mut audit, proof).is_err());
        }
        // And who is asked can answer.
        let digest = audit.challenge_inclusion(call, CHALLENGE_BOND, &evidence(asked)).unwrap();
        audit.answer_inclusion(&world, digest, 0, &tree.prove_inclusion(digest).unwrap()).unwrap();
        prop_assert_eq!(bond(&audit), BOND);
    }

    #[test]
    fn an_honest_lane_convicts_nobody(length in 2_u64..12, two in any::<[proptest::sample::Index; 2]>()) {
        let (mut audit, world) = audit();
        let made: Vec<Statement> = (1..=length).map(statement).collect();
        let [first, second] = two.map(|place| evidence(place.get(&made)));
        let contradicting = audit.prove_equivocation(by("a", 1), &world, &first, &second);
        prop_assert_eq!(contradicting, Err(AuditError::NoContradiction));
        let mispriced = audit.prove_misprice(by("a", 1), &world, &first);
        prop_assert_eq!(mispriced, Err(AuditError::ChargeIsRight { charge: Amount::new(200) }));
    }

    #[test]
    fn coins_are_held_for_what_is_open_or_owed(choices in proptest::collection::vec((0_u8..6, 1_u64..6, 0_u64..200), 1..40)) {
        let (mut audit, world) = audit();
        let mut now = CHALLENGEABLE;
        for (choice, number, seconds) in choices {
            now += seconds;
            let call = by(VALIDATORS[(number % 4) as usize], now);
            let digest = digest(&statement(number));
            let task = TaskId::new(number);
            // Refusals are as good as anything here.
            match choice {
                0 => drop(audit.challenge_inclusion(call, CHALLENGE_BOND, &evidence(&statement(number)))),
                1 => drop(audit.resolve_inclusion(call, &world, digest)),
                2 => drop(audit.open_task(call, TASK_BOND, LEASE, TaskKind::TokenCount, B256::ZERO)),
                3 => drop(audit.resolve(call, &world, task)),
                4 => drop(audit.withdraw_from_court(call.caller)),
                _ => drop(audit.withdraw_from_audit(call.caller)),
            }
            let asked = audit.inclusion_challenges().filter(|(_, challenge)| challenge.open).count() as u128;
            let accused = audit.tasks().filter(|(_, task)| !matches!(task.state, TaskState::Closed(_))).count() as u128;
            let owed = |coins: &protocol::audit::CoinBonds| coins.all_owed().map(|(_, amount)| amount.get()).sum::<u128>();
            let (court, tasks) = (audit.court_coins(), audit.audit_coins());
            prop_assert_eq!(court.held().get(), asked * CHALLENGE_BOND.get() + owed(court));
            prop_assert_eq!(tasks.held().get(), accused * TASK_BOND.get() + owed(tasks));
            prop_assert_eq!(u128::from(audit.open_cases(LEASE)), asked + accused);
        }
    }
}
