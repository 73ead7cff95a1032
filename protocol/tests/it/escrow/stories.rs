//! Calls that succeed, and what they leave behind.

use protocol::{
    Address,
    counts::{RequestUsage, UsageTotals},
    escrow::{Enforced, EscrowError, LeaseClaims, Report},
    ids::Lane,
    messages::Voucher,
    units::{Amount, UnixSeconds},
};

use super::*;

fn balances(escrow: &Escrow) -> BTreeMap<Address, u128> {
    escrow.balances().map(|(_, account, amount)| (account, amount.get())).collect()
}

#[test]
fn a_claim_pays_creator_parent_validators_and_host_in_one_call() {
    let (mut escrow, world) = (funded(5_000), world());
    let payments = claim(
        &mut escrow,
        &world,
        by("host", 1),
        claim_of(&channel(), voucher(&channel(), counts(3, 500, 200, 497)), "payer"),
    );
    let [payment] = payments.unwrap().try_into().unwrap();
    assert_eq!((payment.cost.get(), payment.royalty.get(), payment.validators.get()), (1_000, 100, 10));
    assert_eq!(payment.statement, None);
    let expected = [(AUDIT, 10), (PARENT, 25), (CREATOR, 75), (address("host"), 890)];
    assert_eq!(balances(&escrow), expected.into());
    let state = escrow.channel(id(&channel())).unwrap();
    assert_eq!((state.deposited.get(), state.spent.get(), state.unspent().get()), (5_000, 1_000, 4_000));
    let used = UsageTotals {
        requests: 3,
        prompt_tokens: 500,
        cached_tokens: 200,
        completion_tokens: 497,
        charge: Amount::new(1_000),
    };
    assert_eq!(escrow.settled(LEASE), used);

    // Everybody takes out what is his, in any order, and the rest of the deposit remains.
    for (account, amount) in expected {
        assert_eq!(escrow.pay_out(TOKENS[0], account), Ok(Amount::new(amount)));
    }
    assert_eq!(escrow.held(TOKENS[0]), Amount::new(4_000));
}

#[test]
fn a_later_voucher_pays_the_difference_only_and_the_earlier_one_nothing() {
    let (mut escrow, world) = (funded(5_000), world());
    let first = claim_of(&channel(), voucher(&channel(), counts(1, 100, 0, 0)), "payer");
    let second = claim_of(&channel(), voucher(&channel(), counts(2, 150, 0, 30)), "payer");
    claim(&mut escrow, &world, by("host", 1), first.clone()).unwrap();
    let before = escrow.clone();
    let again = claim(&mut escrow, &world, by("host", 2), first.clone());
    assert_eq!(again, Err(EscrowError::NotNewer { claimed: 1, requests: 1 }), "claims are idempotent");
    assert_eq!(escrow, before);
    let payments = claim(&mut escrow, &world, by("host", 3), second.clone()).unwrap();
    assert_eq!(payments[0].cost.get(), 81);

    // The later one alone leaves the same channel and lane, and the same sum of balances.
    let mut other = funded(5_000);
    claim(&mut other, &world, by("host", 1), second).unwrap();
    assert_eq!(other.channel(id(&channel())), escrow.channel(id(&channel())));
    assert!(other.lanes().eq(escrow.lanes()));
    let total = |escrow: &Escrow| balances(escrow).values().sum::<u128>();
    assert_eq!(total(&other), total(&escrow));
    let late = claim(&mut other, &world, by("host", 2), first);
    assert_eq!(late, Err(EscrowError::NotNewer { claimed: 2, requests: 1 }), "order does not matter");
}

#[test]
fn the_request_in_flight_is_claimed_with_its_statement_up_to_the_ceiling() {
    let (mut escrow, world) = (funded(5_000), world());
    let voucher = Voucher { ceiling: Amount::new(61), ..voucher(&channel(), counts(1, 100, 0, 0)) };
    let usage = RequestUsage::new(40, 10, 20).unwrap();
    let statement = statement_after(&voucher, usage, &world.leases[&LEASE].prices);
    assert_eq!(statement.charge.get(), 61);
    let mut both = claim_of(&channel(), voucher, "payer");
    both.in_flight = Some(in_flight(statement.clone(), "host's lease key"));
    let payments = claim(&mut escrow, &world, by("host", 1), both).unwrap();
    assert_eq!(payments[0].cost.get(), 162);
    assert_eq!(payments[0].statement, Some(statement.digest(&statements())));
    assert_eq!(payments[0].lane.counts, counts(2, 140, 10, 20));
}

