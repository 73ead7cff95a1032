//! Deposits, session keys and claims.

use alloy::{primitives::Address, rpc::types::TransactionReceipt};
use protocol::{
    counts::UsageTotals,
    ids::LeaseId,
    merkle_sum::wire::Sums,
    messages::{Channel, SessionGrant, Signed, Statement, Voucher, wire},
    signature::Signature,
    splits::{Split, Splits},
    units::Amount,
};
use serde::{Deserialize, Serialize};

use super::{event, events};
use crate::{
    bindings::{PaymentEscrow, escrow::IPaymentEscrow, same},
    client::Action,
    deployment::Deployment,
};

/// Failing to turn a message into the contract's copy of it would be a fault of the build.
type Encoded = Result<Action, alloy::sol_types::Error>;

/// Deposits into a channel. The escrow takes the tokens: allow it first.
pub fn deposit(to: &Deployment, channel: &Channel, amount: Amount) -> Encoded {
    let call = PaymentEscrow::depositCall { channel: same(&wire::Channel::from(channel))?, amount: amount.get() };
    Ok(Action::call("deposit", to.payment_escrow, &call))
}

/// Announces a withdrawal.
pub fn announce_withdrawal(to: &Deployment, channel: &Channel, amount: Amount) -> Encoded {
    let channel = same(&wire::Channel::from(channel))?;
    let call = PaymentEscrow::initiateWithdrawCall { channel, amount: amount.get() };
    Ok(Action::call("announcement of a withdrawal", to.payment_escrow, &call))
}

/// Takes an announcement back.
pub fn cancel_withdrawal(to: &Deployment, channel: &Channel) -> Encoded {
    let call = PaymentEscrow::cancelWithdrawCall { channel: same(&wire::Channel::from(channel))? };
    Ok(Action::call("cancellation of a withdrawal", to.payment_escrow, &call))
}

/// Takes out what was announced.
pub fn withdraw(to: &Deployment, channel: &Channel) -> Encoded {
    let call = PaymentEscrow::withdrawCall { channel: same(&wire::Channel::from(channel))? };
    Ok(Action::call("withdrawal", to.payment_escrow, &call))
}

/// Registers a session key under the payer's signature.
pub fn grant(to: &Deployment, channel: &Channel, grant: &SessionGrant, signature: &Signature) -> Encoded {
    let call = PaymentEscrow::registerGrantCall {
        channel: same(&wire::Channel::from(channel))?,
        newGrant: same(&wire::SessionGrant::from(grant))?,
        signature: signature.as_bytes().to_vec().into(),
    };
    Ok(Action::call("grant to the key", to.payment_escrow, &call))
}

/// The grant that a receipt of [`grant`] registered.
pub fn granted(to: &Deployment, receipt: &TransactionReceipt) -> Option<SessionGrant> {
    let registered = event::<PaymentEscrow::GrantRegistered>(receipt, to.payment_escrow)?;
    let mirrored: wire::SessionGrant = same(&registered.grant).ok()?;
    mirrored.try_into().ok()
}

/// Ends a session key's grant, after its thaw.
pub fn revoke_grant(to: &Deployment, channel: &Channel, key: Address) -> Encoded {
    let call = PaymentEscrow::revokeGrantCall { channel: same(&wire::Channel::from(channel))?, key };
    Ok(Action::call("revocation of the grant", to.payment_escrow, &call))
}

/// A voucher with what proves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The voucher's channel.
    pub channel: Channel,
    /// Signed by the payer or a session key.
    pub voucher: Signed<Voucher>,
    /// The request in flight, signed by the lease key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Signed<Statement>>,
}

/// Claims vouchers of one lease, whose terms name `splits`.
pub fn claim(to: &Deployment, lease: LeaseId, splits: &Splits, claims: &[Claim]) -> Encoded {
    let group = IPaymentEscrow::LeaseClaims {
        leaseId: lease.get(),
        splits: splits.iter().map(wire_split).collect(),
        claims: claims.iter().map(encode).collect(),
    };
    let call = PaymentEscrow::claimBatchCall { batch: vec![group] };
    Ok(Action::call(format!("claim of {} vouchers", claims.len()), to.payment_escrow, &call))
}

fn wire_split(split: &Split) -> wire::Split {
    wire::Split { recipient: split.recipient, bps: split.share.get() }
}

fn encode(claim: &Claim) -> IPaymentEscrow::Claim {
    let statement = claim.in_flight.as_ref();
    IPaymentEscrow::Claim {
        channel: (&claim.channel).into(),
        voucher: (&claim.voucher.message).into(),
        signature: claim.voucher.signature.as_bytes().to_vec().into(),
        inFlight: statement.map(|signed| wire::Statement::from(&signed.message)).into_iter().collect(),
        statementSignature: statement.map(|signed| signed.signature.as_bytes().to_vec().into()).unwrap_or_default(),
    }
}

/// Pays the royalty on reported use that customers pay for in money, from the host's tokens. The escrow takes them: allow it
/// first. `position` is the report's, for people.
pub fn settle_royalty(to: &Deployment, lease: LeaseId, position: u64, used: UsageTotals, splits: &Splits) -> Encoded {
    let call = PaymentEscrow::settleRoyaltyCall {
        leaseId: lease.get(),
        used: same(&Sums::from(used))?,
        splits: splits.iter().map(|split| same(&wire_split(split))).collect::<Result<_, _>>()?,
    };
    Ok(Action::call(format!("royalty on report {position} of lease {lease}"), to.payment_escrow, &call))
}

/// The claims that a receipt of [`claim`] holds.
pub fn claimed(to: &Deployment, receipt: &TransactionReceipt) -> Vec<PaymentEscrow::Claimed> {
    events(receipt, to.payment_escrow).collect()
}

/// Sends an account what the escrow holds for it.
pub fn pay_out(to: &Deployment, token: Address, account: Address) -> Action {
    Action::call("pay-out", to.payment_escrow, &PaymentEscrow::payOutCall { token, account })
}
