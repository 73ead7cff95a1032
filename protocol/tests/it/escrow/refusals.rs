//! Every error has a call that it answers, and a refused call changes nothing.

use protocol::{
    counts::{RequestUsage, UsageTotals},
    escrow::{EscrowError, LeaseClaims},
    ids::{Lane, LeaseId},
    messages::Voucher,
    signature::SignatureError,
    units::{Amount, Seconds, UnixSeconds},
};

use super::*;

/// Runs a call that must be refused, and checks that nothing changed.
fn refused<T: std::fmt::Debug>(
    escrow: &mut Escrow,
    call: impl FnOnce(&mut Escrow) -> Result<T, EscrowError>,
) -> EscrowError {
    let before = escrow.clone();
    let error = call(escrow).unwrap_err();
    assert_eq!(*escrow, before, "{error}");
    error
}

fn one(amount: u128) -> Amount {
    Amount::new(amount)
}

#[test]
fn deposits() {
    let mut escrow = funded(10);
    let mut refuse =
        |channel: Channel, amount| refused(&mut escrow, |escrow| escrow.deposit(&channel, Amount::new(amount)));
    assert_eq!(refuse(channel(), 0), EscrowError::Zero);
    assert_eq!(refuse(Channel { payer: Address::ZERO, ..channel() }, 1), EscrowError::Zero);
    assert_eq!(refuse(Channel { host: Address::ZERO, ..channel() }, 1), EscrowError::Zero);
    let (least, longest) = (Seconds::new(2 * CLAIM_INTERVAL), Seconds::new(2_592_000));
    for actual in [Seconds::new(2 * CLAIM_INTERVAL - 1), Seconds::new(2_592_001)] {
        let error = EscrowError::WithdrawDelay { least, longest, actual };
        assert_eq!(refuse(Channel { withdraw_delay: actual, ..channel() }, 1), error);
    }
    assert_eq!(refuse(channel(), u128::MAX), EscrowError::Overflow { what: "deposits" });
    for delay in [least, longest] {
        escrow.deposit(&Channel { withdraw_delay: delay, ..channel() }, one(1)).unwrap();
    }
}

#[test]
fn withdrawals_and_releases() {
    let mut escrow = funded(10);
    let (payer, host) = (address("payer"), address("host"));
    let not_payer = EscrowError::NotPayer { expected: payer, actual: host };
    assert_eq!(refused(&mut escrow, |e| e.initiate_withdraw(by("host", 0), &channel(), one(1))), not_payer);
    assert_eq!(refused(&mut escrow, |e| e.cancel_withdraw(by("host", 0), &channel())), not_payer);
    assert_eq!(refused(&mut escrow, |e| e.withdraw(by("host", 0), &channel())), not_payer);
    assert_eq!(refused(&mut escrow, |e| e.initiate_withdraw(by("payer", 0), &channel(), one(0))), EscrowError::Zero);
    assert_eq!(refused(&mut escrow, |e| e.withdraw(by("payer", 0), &channel())), EscrowError::NothingAnnounced);
    let not_host = EscrowError::NotHost { expected: host, actual: payer };
    assert_eq!(refused(&mut escrow, |e| e.release(by("payer", 0), &channel(), one(1))), not_host);
    let error = EscrowError::InsufficientDeposit { available: one(10), needed: one(11) };
    assert_eq!(refused(&mut escrow, |e| e.release(by("host", 0), &channel(), one(11))), error);
    let endless = Channel { withdraw_delay: Seconds::new(u64::MAX), ..channel() };
    let error = EscrowError::Overflow { what: "times" };
    assert_eq!(refused(&mut escrow, |e| e.initiate_withdraw(by("payer", 1), &endless, one(1))), error);
}

#[test]
fn balances() {
    let mut escrow = funded(10);
    let error = EscrowError::NothingToPay { token: TOKENS[0], account: CREATOR };
    assert_eq!(refused(&mut escrow, |e| e.pay_out(TOKENS[0], CREATOR)), error);
    assert_eq!(refused(&mut escrow, |e| e.credit(TOKENS[0], Address::ZERO, one(1))), EscrowError::Zero);
    let error = EscrowError::Overflow { what: "tokens" };
    assert_eq!(refused(&mut escrow, |e| e.credit(TOKENS[0], CREATOR, Amount::MAX)), error);
    let before = escrow.clone();
    escrow.credit(TOKENS[0], Address::ZERO, one(0)).unwrap();
    assert_eq!(escrow, before, "nothing for nobody");
}

