//! Proofs as `MerkleSum.sol` takes them.

use alloy_sol_types::sol;

use super::{AbsenceProof, InclusionProof, Leaf, Sibling};
use crate::{counts::UsageTotals, units::Amount};

sol! {
    /// What lies below a node.
    #[derive(Debug, PartialEq, Eq)]
    struct Sums {
        uint64 requests;
        uint64 promptTokens;
        uint64 cachedTokens;
        uint64 completionTokens;
        uint128 charge;
    }

    /// One statement.
    #[derive(Debug, PartialEq, Eq)]
    struct SumLeaf {
        bytes32 digest;
        uint64 promptTokens;
        uint64 cachedTokens;
        uint64 completionTokens;
        uint128 charge;
    }

    /// A node beside the path from a leaf to the root.
    #[derive(Debug, PartialEq, Eq)]
    struct SumSibling {
        bytes32 hash;
        Sums sums;
        bool left;
    }

    /// A leaf with its path, from the leaf's level upwards.
    #[derive(Debug, PartialEq, Eq)]
    struct Neighbour {
        SumLeaf leaf;
        SumSibling[] path;
    }
}

impl From<UsageTotals> for Sums {
    fn from(totals: UsageTotals) -> Self {
        Self {
            requests: totals.requests,
            promptTokens: totals.prompt_tokens,
            cachedTokens: totals.cached_tokens,
            completionTokens: totals.completion_tokens,
            charge: totals.charge.get(),
        }
    }
}

impl From<Sums> for UsageTotals {
    fn from(sums: Sums) -> Self {
        Self {
            requests: sums.requests,
            prompt_tokens: sums.promptTokens,
            cached_tokens: sums.cachedTokens,
            completion_tokens: sums.completionTokens,
            charge: Amount::new(sums.charge),
        }
    }
}

impl From<Leaf> for SumLeaf {
    fn from(leaf: Leaf) -> Self {
        Self {
            digest: leaf.digest.word(),
            promptTokens: leaf.prompt_tokens,
            cachedTokens: leaf.cached_tokens,
            completionTokens: leaf.completion_tokens,
            charge: leaf.charge.get(),
        }
    }
}

impl From<SumLeaf> for Leaf {
    fn from(leaf: SumLeaf) -> Self {
        Self {
            digest: leaf.digest.into(),
            prompt_tokens: leaf.promptTokens,
            cached_tokens: leaf.cachedTokens,
            completion_tokens: leaf.completionTokens,
            charge: Amount::new(leaf.charge),
        }
    }
}

impl From<Sibling> for SumSibling {
    fn from(sibling: Sibling) -> Self {
        Self { hash: sibling.hash, sums: sibling.sums.into(), left: sibling.left }
    }
}

impl From<SumSibling> for Sibling {
    fn from(sibling: SumSibling) -> Self {
        Self { hash: sibling.hash, sums: sibling.sums.into(), left: sibling.left }
    }
}

impl From<InclusionProof> for Neighbour {
    fn from(proof: InclusionProof) -> Self {
        Self { leaf: proof.leaf.into(), path: proof.path.into_iter().map(Into::into).collect() }
    }
}

impl From<Neighbour> for InclusionProof {
    fn from(neighbour: Neighbour) -> Self {
        Self { leaf: neighbour.leaf.into(), path: neighbour.path.into_iter().map(Into::into).collect() }
    }
}

impl From<AbsenceProof> for Vec<Neighbour> {
    fn from(proof: AbsenceProof) -> Self {
        proof.neighbours.into_iter().map(Into::into).collect()
    }
}

impl From<Vec<Neighbour>> for AbsenceProof {
    fn from(neighbours: Vec<Neighbour>) -> Self {
        Self { neighbours: neighbours.into_iter().map(Into::into).collect() }
    }
}