#[test]
fn lanes_are_counted_by_themselves() {
    let (mut escrow, world) = (funded(300), world());
    for lane in 0..3 {
        let voucher = Voucher { lane: Lane::new(lane), ..voucher(&channel(), counts(1, 99, 0, 0)) };
        claim(&mut escrow, &world, by("host", 1), claim_of(&channel(), voucher, "payer")).unwrap();
    }
    assert_eq!(escrow.channel(id(&channel())).unwrap().unspent(), Amount::ZERO);
    let fourth = Voucher { lane: Lane::new(3), ..voucher(&channel(), counts(1, 0, 0, 0)) };
    let refused = claim(&mut escrow, &world, by("host", 1), claim_of(&channel(), fourth, "payer"));
    let error = EscrowError::InsufficientDeposit { available: Amount::ZERO, needed: Amount::new(1) };
    assert_eq!(refused, Err(error), "all lanes together cannot pass the deposit");
}

#[test]
fn a_voucher_from_before_an_announcement_can_be_claimed_until_the_withdrawal_is_free() {
    let (mut escrow, world) = (funded(1_000), world());
    let signed_before = claim_of(&channel(), voucher(&channel(), counts(1, 799, 0, 0)), "payer");
    escrow.initiate_withdraw(by("payer", 10), &channel(), Amount::new(1_000)).unwrap();
    let free = 10 + 2 * CLAIM_INTERVAL;
    let early = escrow.withdraw(by("payer", free - 1), &channel());
    let error = EscrowError::WithdrawalTooEarly { withdrawable_at: UnixSeconds::new(START.get() + free) };
    assert_eq!(early, Err(error));
    // Two claim intervals after the announcement the host still gets everything.
    claim(&mut escrow, &world, by("host", free - 1), signed_before).unwrap();
    assert_eq!(escrow.withdraw(by("payer", free), &channel()), Ok(Amount::new(200)), "what is left");
    assert_eq!(escrow.withdraw(by("payer", free), &channel()), Err(EscrowError::NothingAnnounced));
}

#[test]
fn a_second_announcement_starts_anew_and_a_cancelled_one_is_gone() {
    let mut escrow = funded(1_000);
    escrow.initiate_withdraw(by("payer", 0), &channel(), Amount::new(600)).unwrap();
    escrow.initiate_withdraw(by("payer", 100), &channel(), Amount::new(700)).unwrap();
    assert!(escrow.withdraw(by("payer", 2 * CLAIM_INTERVAL), &channel()).is_err());
    assert_eq!(escrow.withdraw(by("payer", 100 + 2 * CLAIM_INTERVAL), &channel()), Ok(Amount::new(700)));
    escrow.initiate_withdraw(by("payer", 0), &channel(), Amount::new(300)).unwrap();
    escrow.cancel_withdraw(by("payer", 1), &channel()).unwrap();
    assert_eq!(escrow.withdraw(by("payer", 100_000), &channel()), Err(EscrowError::NothingAnnounced));
    assert_eq!(escrow.cancel_withdraw(by("payer", 2), &channel()), Err(EscrowError::NothingAnnounced));
}

#[test]
fn what_a_host_releases_is_not_withdrawn_a_second_time() {
    let mut escrow = funded(1_000);
    escrow.initiate_withdraw(by("payer", 0), &channel(), Amount::new(600)).unwrap();
    escrow.release(by("host", 1), &channel(), Amount::new(500)).unwrap();
    assert_eq!(escrow.withdraw(by("payer", 2 * CLAIM_INTERVAL), &channel()), Ok(Amount::new(100)));
    assert_eq!(escrow.held(TOKENS[0]), Amount::new(400), "vouchers are still signed against it");
}

#[test]
fn a_session_key_spends_up_to_its_cap_until_its_grant_has_thawed() {
    let (mut escrow, world) = (funded(1_000), world());
    let grant = grant_of(&channel(), "session", 1);
    let register = |escrow: &mut Escrow, grant: &SessionGrant, at| {
        escrow.register_grant(by("anybody", at), &world, &channel(), grant, &signed_grant(grant, "payer"))
    };
    register(&mut escrow, &grant, 0).unwrap();
    let spend = |escrow: &mut Escrow, requests, at| {
        let voucher = voucher(&channel(), counts(requests, 0, 0, 0));
        claim(escrow, &world, by("host", at), claim_of(&channel(), voucher, "session"))
    };
    spend(&mut escrow, 60, 1).unwrap();
    let error = EscrowError::GrantCapExceeded { cap: Amount::new(100), needed: Amount::new(101) };
    assert_eq!(spend(&mut escrow, 101, 2), Err(error));
    spend(&mut escrow, 90, 3).unwrap();

    // A wider grant goes on with what was spent.
    let wider = SessionGrant { cap: Amount::new(150), nonce: 2, ..grant.clone() };
    register(&mut escrow, &wider, 4).unwrap();
    assert_eq!(escrow.grant(id(&channel()), address("session")).unwrap().spent, Amount::new(90));

    escrow.revoke_grant(by("payer", 10), &channel(), address("session")).unwrap();
    let thawed = 10 + 2 * CLAIM_INTERVAL;
    spend(&mut escrow, 140, thawed).unwrap();
    let expired = EscrowError::GrantExpired { expired_at: UnixSeconds::new(START.get() + thawed) };
    assert_eq!(spend(&mut escrow, 141, thawed + 1), Err(expired));
    // Nothing that was signed before can lift the revocation.
    let last = SessionGrant { nonce: u64::MAX, expires_at: UnixSeconds::new(START.get() + 900_000), ..wider };
    let error = EscrowError::GrantNonce { current: u64::MAX, actual: u64::MAX };
    assert_eq!(register(&mut escrow, &last, thawed + 2), Err(error));
}

