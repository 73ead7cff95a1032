//! Why the audit refuses a call.

use alloy_primitives::Address;

use super::{Fault, LeaseState};
use crate::{
    ids::{ChannelId, Epoch, LeaseId, StatementDigest, TaskId},
    merkle_sum::MerkleSumError,
    messages::TaskKind,
    signature::SignatureError,
    units::{Amount, StakeWeight, UnixSeconds},
};

/// Why the audit refuses a call. The variants have the names of the contracts' errors ([`Self::name`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Asking and accusing have a price.
    #[error("the bond is {expected}, and {actual} came with the call")]
    WrongBond {
        /// What it costs.
        expected: Amount,
        /// What came.
        actual: Amount,
    },
    /// No bond waits for this account.
    #[error("nothing is owed to {account}")]
    NothingOwed {
        /// The account.
        account: Address,
    },
    /// Nobody opened this lease.
    #[error("there is no lease {lease}")]
    UnknownLease {
        /// The lease.
        lease: LeaseId,
    },
    /// The statement is not signed as it should be.
    #[error("failed to check a statement's signature")]
    Signature(#[from] SignatureError),
    /// The host may still report the epoch unasked.
    #[error("statements of this epoch can be demanded from {from} on")]
    NotChallengeable {
        /// From when.
        from: UnixSeconds,
    },
    /// A statement is asked for once.
    #[error("statement {statement} was asked for before")]
    AlreadyChallenged {
        /// The statement.
        statement: StatementDigest,
    },
    /// Nobody asks for this statement, or no longer.
    #[error("statement {statement} is not asked for")]
    NoChallenge {
        /// The statement.
        statement: StatementDigest,
    },
    /// Another leaf than the statement's.
    #[error("the leaf is not that of statement {statement}")]
    LeafMismatch {
        /// The statement.
        statement: StatementDigest,
    },
    /// The lease has not so many reports.
    #[error("lease {lease} has no report {number}")]
    UnknownReport {
        /// The lease.
        lease: LeaseId,
        /// Number of the report, from 0.
        number: usize,
    },
    /// A report of another epoch, or none where there is one.
    #[error("a report of epoch {actual} stands where epoch {expected} is in question")]
    WrongEpoch {
        /// The epoch in question.
        expected: Epoch,
        /// The report's epoch.
        actual: Epoch,
    },
    /// An omission does not become a delay.
    #[error("the report was made at {committed_at}, after the question at {challenged_at}")]
    ReportedAfterChallenge {
        /// When it was asked.
        challenged_at: UnixSeconds,
        /// When it was reported.
        committed_at: UnixSeconds,
    },
    /// The path through the tree shows nothing.
    #[error("failed to check a proof of a report's tree")]
    Tree(#[from] MerkleSumError),
    /// Somebody else still has time.
    #[error("this is for after {from}")]
    TooEarly {
        /// After when.
        from: UnixSeconds,
    },
    /// Once is enough.
    #[error("{fault:?} was punished before")]
    AlreadyPunished {
        /// What for.
        fault: Fault,
    },
    /// It ended, or will have ended soon.
    #[error("the statement ended at {ended}, which is not in the future")]
    NotPostdated {
        /// When.
        ended: UnixSeconds,
    },
    /// Both can be true.
    #[error("the two do not contradict each other")]
    NoContradiction,
    /// The prices give this charge.
    #[error("the prices give the charge of {charge}")]
    ChargeIsRight {
        /// The charge.
        charge: Amount,
    },
    /// Not the channel of the bill.
    #[error("the bill is of channel {expected} and not of {actual}")]
    WrongChannel {
        /// The bill's.
        expected: ChannelId,
        /// What was given.
        actual: ChannelId,
    },
    /// Not what a host can be accused of.
    #[error("no host is accused of {kind:?}")]
    WrongKind {
        /// The kind.
        kind: TaskKind,
    },
    /// The time is over.
    #[error("this was possible until {deadline}")]
    TooLate {
        /// Until when.
        deadline: UnixSeconds,
    },
    /// No such audit.
    #[error("there is no task {task}")]
    UnknownTask {
        /// The task.
        task: TaskId,
    },
    /// The verdict is on another lease or question, or says what is decided already.
    #[error("the verdict is not one that this task waits for")]
    VerdictMismatch,
    /// It is over.
    #[error("the task is closed")]
    TaskClosed,
    /// Each is named once, in order.
    #[error("non-signer {number} is named after {previous}")]
    NonSignerOrder {
        /// The one before.
        previous: u32,
        /// This one.
        number: u32,
    },
    /// Not what the validator of this number is.
    #[error("non-signer {number} is not as it is named")]
    NonSignerUnknown {
        /// Its number.
        number: u32,
    },
    /// Not enough stake signed.
    #[error("{signed} of {total} signed")]
    QuorumMissed {
        /// Weight of those who signed.
        signed: StakeWeight,
        /// Weight of all.
        total: StakeWeight,
    },
    /// Not signed by those who are said to have signed.
    #[error("the signature does not fit the keys of those who signed")]
    AggregateSignature,
    /// Not an active validator, or not one that ever was.
    #[error("{operator} is no validator")]
    NotValidator {
        /// The operator.
        operator: Address,
    },
    /// It has been punished for this task.
    #[error("{operator} was punished for two verdicts on task {task}")]
    ConflictPunished {
        /// The operator.
        operator: Address,
        /// The task.
        task: TaskId,
    },
    /// It is one.
    #[error("{operator} is a validator")]
    AlreadyValidator {
        /// The operator.
        operator: Address,
    },
    /// The key is or was another operator's.
    #[error("the key belongs to another validator")]
    KeyTaken,
    /// It has another one, and always will.
    #[error("{operator} has another key")]
    OtherKey {
        /// The operator.
        operator: Address,
    },
    /// It left too long ago, or was never a member.
    #[error("{operator} cannot be slashed")]
    NotSlashable {
        /// The operator.
        operator: Address,
    },
    /// The key is not shown to be held.
    #[error("failed to check that the key is held")]
    ProofOfPossession,
    /// A place among the validators has a price.
    #[error("a validator weighs {least} at least, not {actual}")]
    WeightTooSmall {
        /// The least.
        least: StakeWeight,
        /// What it weighs.
        actual: StakeWeight,
    },
    /// Only the lease's host may.
    #[error("{actual} is not the host {expected}")]
    NotHost {
        /// The host.
        expected: Address,
        /// The caller.
        actual: Address,
    },
    /// The lease is not as it must be for this.
    #[error("the lease is {actual:?} and not {expected:?}")]
    WrongState {
        /// How it must be.
        expected: LeaseState,
        /// How it is.
        actual: LeaseState,
    },
    /// It has ended.
    #[error("the lease ended at {ended_at}")]
    LeaseOver {
        /// When.
        ended_at: UnixSeconds,
    },
    /// There is no reason to suspend the lease.
    #[error("the lease's collateral is enough")]
    CollateralIsEnough,
    /// Less than the terms ask for.
    #[error("the bond is {actual} and must be {least}")]
    BondTooSmall {
        /// The least.
        least: Amount,
        /// What it is.
        actual: Amount,
    },
    /// Less than the terms ask for, or not for this set.
    #[error("the restaked allocation is {actual} and must be {least}, in the hosts' set")]
    RestakeTooSmall {
        /// The least.
        least: StakeWeight,
        /// What it is.
        actual: StakeWeight,
    },
    /// It can still be demanded.
    #[error("the bond is held until {until}")]
    BondLocked {
        /// Until when.
        until: UnixSeconds,
    },
    /// It may be demanded yet.
    #[error("{open} questions and accusations are open")]
    CasesOpen {
        /// How many.
        open: u64,
    },
    /// The creator has not been paid for all that was reported.
    #[error("a royalty of {owed} is owed")]
    RoyaltyOwed {
        /// How much.
        owed: Amount,
    },
    /// A sum does not fit.
    #[error("a sum of {what} does not fit")]
    Overflow {
        /// Of what.
        what: &'static str,
    },
}

impl AuditError {
    /// Name of the error that the contracts revert with; `Panic` where their arithmetic does.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WrongBond { .. } => "WrongBond",
            Self::NothingOwed { .. } => "NothingOwed",
            Self::UnknownLease { .. } => "UnknownLease",
            Self::Signature(error) => match error {
                SignatureError::Length { .. } => "SignatureLength",
                SignatureError::HighS => "SignatureHighS",
                SignatureError::WrongSigner { .. } | SignatureError::ZeroAddress => "WrongSigner",
                _ => "SignatureMalformed",
            },
            Self::NotChallengeable { .. } => "NotChallengeable",
            Self::AlreadyChallenged { .. } => "AlreadyChallenged",
            Self::NoChallenge { .. } => "NoChallenge",
            Self::LeafMismatch { .. } => "LeafMismatch",
            Self::UnknownReport { .. } => "UnknownReport",
            Self::WrongEpoch { .. } => "WrongEpoch",
            Self::ReportedAfterChallenge { .. } => "ReportedAfterChallenge",
            Self::Tree(error) => match error {
                MerkleSumError::WrongTotals { .. } => "WrongTotals",
                MerkleSumError::WrongRoot { .. } => "WrongRoot",
                MerkleSumError::Included { .. } => "Included",
                MerkleSumError::WrongNeighbourCount { .. } => "WrongNeighbourCount",
                MerkleSumError::NotAdjacent { .. } => "NotAdjacent",
                MerkleSumError::NotBetween { .. } => "NotBetween",
                MerkleSumError::NotFirst { .. } => "NotFirst",
                MerkleSumError::NotLast { .. } => "NotLast",
                // The others are of building a tree.
                _ => "SumOverflow",
            },
            Self::TooEarly { .. } => "TooEarly",
            Self::AlreadyPunished { .. } => "AlreadyPunished",
            Self::NotPostdated { .. } => "NotPostdated",
            Self::NoContradiction => "NoContradiction",
            Self::ChargeIsRight { .. } => "ChargeIsRight",
            Self::WrongChannel { .. } => "WrongChannel",
            Self::WrongKind { .. } => "WrongKind",
            Self::TooLate { .. } => "TooLate",
            Self::UnknownTask { .. } => "UnknownTask",
            Self::VerdictMismatch => "VerdictMismatch",
            Self::TaskClosed => "WrongTaskState",
            Self::NonSignerOrder { .. } => "NonSignerOrder",
            Self::NonSignerUnknown { .. } => "NonSignerUnknown",
            Self::QuorumMissed { .. } => "QuorumMissed",
            Self::AggregateSignature => "AggregateSignature",
            Self::NotValidator { .. } => "NotValidator",
            Self::ConflictPunished { .. } => "ConflictPunished",
            Self::AlreadyValidator { .. } => "AlreadyValidator",
            Self::OtherKey { .. } => "OtherKey",
            Self::NotSlashable { .. } => "NotSlashable",
            Self::KeyTaken => "KeyTaken",
            Self::ProofOfPossession => "ProofOfPossession",
            Self::WeightTooSmall { .. } => "WeightTooSmall",
            Self::NotHost { .. } => "NotHost",
            Self::WrongState { .. } => "WrongState",
            Self::LeaseOver { .. } => "LeaseOver",
            Self::CollateralIsEnough => "CollateralIsEnough",
            Self::BondTooSmall { .. } => "BondTooSmall",
            Self::RestakeTooSmall { .. } => "RestakeTooSmall",
            Self::BondLocked { .. } => "BondLocked",
            Self::CasesOpen { .. } => "CasesOpen",
            Self::RoyaltyOwed { .. } => "RoyaltyOwed",
            Self::Overflow { .. } => "Panic",
        }
    }
}
