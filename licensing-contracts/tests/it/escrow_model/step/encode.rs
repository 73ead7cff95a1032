//! Calls as the contracts take them.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::{SolCall as _, SolType, SolValue},
};
use licensing_contracts::{
    bindings::{
        LeaseManager, ModelRegistry, PaymentEscrow, TestToken, UsageLog,
        escrow::{IPaymentEscrow, MerkleSum},
        same,
    },
    client::Revert,
};
use protocol::{
    counts::UsageTotals,
    escrow::{Claim, LeaseClaims},
    ids::LeaseId,
    messages::{Channel, Message as _, wire},
    splits::Splits,
    units::Amount,
};

use super::{Act, Around, Step};
use crate::{
    differential::Done,
    escrow_model::world::{STRANGER, World},
};

/// A claim as the contract takes it.
#[derive(Clone, Debug)]
pub(in crate::escrow_model) struct WireClaim {
    pub(in crate::escrow_model) channel: wire::Channel,
    pub(in crate::escrow_model) voucher: wire::Voucher,
    pub(in crate::escrow_model) signature: Vec<u8>,
    pub(in crate::escrow_model) in_flight: Option<(wire::Statement, Vec<u8>)>,
}

impl WireClaim {
    fn encode(&self) -> IPaymentEscrow::Claim {
        let (statements, signature) = self.in_flight.clone().unzip();
        IPaymentEscrow::Claim {
            channel: self.channel.clone(),
            voucher: self.voucher.clone(),
            signature: self.signature.clone().into(),
            inFlight: statements.into_iter().collect(),
            statementSignature: signature.unwrap_or_default().into(),
        }
    }
}

impl From<&Claim> for WireClaim {
    fn from(claim: &Claim) -> Self {
        let in_flight = claim.in_flight.as_ref();
        Self {
            channel: (&claim.channel).into(),
            voucher: (&claim.voucher).into(),
            signature: claim.signature.clone(),
            in_flight: in_flight.map(|last| ((&last.statement).into(), last.signature.clone())),
        }
    }
}

impl World {
    /// What the contracts do.
    pub(in crate::escrow_model) fn really(&mut self, step: &Step) -> Result<Done, Revert> {
        let to = self.chain.to().clone();
        let (contract, data) = match &step.act {
            Act::Around(around) => self.encode_around(around),
            act => (to.payment_escrow, encode(act)),
        };
        if let Act::Collect { channel, amount } = &step.act
            && *amount != Amount::ZERO
        {
            let id = channel.digest(&self.domain).word();
            let at = self.chain.read(to.payment_escrow, &PaymentEscrow::depositAddressCall { id });
            let transfer = TestToken::transferCall { to: at, value: U256::from(amount.get()) };
            self.chain.must(STRANGER, channel.token, &transfer);
        }
        self.chain.submit(step.by, contract, U256::ZERO, data)
    }

    fn encode_around(&self, around: &Around) -> (Address, Vec<u8>) {
        let to = self.chain.to();
        match around {
            Around::Report { lease, root, totals } => {
                let report = self.report(*lease, *root, *totals);
                let new_report = same(&wire::EpochCommit::from(&report)).unwrap();
                let call = UsageLog::commitCall { newReport: new_report, signature: Bytes::new() };
                (to.usage_log, call.abi_encode())
            }
            Around::Close { lease } => {
                (to.lease_manager, LeaseManager::closeCall { leaseId: lease.get() }.abi_encode())
            }
            Around::AddBond { lease, amount } => {
                let call = LeaseManager::addBondCall { leaseId: lease.get(), amount: amount.get() };
                (to.lease_manager, call.abi_encode())
            }
            Around::Sell { model, to: buyer } => {
                let call = ModelRegistry::transferFromCall {
                    from: self.account(self.creator(*model)),
                    to: self.account(buyer),
                    tokenId: U256::from_be_bytes(*self.models[*model].as_bytes()),
                };
                (to.model_registry, call.abi_encode())
            }
        }
    }
}

