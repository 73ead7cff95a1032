//! One call: what it does to the contracts, and what to the model.

use alloy::{
    primitives::{Address, B256, LogData, U256, aliases::U48},
    sol_types::{SolEvent as _, SolValue as _},
};
use licensing_contracts::bindings::{PaymentEscrow, escrow::IPaymentEscrow};
use protocol::{
    counts::UsageTotals,
    escrow::{Call, EscrowError, LeaseClaims, Payment, Report, Surroundings as _},
    ids::{ChainId, Epoch, Lane, LeaseId},
    messages::{Channel, Domain, EpochCommit, Message as _, SessionGrant},
    splits::Splits,
    units::{Amount, Seconds, UnixSeconds},
};

pub(super) use self::encode::{WireClaim, sums};
use super::world::{CLAIM_DELAY, EPOCH, World, model_of};

mod encode;

/// A call, so and so much after the one before it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) after: Seconds,
    pub(super) by: &'static str,
    pub(super) act: Act,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Deposit {
        channel: Channel,
        amount: Amount,
    },
    /// A plain transfer to the channel's address, and booking it.
    Collect {
        channel: Channel,
        amount: Amount,
    },
    Announce {
        channel: Channel,
        amount: Amount,
    },
    Cancel {
        channel: Channel,
    },
    Withdraw {
        channel: Channel,
    },
    Release {
        channel: Channel,
        amount: Amount,
    },
    Grant {
        channel: Channel,
        grant: SessionGrant,
        signature: Vec<u8>,
    },
    Revoke {
        channel: Channel,
        key: Address,
    },
    Claim {
        batch: Vec<LeaseClaims>,
    },
    /// A claim with numbers that no message here can have.
    Nonsense {
        lease: LeaseId,
        splits: Splits,
        claim: Box<WireClaim>,
    },
    Settle {
        lease: LeaseId,
        used: UsageTotals,
        splits: Splits,
    },
    Enforce {
        lease: LeaseId,
        report: usize,
        splits: Splits,
    },
    Credit {
        token: Address,
        account: Address,
        amount: Amount,
    },
    PayOut {
        token: Address,
        account: Address,
    },
    /// What other contracts do, to which the escrow looks.
    Around(Around),
}

#[derive(Clone, Debug)]
pub(super) enum Around {
    Report { lease: LeaseId, root: B256, totals: UsageTotals },
    Close { lease: LeaseId },
    AddBond { lease: LeaseId, amount: Amount },
    Sell { model: usize, to: &'static str },
}

impl Act {
    /// Under which name successes are counted.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Deposit { .. } => "deposit",
            Self::Collect { .. } => "collectDeposit",
            Self::Announce { .. } => "initiateWithdraw",
            Self::Cancel { .. } => "cancelWithdraw",
            Self::Withdraw { .. } => "withdraw",
            Self::Release { .. } => "release",
            Self::Grant { .. } => "registerGrant",
            Self::Revoke { .. } => "revokeGrant",
            Self::Claim { .. } => "claimBatch",
            Self::Nonsense { .. } => "claimBatch of nonsense",
            Self::Settle { .. } => "settleRoyalty",
            Self::Enforce { .. } => "enforceRoyalty",
            Self::Credit { .. } => "credit",
            Self::PayOut { .. } => "payOut",
            Self::Around(Around::Report { .. }) => "report",
            Self::Around(Around::Close { .. }) => "close",
            Self::Around(Around::AddBond { .. }) => "addBond",
            Self::Around(Around::Sell { .. }) => "sell",
        }
    }
}

impl World {
    /// The report of the epoch that ended last.
    fn report(&self, lease: LeaseId, root: B256, totals: UsageTotals) -> EpochCommit {
        let epoch = Epoch::new(self.chain.now().get() / EPOCH - 1);
        let previous = self.others.last_reports.get(&lease).copied();
        EpochCommit { lease, epoch, root: Some(root), totals, previous }
    }

    /// What the model says that the contracts do: what they return and tell of claims, or why they refuse.
    pub(super) fn supposedly(&mut self, step: &Step) -> Result<(Vec<u8>, Vec<LogData>), EscrowError> {
        if let Act::Claim { batch } = &step.act {
            let call = Call { caller: self.account(step.by), now: self.chain.now() };
            let payments = self.escrow.claim_batch(call, &self.others, batch)?;
            let paid: u128 = payments.iter().map(|payment| payment.cost.get()).sum();
            let lanes = batch.iter().flat_map(|group| &group.claims).map(|claim| claim.voucher.lane);
            let told = payments.iter().zip(lanes).map(|(payment, lane)| claimed(payment, lane));
            return Ok((U256::from(paid).abi_encode(), told.collect()));
        }
        self.call_model(step).map(|output| (output, Vec::new()))
    }

