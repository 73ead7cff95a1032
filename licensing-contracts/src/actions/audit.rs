//! What hosts answer when they are asked.

use protocol::{
    ids::StatementDigest,
    merkle_sum::{
        InclusionProof,
        wire::{SumLeaf, SumSibling},
    },
};

use crate::{
    bindings::{EvidenceCourt, same},
    client::Action,
    deployment::Deployment,
};

/// Shows a statement in a report, with the report's place among the lease's.
pub fn answer_inclusion(
    to: &Deployment,
    statement: StatementDigest,
    position: u64,
    proof: &InclusionProof,
) -> Result<Action, alloy::sol_types::Error> {
    let call = EvidenceCourt::answerInclusionCall {
        statementDigest: statement.word(),
        reportIndex: alloy::primitives::U256::from(position),
        leaf: same(&SumLeaf::from(proof.leaf))?,
        path: proof.path.iter().map(|sibling| same(&SumSibling::from(*sibling))).collect::<Result<_, _>>()?,
    };
    Ok(Action::call(format!("proof that statement {statement} is in report {position}"), to.evidence_court, &call))
}