fn encode(act: &Act) -> Vec<u8> {
    match act {
        Act::Deposit { channel, amount } => {
            PaymentEscrow::depositCall { channel: on_chain(channel), amount: amount.get() }.abi_encode()
        }
        Act::Collect { channel, .. } => PaymentEscrow::collectDepositCall { channel: on_chain(channel) }.abi_encode(),
        Act::Announce { channel, amount } => {
            PaymentEscrow::initiateWithdrawCall { channel: on_chain(channel), amount: amount.get() }.abi_encode()
        }
        Act::Cancel { channel } => PaymentEscrow::cancelWithdrawCall { channel: on_chain(channel) }.abi_encode(),
        Act::Withdraw { channel } => PaymentEscrow::withdrawCall { channel: on_chain(channel) }.abi_encode(),
        Act::Release { channel, amount } => {
            PaymentEscrow::releaseCall { channel: on_chain(channel), amount: amount.get() }.abi_encode()
        }
        Act::Grant { channel, grant, signature } => PaymentEscrow::registerGrantCall {
            channel: on_chain(channel),
            newGrant: same(&wire::SessionGrant::from(grant)).unwrap(),
            signature: signature.clone().into(),
        }
        .abi_encode(),
        Act::Revoke { channel, key } => {
            PaymentEscrow::revokeGrantCall { channel: on_chain(channel), key: *key }.abi_encode()
        }
        Act::Claim { batch } => {
            let group = |group: &LeaseClaims| {
                group_of(group.lease, &group.splits, &group.claims.iter().map(WireClaim::from).collect::<Vec<_>>())
            };
            PaymentEscrow::claimBatchCall { batch: batch.iter().map(group).collect() }.abi_encode()
        }
        Act::Nonsense { lease, splits, claim } => {
            let group = group_of(*lease, splits, std::slice::from_ref(claim));
            PaymentEscrow::claimBatchCall { batch: vec![group] }.abi_encode()
        }
        Act::Settle { lease, used, splits } => {
            let splits = recipients(splits).iter().map(|split| same(split).unwrap()).collect();
            PaymentEscrow::settleRoyaltyCall { leaseId: lease.get(), used: sums(used), splits }.abi_encode()
        }
        Act::Enforce { lease, report, splits } => {
            let splits = recipients(splits).iter().map(|split| same(split).unwrap()).collect();
            let report_index = U256::from(*report);
            PaymentEscrow::enforceRoyaltyCall { leaseId: lease.get(), reportIndex: report_index, splits }.abi_encode()
        }
        Act::Credit { token, account, amount } => {
            PaymentEscrow::creditCall { token: *token, account: *account, amount: amount.get() }.abi_encode()
        }
        Act::PayOut { token, account } => PaymentEscrow::payOutCall { token: *token, account: *account }.abi_encode(),
        Act::Around(_) => panic!("a call of another contract"),
    }
}

fn group_of(lease: LeaseId, splits: &Splits, claims: &[WireClaim]) -> IPaymentEscrow::LeaseClaims {
    let claims = claims.iter().map(WireClaim::encode).collect();
    IPaymentEscrow::LeaseClaims { leaseId: lease.get(), splits: recipients(splits), claims }
}

fn recipients(splits: &Splits) -> Vec<wire::Split> {
    splits.iter().map(|split| wire::Split { recipient: split.recipient, bps: split.share.get() }).collect()
}

fn on_chain<C: SolValue + From<<C::SolType as SolType>::RustType>>(channel: &Channel) -> C {
    same(&wire::Channel::from(channel)).unwrap()
}

pub(in crate::escrow_model) fn sums(totals: &UsageTotals) -> MerkleSum::Sums {
    MerkleSum::Sums {
        requests: totals.requests,
        promptTokens: totals.prompt_tokens,
        cachedTokens: totals.cached_tokens,
        completionTokens: totals.completion_tokens,
        charge: totals.charge.get(),
    }
}