    fn call_model(&mut self, step: &Step) -> Result<Vec<u8>, EscrowError> {
        let call = Call { caller: self.account(step.by), now: self.chain.now() };
        let Self { escrow, others, .. } = self;
        let nothing = |()| Vec::new();
        let amount = |amount: Amount| U256::from(amount.get()).abi_encode();
        match &step.act {
            Act::Deposit { channel, amount } => escrow.deposit(channel, *amount).map(|id| id.word().abi_encode()),
            Act::Collect { channel, amount: sent } => escrow.deposit(channel, *sent).map(|_| amount(*sent)),
            Act::Announce { channel, amount } => escrow.initiate_withdraw(call, channel, *amount).map(nothing),
            Act::Cancel { channel } => escrow.cancel_withdraw(call, channel).map(nothing),
            Act::Withdraw { channel } => escrow.withdraw(call, channel).map(amount),
            Act::Release { channel, amount } => escrow.release(call, channel, *amount).map(nothing),
            Act::Grant { channel, grant, signature } => {
                escrow.register_grant(call, others, channel, grant, signature).map(nothing)
            }
            Act::Revoke { channel, key } => escrow.revoke_grant(call, channel, *key).map(nothing),
            Act::Claim { .. } | Act::Nonsense { .. } => panic!("not asked in this way"),
            Act::Settle { lease, used, splits } => {
                escrow.settle_royalty(call, others, *lease, used, splits).map(amount)
            }
            Act::Enforce { lease, report, splits } => {
                let report = others.reports.get(lease).map_or(NO_REPORT, |reports| reports[*report]);
                let bond = others.bonds.get(lease).copied().unwrap_or_default();
                let enforced = escrow.enforce_royalty(call, others, *lease, &report, bond, splits)?;
                others.bonds.insert(*lease, bond.saturating_sub(enforced.collected));
                others.suspended.insert(*lease, true);
                Ok(amount(enforced.collected))
            }
            Act::Credit { token, account, amount } => escrow.credit(*token, *account, *amount).map(nothing),
            Act::PayOut { token, account } => escrow.pay_out(*token, *account).map(amount),
            Act::Around(around) => {
                let around = around.clone();
                Ok(self.note(&around))
            }
        }
    }

    /// What the others say from now on; and what the call returns.
    fn note(&mut self, around: &Around) -> Vec<u8> {
        let now = self.chain.now();
        match around {
            Around::Report { lease, root, totals } => {
                let report = self.report(*lease, *root, *totals);
                let cumulative = self.others.reported(*lease).checked_add(*totals).unwrap();
                let log = Domain::new(ChainId::new(self.chain.to().chain_id), self.chain.to().usage_log);
                self.others.last_reports.insert(*lease, report.digest(&log));
                let reports = self.others.reports.entry(*lease).or_default();
                reports.push(Report { committed_at: now, cumulative });
                U256::from(reports.len() - 1).abi_encode()
            }
            Around::Close { lease } => {
                let claimable_until = UnixSeconds::new(now.get() + CLAIM_DELAY);
                self.others.leases.get_mut(lease).unwrap().claimable_until = claimable_until;
                Vec::new()
            }
            Around::AddBond { lease, amount } => {
                let bond = self.others.bonds.get_mut(lease).unwrap();
                *bond = bond.checked_add(*amount).unwrap();
                Vec::new()
            }
            Around::Sell { model, to } => {
                let buyer = self.account(to);
                let leases = self.others.leases.iter_mut().filter(|(lease, _)| model_of(**lease) == *model);
                leases.for_each(|(_, account)| account.creator = buyer);
                Vec::new()
            }
        }
    }
}

/// What the escrow tells of a claim.
fn claimed(payment: &Payment, lane: Lane) -> LogData {
    let (counts, lease) = (payment.lane.counts, payment.lane.lease.get());
    let count = |value: u64| U48::from(value);
    PaymentEscrow::Claimed {
        channelId: payment.channel.word(),
        leaseId: lease,
        lane: lane.get(),
        counts: IPaymentEscrow::Lane {
            leaseId: lease,
            requests: count(counts.requests()),
            promptTokens: count(counts.prompt().get()),
            cachedTokens: count(counts.cached().get()),
            completionTokens: count(counts.completion().get()),
        },
        cost: U256::from(payment.cost.get()),
        royalty: U256::from(payment.royalty.get()),
        validatorShare: U256::from(payment.validators.get()),
        statement: payment.statement.map(|digest| digest.word()).unwrap_or_default(),
    }
    .encode_log_data()
}

/// Of a lease that nobody opened.
const NO_REPORT: Report = Report { committed_at: UnixSeconds::new(0), cumulative: UsageTotals::ZERO };