#[test]
fn grants() {
    let (mut escrow, world) = (funded(10), world());
    let good = grant_of(&channel(), "session", 5);
    escrow.register_grant(by("x", 0), &world, &channel(), &good, &signed_grant(&good, "payer")).unwrap();
    let mut refuse = |grant: &SessionGrant, signer: &str, at| {
        let signature = signed_grant(grant, signer);
        refused(&mut escrow, |e| e.register_grant(by("x", at), &world, &channel(), grant, &signature))
    };
    let elsewhere = Channel { salt: B256::repeat_byte(1), ..channel() };
    let foreign = SessionGrant { channel: id(&elsewhere), nonce: 6, ..good.clone() };
    let error = EscrowError::WrongChannel { expected: id(&channel()), actual: Some(id(&elsewhere)) };
    assert_eq!(refuse(&foreign, "payer", 0), error);
    assert_eq!(refuse(&SessionGrant { key: Address::ZERO, ..good.clone() }, "payer", 0), EscrowError::Zero);
    let next = SessionGrant { nonce: 6, ..good.clone() };
    let expired = EscrowError::GrantExpired { expired_at: good.expires_at };
    assert_eq!(refuse(&next, "payer", 100_000), expired);
    assert_eq!(refuse(&good, "payer", 0), EscrowError::GrantNonce { current: 5, actual: 5 });
    for narrower in [
        SessionGrant { cap: one(99), ..next.clone() },
        SessionGrant { per_request_cap: one(19), ..next.clone() },
        SessionGrant { expires_at: UnixSeconds::new(good.expires_at.get() - 1), ..next.clone() },
    ] {
        assert_eq!(refuse(&narrower, "payer", 0), EscrowError::GrantReduced);
    }
    let wrong = SignatureError::WrongSigner { expected: address("payer"), actual: address("session") };
    assert_eq!(refuse(&next, "session", 0), EscrowError::Signature(wrong));

    let not_payer = EscrowError::NotPayer { expected: address("payer"), actual: address("session") };
    assert_eq!(refused(&mut escrow, |e| e.revoke_grant(by("session", 0), &channel(), good.key)), not_payer);
    let unknown = EscrowError::UnknownGrant { channel: id(&channel()), key: CREATOR };
    assert_eq!(refused(&mut escrow, |e| e.revoke_grant(by("payer", 0), &channel(), CREATOR)), unknown);
}

#[test]
fn claims_by_others_elsewhere_or_too_late() {
    let (mut escrow, world) = (funded(1_000), world());
    let good = || voucher(&channel(), counts(1, 0, 0, 0));
    let mut refuse = |call: Call, group: LeaseClaims| refused(&mut escrow, |e| e.claim_batch(call, &world, &[group]));
    let group = |claim: Claim| LeaseClaims { lease: LEASE, splits: splits(), claims: vec![claim] };
    let payers = |voucher| claim_of(&channel(), voucher, "payer");

    let unknown = LeaseClaims { lease: LeaseId::new(9), ..group(payers(good())) };
    assert_eq!(refuse(by("host", 0), unknown), EscrowError::UnknownLease { lease: LeaseId::new(9) });
    let not_host = EscrowError::NotHost { expected: address("host"), actual: address("payer") };
    assert_eq!(refuse(by("payer", 0), group(payers(good()))), not_host);
    let until = UnixSeconds::new(START.get() + 1_000_000);
    assert_eq!(refuse(by("host", 1_000_001), group(payers(good()))), EscrowError::LeaseNotClaimable { until });
    let error = EscrowError::WrongSplits { expected: splits().root(), actual: None };
    let kept = LeaseClaims { splits: Splits::default(), ..group(payers(good())) };
    assert_eq!(refuse(by("host", 0), kept), error, "the creator's parents are paid");

    let elsewhere = Channel { salt: B256::repeat_byte(1), ..channel() };
    let error = EscrowError::WrongChannel { expected: id(&elsewhere), actual: Some(id(&channel())) };
    assert_eq!(refuse(by("host", 0), group(claim_of(&elsewhere, good(), "payer"))), error);
    let error = EscrowError::WrongLease { expected: LEASE, actual: LeaseId::new(2) };
    let other_lease = Voucher { lease: LeaseId::new(2), ..good() };
    assert_eq!(refuse(by("host", 0), group(payers(other_lease))), error);
    let foreign = Channel { host: address("other host"), ..channel() };
    let error = EscrowError::NotHost { expected: address("other host"), actual: address("host") };
    assert_eq!(refuse(by("host", 0), group(claim_of(&foreign, voucher(&foreign, counts(1, 0, 0, 0)), "payer"))), error);
    let worthless = Channel { token: TOKENS[1], ..channel() };
    let error = EscrowError::WrongToken { expected: TOKENS[0], actual: TOKENS[1] };
    let claim = claim_of(&worthless, voucher(&worthless, counts(1, 0, 0, 0)), "payer");
    assert_eq!(refuse(by("host", 0), group(claim)), error);
    let expired_at = UnixSeconds::new(START.get() + 500_000);
    assert_eq!(refuse(by("host", 500_001), group(payers(good()))), EscrowError::VoucherExpired { expired_at });
    let mut last_second = escrow.clone();
    last_second.claim_batch(by("host", 500_000), &world, &[group(payers(good()))]).unwrap();
}

