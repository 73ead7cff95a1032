//! Why the escrow refuses a call.

use alloy_primitives::{Address, B256};

use crate::{
    counts::{CountError, UsageTotals},
    ids::{ChannelId, Lane, LeaseId, SplitRoot, StatementDigest},
    money::MoneyError,
    signature::SignatureError,
    units::{Amount, Seconds, UnixSeconds},
};

/// Why the escrow refuses a call. The variants have the names of the contract's errors ([`Self::name`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EscrowError {
    /// An address or an amount that may not be zero.
    #[error("an address or an amount is zero")]
    Zero,
    /// Too short for hosts to claim in time, or longer than anybody should wait.
    #[error("a withdrawal takes {least} to {longest} seconds, not {actual}")]
    WithdrawDelay {
        /// Twice the claim interval.
        least: Seconds,
        /// The longest.
        longest: Seconds,
        /// The channel's.
        actual: Seconds,
    },
    /// Only the channel's payer may.
    #[error("{actual} is not the payer {expected}")]
    NotPayer {
        /// The payer.
        expected: Address,
        /// The caller.
        actual: Address,
    },
    /// Only the host may.
    #[error("{actual} is not the host {expected}")]
    NotHost {
        /// The host.
        expected: Address,
        /// The caller, or another host.
        actual: Address,
    },
    /// The lease is paid in another token.
    #[error("the lease is paid in {expected} and not in {actual}")]
    WrongToken {
        /// The lease's token.
        expected: Address,
        /// The channel's token.
        actual: Address,
    },
    /// Signed for another channel.
    #[error("signed for another channel than {expected}")]
    WrongChannel {
        /// The channel at hand.
        expected: ChannelId,
        /// The channel of the message; none: a customer billed in money.
        actual: Option<ChannelId>,
    },
    /// Signed for another lease, or a lane that belongs to another one.
    #[error("belongs to the lease {actual} and not to {expected}")]
    WrongLease {
        /// Where it belongs.
        expected: LeaseId,
        /// What was tried.
        actual: LeaseId,
    },
    /// A statement of another lane.
    #[error("the statement is of the lane {actual} and not of {expected}")]
    WrongLane {
        /// The voucher's lane.
        expected: Lane,
        /// The statement's.
        actual: Lane,
    },
    /// Not the recipients that the terms name.
    #[error("the recipients are not those of the terms")]
    WrongSplits {
        /// The terms' digest.
        expected: Option<SplitRoot>,
        /// The digest of what was given.
        actual: Option<SplitRoot>,
    },
    /// The deposit is not enough.
    #[error("{needed} are needed and {available} are deposited")]
    InsufficientDeposit {
        /// What is there and unspent.
        available: Amount,
        /// What is needed.
        needed: Amount,
    },
    /// There is no announced withdrawal.
    #[error("no withdrawal is announced")]
    NothingAnnounced,
    /// Hosts still have time to claim.
    #[error("the withdrawal is free from {withdrawable_at} on")]
    WithdrawalTooEarly {
        /// From when.
        withdrawable_at: UnixSeconds,
    },
    /// Nobody allowed this key to sign.
    #[error("the key {key} has no grant on the channel {channel}")]
    UnknownGrant {
        /// The channel.
        channel: ChannelId,
        /// The key.
        key: Address,
    },
    /// Not newer than the grant that is there.
    #[error("the grant's nonce {actual} is not above {current}")]
    GrantNonce {
        /// Nonce of the grant that is there.
        current: u64,
        /// Nonce of the new one.
        actual: u64,
    },
    /// Vouchers that are out could no longer be claimed.
    #[error("a later grant may not narrow the one before it")]
    GrantReduced,
    /// No longer, or not even at first.
    #[error("the grant ended at {expired_at}")]
    GrantExpired {
        /// When.
        expired_at: UnixSeconds,
    },
    /// The key has spent what it may.
    #[error("the key may spend {cap} and would have spent {needed}")]
    GrantCapExceeded {
        /// What it may spend in all.
        cap: Amount,
        /// What it would have spent.
        needed: Amount,
    },
    /// The key may not promise so much for one request.
    #[error("the key may promise {per_request_cap} for a request and promised {ceiling}")]
    RequestCapExceeded {
        /// What it may promise.
        per_request_cap: Amount,
        /// What it promised.
        ceiling: Amount,
    },
    /// Too late.
    #[error("the voucher expired at {expired_at}")]
    VoucherExpired {
        /// When.
        expired_at: UnixSeconds,
    },
    /// Nothing new to claim.
    #[error("the voucher's {requests} requests are not more than the {claimed} that are claimed")]
    NotNewer {
        /// Requests claimed on the lane.
        claimed: u64,
        /// Requests of the claim.
        requests: u64,
    },
    /// The request in flight cost more than the payer promised.
    #[error("the request in flight costs {cost}, and {ceiling} were promised")]
    CeilingExceeded {
        /// What was promised.
        ceiling: Amount,
        /// What it costs.
        cost: Amount,
    },
    /// The statement does not follow the last one that the payer accepted.
    #[error("the statement does not follow the last accepted one")]
    StatementOutOfOrder {
        /// What the voucher names.
        expected: Option<StatementDigest>,
        /// What the statement names.
        actual: Option<StatementDigest>,
    },
    /// The statement does not begin where the voucher ends.
    #[error("the statement does not begin at the voucher's counts")]
    StatementCounts,
    /// The prices give another charge.
    #[error("the statement charges {actual}, and the prices give {expected}")]
    StatementCharge {
        /// By the prices.
        expected: Amount,
        /// By the statement.
        actual: Amount,
    },
    /// Nobody opened this lease.
    #[error("there is no lease {lease}")]
    UnknownLease {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease has been over for too long.
    #[error("the lease could be claimed under until {until}")]
    LeaseNotClaimable {
        /// Until when.
        until: UnixSeconds,
    },
    /// A lease is never paid for more than it reported.
    #[error("use of {settled:?} would be paid, and {reported:?} is reported")]
    MoreThanReported {
        /// What was reported.
        reported: UsageTotals,
        /// What would be paid for.
        settled: UsageTotals,
    },
    /// Everything is paid.
    #[error("no royalty is owed")]
    NothingOwed,
    /// The host still has time to pay.
    #[error("the royalty is due at {due_at}")]
    NotDue {
        /// From when it can be collected.
        due_at: UnixSeconds,
    },
    /// Nothing to take out.
    #[error("{account} has no balance in {token}")]
    NothingToPay {
        /// The token.
        token: Address,
        /// The account.
        account: Address,
    },
    /// Not signed as it should be.
    #[error("failed to check a signature")]
    Signature(#[from] SignatureError),
    /// The wallet contract refused the signature.
    #[error("the wallet {wallet} refuses the signature over {digest}")]
    WalletRefused {
        /// The wallet.
        wallet: Address,
        /// What was to be signed.
        digest: B256,
    },
    /// Counts or prices that give no payment.
    #[error("failed to work out a payment")]
    Money(#[from] MoneyError),
    /// A sum does not fit.
    #[error("a sum of {what} does not fit")]
    Overflow {
        /// Of what.
        what: &'static str,
    },
}

impl EscrowError {
    /// Name of the error that the contract reverts with; `Panic` where its arithmetic does.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Zero => "Zero",
            Self::WithdrawDelay { .. } => "WithdrawDelay",
            Self::NotPayer { .. } => "NotPayer",
            Self::NotHost { .. } => "NotHost",
            Self::WrongToken { .. } => "WrongToken",
            Self::WrongChannel { .. } => "WrongChannel",
            Self::WrongLease { .. } => "WrongLease",
            Self::WrongLane { .. } => "WrongLane",
            Self::WrongSplits { .. } => "WrongSplits",
            Self::InsufficientDeposit { .. } => "InsufficientDeposit",
            Self::NothingAnnounced => "NothingAnnounced",
            Self::WithdrawalTooEarly { .. } => "WithdrawalTooEarly",
            Self::UnknownGrant { .. } => "UnknownGrant",
            Self::GrantNonce { .. } => "GrantNonce",
            Self::GrantReduced => "GrantReduced",
            Self::GrantExpired { .. } => "GrantExpired",
            Self::GrantCapExceeded { .. } => "GrantCapExceeded",
            Self::RequestCapExceeded { .. } => "RequestCapExceeded",
            Self::VoucherExpired { .. } => "VoucherExpired",
            Self::NotNewer { .. } => "NotNewer",
            Self::CeilingExceeded { .. } => "CeilingExceeded",
            Self::StatementOutOfOrder { .. } => "StatementOutOfOrder",
            Self::StatementCounts => "StatementCounts",
            Self::StatementCharge { .. } => "StatementCharge",
            Self::UnknownLease { .. } => "UnknownLease",
            Self::LeaseNotClaimable { .. } => "LeaseNotClaimable",
            Self::MoreThanReported { .. } => "MoreThanReported",
            Self::NothingOwed => "NothingOwed",
            Self::NotDue { .. } => "NotDue",
            Self::NothingToPay { .. } => "NothingToPay",
            Self::WalletRefused { .. } => "WalletRefused",
            Self::Signature(error) => match error {
                SignatureError::Length { .. } => "SignatureLength",
                SignatureError::HighS => "SignatureHighS",
                SignatureError::WrongSigner { .. } | SignatureError::ZeroAddress => "WrongSigner",
                _ => "SignatureMalformed",
            },
            Self::Money(error) => match error {
                MoneyError::CostTooLarge { .. } => "CostTooLarge",
                MoneyError::Counts(CountError::Decrease { .. }) => "CountsDecrease",
                _ => "Panic",
            },
            Self::Overflow { .. } => "Panic",
        }
    }
}
