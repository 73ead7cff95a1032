//! What a host signs.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use super::{LeaseManager, MessageError, UsageLog, payment::count, wire, word_or_zero, zero_is_none};
use crate::{
    counts::{LaneStep, RequestUsage, UsageCounts, UsageTotals},
    ids::{ChannelId, Epoch, EpochCommitDigest, Lane, LeaseId, StatementDigest},
    units::{Amount, UnixMilliseconds},
};

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model or a stop string ended it.
    Stop,
    /// It reached its longest length.
    Length,
    /// The client went away.
    Cancelled,
    /// The engine failed.
    EngineError,
}

impl FinishReason {
    /// The number that stands for it in a statement.
    pub const fn code(self) -> u8 {
        match self {
            Self::Stop => 1,
            Self::Length => 2,
            Self::Cancelled => 3,
            Self::EngineError => 4,
        }
    }
}

impl TryFrom<u8> for FinishReason {
    type Error = MessageError;

    fn try_from(code: u8) -> Result<Self, MessageError> {
        match code {
            1 => Ok(Self::Stop),
            2 => Ok(Self::Length),
            3 => Ok(Self::Cancelled),
            4 => Ok(Self::EngineError),
            value => Err(MessageError::UnknownValue { what: "finish reason", value }),
        }
    }
}

/// A host's account of one request. It carries the lane's counts before the request, so its charge can be checked alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Statement", into = "wire::Statement")]
pub struct Statement {
    /// The channel that pays; none for a customer who is billed in money.
    pub channel: Option<ChannelId>,
    /// The lease that it was served under.
    pub lease: LeaseId,
    /// The lane.
    pub lane: Lane,
    /// The lane's counts before the request, and what the request used.
    pub step: LaneStep,
    /// Cost after the request less the cost before it.
    pub charge: Amount,
    /// Digest of the request.
    pub request_hash: B256,
    /// Digest of what was delivered.
    pub response_hash: B256,
    /// When the request came.
    pub started: UnixMilliseconds,
    /// When the answer ended. The statement belongs to the epoch of this time.
    pub ended: UnixMilliseconds,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Commitment to activations or to the sampler's seed.
    pub execution: Option<B256>,
    /// The statement before it on the lane.
    pub previous: Option<StatementDigest>,
}

/// A host's report of the statements that ended within one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::EpochCommit", into = "wire::EpochCommit")]
pub struct EpochCommit {
    /// The lease.
    pub lease: LeaseId,
    /// The epoch.
    pub epoch: Epoch,
    /// Root of the [tree](crate::merkle_sum) over the statements; none when there were none.
    pub root: Option<B256>,
    /// Their sums.
    pub totals: UsageTotals,
    /// The lease's report before it.
    pub previous: Option<EpochCommitDigest>,
}

impl From<&Statement> for wire::Statement {
    fn from(statement: &Statement) -> Self {
        let (before, used) = (statement.step.before(), statement.step.usage().counts());
        Self {
            channelId: word_or_zero(statement.channel),
            leaseId: statement.lease.get(),
            lane: statement.lane.get(),
            seq: count(statement.step.after().requests()),
            promptTokensBefore: count(before.prompt().get()),
            cachedTokensBefore: count(before.cached().get()),
            completionTokensBefore: count(before.completion().get()),
            promptTokens: count(used.prompt().get()),
            cachedTokens: count(used.cached().get()),
            completionTokens: count(used.completion().get()),
            charge: statement.charge.get(),
            requestHash: statement.request_hash,
            responseHash: statement.response_hash,
            startedMs: statement.started.get(),
            endedMs: statement.ended.get(),
            finishReason: statement.finish_reason.code(),
            execRoot: word_or_zero(statement.execution),
            previous: word_or_zero(statement.previous),
        }
    }
}

impl TryFrom<wire::Statement> for Statement {
    type Error = MessageError;

    fn try_from(statement: wire::Statement) -> Result<Self, MessageError> {
        let sequence: u64 = statement.seq.saturating_to();
        let before = UsageCounts::new(
            sequence.checked_sub(1).ok_or(MessageError::SequenceZero)?,
            statement.promptTokensBefore.saturating_to(),
            statement.cachedTokensBefore.saturating_to(),
            statement.completionTokensBefore.saturating_to(),
        )?;
        let usage = RequestUsage::new(
            statement.promptTokens.saturating_to(),
            statement.cachedTokens.saturating_to(),
            statement.completionTokens.saturating_to(),
        )?;
        Ok(Self {
            channel: zero_is_none(statement.channelId),
            lease: LeaseId::new(statement.leaseId),
            lane: Lane::new(statement.lane),
            step: LaneStep::new(before, usage)?,
            charge: Amount::new(statement.charge),
            request_hash: statement.requestHash,
            response_hash: statement.responseHash,
            started: UnixMilliseconds::new(statement.startedMs),
            ended: UnixMilliseconds::new(statement.endedMs),
            finish_reason: statement.finishReason.try_into()?,
            execution: zero_is_none(statement.execRoot),
            previous: zero_is_none(statement.previous),
        })
    }
}

impl From<&EpochCommit> for wire::EpochCommit {
    fn from(report: &EpochCommit) -> Self {
        Self {
            leaseId: report.lease.get(),
            epoch: report.epoch.get(),
            root: word_or_zero(report.root),
            requests: report.totals.requests,
            promptTokens: report.totals.prompt_tokens,
            cachedTokens: report.totals.cached_tokens,
            completionTokens: report.totals.completion_tokens,
            charge: report.totals.charge.get(),
            previous: word_or_zero(report.previous),
        }
    }
}

impl TryFrom<wire::EpochCommit> for EpochCommit {
    type Error = MessageError;

    fn try_from(report: wire::EpochCommit) -> Result<Self, MessageError> {
        Ok(Self {
            lease: LeaseId::new(report.leaseId),
            epoch: Epoch::new(report.epoch),
            root: zero_is_none(report.root),
            totals: UsageTotals {
                requests: report.requests,
                prompt_tokens: report.promptTokens,
                cached_tokens: report.cachedTokens,
                completion_tokens: report.completionTokens,
                charge: Amount::new(report.charge),
            },
            previous: zero_is_none(report.previous),
        })
    }
}

super::typed! {
    Statement, LeaseManager, StatementDigest;
    EpochCommit, UsageLog, EpochCommitDigest;
}