#[test]
fn claims_of_what_was_not_promised() {
    let (mut escrow, mut world) = (funded(1_000), world());
    claim(
        &mut escrow,
        &world,
        by("host", 0),
        claim_of(&channel(), voucher(&channel(), counts(2, 100, 40, 50)), "payer"),
    )
    .unwrap();
    let refuse = |escrow: &mut Escrow, world: &World, voucher: Voucher, signer: &str| {
        refused(escrow, |e| claim(e, world, by("host", 1), claim_of(&channel(), voucher.clone(), signer)))
    };
    let next = |counts| voucher(&channel(), counts);
    let error = EscrowError::NotNewer { claimed: 2, requests: 2 };
    assert_eq!(refuse(&mut escrow, &world, next(counts(2, 200, 40, 50)), "payer"), error);
    for fewer in [counts(3, 99, 40, 50), counts(3, 100, 39, 50), counts(3, 100, 40, 49), counts(3, 110, 51, 50)] {
        assert_eq!(refuse(&mut escrow, &world, next(fewer), "payer").name(), "CountsDecrease");
    }
    let error = EscrowError::InsufficientDeposit { available: one(848), needed: one(849) };
    assert_eq!(refuse(&mut escrow, &world, next(counts(3, 948, 40, 50)), "payer"), error);
    let error = EscrowError::UnknownGrant { channel: id(&channel()), key: address("session") };
    assert_eq!(refuse(&mut escrow, &world, next(counts(3, 100, 40, 50)), "session"), error);

    world.reported.insert(LEASE, UsageTotals { charge: one(152), ..world.reported(LEASE) });
    let error = refuse(&mut escrow, &world, next(counts(3, 100, 40, 50)), "payer");
    assert_eq!(error.name(), "MoreThanReported", "paid for nothing that is not reported");

    // A lane belongs to the lease of its first claim.
    let other = Voucher { lease: LeaseId::new(2), ..next(counts(3, 100, 40, 50)) };
    let claims = vec![claim_of(&channel(), other, "payer")];
    let group = LeaseClaims { lease: LeaseId::new(2), splits: Splits::default(), claims };
    let error = refused(&mut escrow, |e| e.claim_batch(by("host", 1), &world, &[group]));
    assert_eq!(error, EscrowError::WrongLease { expected: LEASE, actual: LeaseId::new(2) });
}

#[test]
fn claims_with_broken_signatures() {
    let (mut escrow, world) = (funded(1_000), world());
    let good = claim_of(&channel(), voucher(&channel(), counts(1, 0, 0, 0)), "payer");
    let mut refuse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut claim = good.clone();
        change(&mut claim.signature);
        refused(&mut escrow, |e| super::claim(e, &world, by("host", 0), claim)).name()
    };
    assert_eq!(refuse(&|signature| signature.truncate(64)), "SignatureLength");
    assert_eq!(refuse(&|signature| signature.clear()), "SignatureLength");
    assert_eq!(refuse(&|signature| signature[32] |= 0x80), "SignatureHighS");
    assert_eq!(refuse(&|signature| signature[64] -= 27), "SignatureMalformed");
    assert_eq!(refuse(&|signature| signature[..32].fill(0)), "SignatureMalformed");
    // Another key's, as whose nobody is granted anything.
    assert_eq!(refuse(&|signature| signature[64] = 55 - signature[64]), "UnknownGrant");
}