#[test]
fn a_wallet_signs_by_its_own_rules_and_cannot_take_back_a_granted_key() {
    let world = world();
    let mut escrow = escrow();
    let channel = Channel { payer: WALLET, ..channel() };
    escrow.deposit(&channel, Amount::new(1_000)).unwrap();
    let owned = claim_of(&channel, voucher(&channel, counts(1, 0, 0, 0)), "wallet owner");
    claim(&mut escrow, &world, by("host", 1), owned).unwrap();

    let stranger = claim_of(&channel, voucher(&channel, counts(2, 0, 0, 0)), "session");
    let refused = claim(&mut escrow, &world, by("host", 1), stranger.clone()).unwrap_err();
    assert_eq!(refused.name(), "WalletRefused");
    let mut short = stranger.clone();
    short.signature.truncate(10);
    assert_eq!(claim(&mut escrow, &world, by("host", 1), short).unwrap_err().name(), "WalletRefused");

    let grant = grant_of(&channel, "session", 1);
    let refused = escrow.register_grant(by("x", 1), &world, &channel, &grant, &signed_grant(&grant, "session"));
    assert_eq!(refused.unwrap_err().name(), "WalletRefused");
    let signature = signed_grant(&grant, "wallet owner");
    escrow.register_grant(by("x", 1), &world, &channel, &grant, &signature).unwrap();
    claim(&mut escrow, &world, by("host", 2), stranger).unwrap();
}

#[test]
fn one_refused_claim_undoes_the_batch() {
    let (mut escrow, world) = (funded(1_000), world());
    let good = claim_of(&channel(), voucher(&channel(), counts(1, 0, 0, 0)), "payer");
    let bad =
        claim_of(&channel(), Voucher { lane: Lane::new(1), ..voucher(&channel(), counts(1, 0, 0, 0)) }, "session");
    let group = |claims| LeaseClaims { lease: LEASE, splits: splits(), claims };
    let before = escrow.clone();
    let batch = [group(vec![good.clone()]), group(vec![bad])];
    assert_eq!(escrow.claim_batch(by("host", 1), &world, &batch).unwrap_err().name(), "UnknownGrant");
    assert_eq!(escrow, before);
    assert_eq!(escrow.claim_batch(by("host", 1), &world, &[group(vec![good])]).unwrap().len(), 1);
}

#[test]
fn royalty_on_use_that_was_billed_in_money_comes_from_the_host_or_its_bond() {
    let (mut escrow, mut world) = (funded(1_000), world());
    let used = |requests: u64, charge| UsageTotals { requests, charge: Amount::new(charge), ..UsageTotals::ZERO };
    world.reported.insert(LEASE, used(100, 100));
    claim(&mut escrow, &world, by("host", 1), claim_of(&channel(), voucher(&channel(), counts(30, 0, 0, 0)), "payer"))
        .unwrap();
    let paid = escrow.settle_royalty(by("host", 2), &world, LEASE, &used(40, 40), &splits());
    assert_eq!(paid, Ok(Amount::new(4)));
    let more = escrow.settle_royalty(by("host", 2), &world, LEASE, &used(31, 0), &splits()).unwrap_err();
    assert_eq!(more, EscrowError::MoreThanReported { reported: used(100, 100), settled: used(101, 70) });

    // The last thirty are owed once the window is over; the bond has less.
    let report = Report { committed_at: START, cumulative: used(100, 100) };
    let due = EscrowError::NotDue { due_at: UnixSeconds::new(START.get() + 86_400) };
    let mut enforce =
        |at, bond| escrow.enforce_royalty(by("x", at), &world, LEASE, &report, Amount::new(bond), &splits());
    assert_eq!(enforce(86_400, 2), Err(due));
    assert_eq!(enforce(86_401, 2), Ok(Enforced { owed: Amount::new(3), collected: Amount::new(2) }));
    assert_eq!(enforce(86_402, 0), Ok(Enforced { owed: Amount::new(1), collected: Amount::ZERO }));
    assert_eq!(enforce(86_403, 9), Ok(Enforced { owed: Amount::new(1), collected: Amount::new(1) }));
    assert_eq!(enforce(86_404, 9), Err(EscrowError::NothingOwed));
    assert_eq!(escrow.settled(LEASE), used(100, 100));
    assert_eq!(escrow.royalty_debt(LEASE), Amount::ZERO);
}
