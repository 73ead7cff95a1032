//! Whoever holds a statement may ask on the chain where it is reported. A host that is silent is taken for one that hid it.

use alloy::{rpc::types::Filter, sol_types::SolEvent as _};
use alloy_primitives::{B256, U256};
use licensing_contracts::{actions::audit, bindings::EvidenceCourt};
use protocol::{ids::StatementDigest, merkle_sum::MerkleSumTree};

use super::{Settlement, SettlementError, reports::work};

/// Blocks that are looked through once more each time: they may have been replaced, or the node was behind.
const AGAIN: u64 = 64;

impl Settlement {
    /// Answers every open demand for a statement of ours.
    pub(super) async fn answer_challenges(&mut self) -> Result<(), SettlementError> {
        let chain = self.metering.chain().clone();
        // After a start from the beginning: a demand may have been open for long.
        let from = self.looked_until.map_or(chain.deployment().block, |until| until.saturating_sub(AGAIN));
        let leases = self.leases.iter().map(|lease| B256::from(U256::from(lease.served.id.get())));
        let filter = Filter::new()
            .address(chain.deployment().evidence_court)
            .event_signature(EvidenceCourt::InclusionChallenged::SIGNATURE_HASH)
            .topic2(leases.collect::<Vec<_>>());
        let (logs, until) = self.events("demands of statements", &filter, from).await?;
        let asked_for = logs.iter().filter_map(|log| log.topics().get(1).copied());
        self.asked_for.extend(asked_for.map(StatementDigest::from));
        self.looked_until = Some(until);
        // One that cannot be answered must not keep the others from being: silence is punished.
        let mut failure = Ok(());
        for digest in self.asked_for.clone() {
            match self.answer(digest).await {
                Ok(()) => {
                    self.asked_for.remove(&digest);
                }
                Err(error) => failure = Err(error),
            }
        }
        failure
    }

    async fn answer(&mut self, digest: StatementDigest) -> Result<(), SettlementError> {
        let chain = self.metering.chain().clone();
        let (court, call) = (
            chain.deployment().evidence_court,
            EvidenceCourt::inclusionChallengeCall { statementDigest: digest.word() },
        );
        if !chain.client().call(court, &call).await?.open {
            return Ok(());
        }
        let books = self.metering.books();
        let Some((lease, position)) = books.report_of(digest).await? else {
            tracing::error!(statement = %digest, "statement {digest} is asked for and is in no report of this host");
            return Ok(());
        };
        let leaves = books.leaves(lease, position).await?;
        let proof = tokio::task::spawn_blocking(move || MerkleSumTree::new(leaves)?.prove_inclusion(digest)).await;
        let proof = proof.map_err(SettlementError::make("a proof"))?.map_err(SettlementError::make("a proof"))?;
        let action = audit::answer_inclusion(chain.deployment(), digest, position, &proof);
        let action = action.map_err(SettlementError::make("a proof"))?;
        let work = work(&digest.to_string(), lease.get(), position);
        self.act(work, &action).await?;
        self.sender.finish(work)?;
        Ok(())
    }
}