#[test]
fn statements_that_do_not_belong_to_the_voucher() {
    let (mut escrow, world) = (funded(1_000), world());
    let voucher = Voucher { ceiling: one(30), ..voucher(&channel(), counts(1, 10, 0, 10)) };
    let good = statement_after(&voucher, RequestUsage::new(10, 5, 19).unwrap(), &world.leases[&LEASE].prices);
    assert_eq!(good.charge, one(30));
    let mut refuse = |statement: Statement, signer: &str| {
        let mut claim = claim_of(&channel(), voucher.clone(), "payer");
        claim.in_flight = Some(in_flight(statement, signer));
        refused(&mut escrow, |e| super::claim(e, &world, by("host", 0), claim))
    };
    let lease_key = "host's lease key";
    let change = |change: &dyn Fn(&mut Statement)| {
        let mut statement = good.clone();
        change(&mut statement);
        statement
    };
    let error = EscrowError::WrongChannel { expected: id(&channel()), actual: None };
    assert_eq!(refuse(change(&|s| s.channel = None), lease_key), error, "a customer billed in money");
    let error = EscrowError::WrongLease { expected: LEASE, actual: LeaseId::new(2) };
    assert_eq!(refuse(change(&|s| s.lease = LeaseId::new(2)), lease_key), error);
    let error = EscrowError::WrongLane { expected: Lane::new(0), actual: Lane::new(1) };
    assert_eq!(refuse(change(&|s| s.lane = Lane::new(1)), lease_key), error);
    let other = Some(good.digest(&statements()));
    let error = EscrowError::StatementOutOfOrder { expected: None, actual: other };
    assert_eq!(refuse(change(&|s| s.previous = other), lease_key), error);
    for before in [counts(0, 10, 0, 10), counts(1, 11, 0, 10), counts(1, 10, 1, 10), counts(1, 10, 0, 9)] {
        let moved = change(&|s| s.step = LaneStep::new(before, good.step.usage()).unwrap());
        assert_eq!(refuse(moved, lease_key), EscrowError::StatementCounts);
    }
    let wrong = SignatureError::WrongSigner { expected: address(lease_key), actual: address("host") };
    assert_eq!(refuse(good.clone(), "host"), EscrowError::Signature(wrong));
    let error = EscrowError::StatementCharge { expected: one(30), actual: one(29) };
    assert_eq!(refuse(change(&|s| s.charge = one(29)), lease_key), error);
    let dear = statement_after(&voucher, RequestUsage::new(10, 5, 20).unwrap(), &world.leases[&LEASE].prices);
    assert_eq!(refuse(dear, lease_key), EscrowError::CeilingExceeded { ceiling: one(30), cost: one(31) });
}

#[test]
fn a_session_key_cannot_promise_more_for_a_request_than_it_may() {
    let (mut escrow, world) = (funded(1_000), world());
    let grant = grant_of(&channel(), "session", 1);
    escrow.register_grant(by("x", 0), &world, &channel(), &grant, &signed_grant(&grant, "payer")).unwrap();
    let voucher = Voucher { ceiling: one(21), ..voucher(&channel(), counts(1, 0, 0, 0)) };
    let statement = statement_after(&voucher, RequestUsage::new(5, 0, 5).unwrap(), &world.leases[&LEASE].prices);
    let mut claim = claim_of(&channel(), voucher, "session");
    claim.in_flight = Some(in_flight(statement, "host's lease key"));
    let error = EscrowError::RequestCapExceeded { per_request_cap: one(20), ceiling: one(21) };
    assert_eq!(refused(&mut escrow, |e| super::claim(e, &world, by("host", 0), claim.clone())), error);
    claim.in_flight = None;
    super::claim(&mut escrow, &world, by("host", 0), claim).unwrap();
}

#[test]
fn costs_and_royalties_that_are_no_amounts() {
    let (mut escrow, mut world) = (funded(1_000), world());
    world.leases.get_mut(&LEASE).unwrap().prices = prices(u128::MAX, 0, 0, 0);
    let claim = claim_of(&channel(), voucher(&channel(), counts(1_000_001, 0, 0, 0)), "payer");
    assert_eq!(refused(&mut escrow, |e| super::claim(e, &world, by("host", 0), claim)).name(), "CostTooLarge");

    let host = by("host", 0);
    let cached = UsageTotals { cached_tokens: 1, ..UsageTotals::ZERO };
    let error = refused(&mut escrow, |e| e.settle_royalty(host, &world, LEASE, &cached, &splits()));
    assert_eq!(error.name(), "Panic");
    let not_host = EscrowError::NotHost { expected: address("host"), actual: address("payer") };
    let used = UsageTotals { requests: 1, ..UsageTotals::ZERO };
    assert_eq!(refused(&mut escrow, |e| e.settle_royalty(by("payer", 0), &world, LEASE, &used, &splits())), not_host);
    let error = refused(&mut escrow, |e| e.settle_royalty(host, &world, LEASE, &used, &Splits::default()));
    assert_eq!(error.name(), "WrongSplits");
    let error = refused(&mut escrow, |e| e.settle_royalty(host, &world, LeaseId::new(9), &used, &splits()));
    assert_eq!(error, EscrowError::UnknownLease { lease: LeaseId::new(9) });
}
