//! What validators sign.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use super::{AuditServiceManager, MessageError, wire};
use crate::ids::{Epoch, LeaseId, TaskId, VerdictDigest};

/// What validators decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Another model answers under the lease.
    Substitution,
    /// A bill does not follow from the delivered bytes.
    TokenCount,
    /// The model is served outside of the protocol.
    OutsideService,
    /// The host's own copy is served by somebody else.
    VariantLeak,
    /// Somebody else made the model.
    Ownership,
}

impl TaskKind {
    /// The number that stands for it in a verdict.
    pub const fn code(self) -> u8 {
        match self {
            Self::Substitution => 1,
            Self::TokenCount => 2,
            Self::OutsideService => 3,
            Self::VariantLeak => 4,
            Self::Ownership => 5,
        }
    }
}

impl TryFrom<u8> for TaskKind {
    type Error = MessageError;

    fn try_from(code: u8) -> Result<Self, MessageError> {
        match code {
            1 => Ok(Self::Substitution),
            2 => Ok(Self::TokenCount),
            3 => Ok(Self::OutsideService),
            4 => Ok(Self::VariantLeak),
            5 => Ok(Self::Ownership),
            value => Err(MessageError::UnknownValue { what: "kind of task", value }),
        }
    }
}

/// What validators decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The accusation holds.
    Guilty,
    /// It does not.
    NotGuilty,
}

impl Outcome {
    /// The number that stands for it in a verdict.
    pub const fn code(self) -> u8 {
        match self {
            Self::Guilty => 1,
            Self::NotGuilty => 2,
        }
    }
}

impl TryFrom<u8> for Outcome {
    type Error = MessageError;

    fn try_from(code: u8) -> Result<Self, MessageError> {
        match code {
            1 => Ok(Self::Guilty),
            2 => Ok(Self::NotGuilty),
            value => Err(MessageError::UnknownValue { what: "outcome", value }),
        }
    }
}

/// What validators found. They sign its digest with BLS keys ([`crate::bls`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Verdict", into = "wire::Verdict")]
pub struct Verdict {
    /// The audit.
    pub task: TaskId,
    /// The lease in question; 0 where the question is who made the model.
    pub lease: LeaseId,
    /// What the audit was about.
    pub kind: TaskKind,
    /// What was decided.
    pub outcome: Outcome,
    /// The evidence, in bits, rounded down.
    pub evidence_bits: u32,
    /// Root over the evidence.
    pub evidence_root: B256,
    /// The epoch in question.
    pub epoch: Epoch,
}

impl From<&Verdict> for wire::Verdict {
    fn from(verdict: &Verdict) -> Self {
        Self {
            taskId: verdict.task.get(),
            leaseId: verdict.lease.get(),
            kind: verdict.kind.code(),
            outcome: verdict.outcome.code(),
            eValueLog2: verdict.evidence_bits,
            evidenceRoot: verdict.evidence_root,
            epoch: verdict.epoch.get(),
        }
    }
}

impl TryFrom<wire::Verdict> for Verdict {
    type Error = MessageError;

    fn try_from(verdict: wire::Verdict) -> Result<Self, MessageError> {
        Ok(Self {
            task: TaskId::new(verdict.taskId),
            lease: LeaseId::new(verdict.leaseId),
            kind: verdict.kind.try_into()?,
            outcome: verdict.outcome.try_into()?,
            evidence_bits: verdict.eValueLog2,
            evidence_root: verdict.evidenceRoot,
            epoch: Epoch::new(verdict.epoch),
        })
    }
}

super::typed! {
    Verdict, AuditServiceManager, VerdictDigest;
}
