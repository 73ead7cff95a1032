//! Public draws: which candidate is trained, and in which order keys are asked.
//!
//! Both are HMAC-SHA3-256 under the beacon that came after the commitment, so anyone can repeat them and nobody can choose
//! them. Messages of the two differ in length (40 bytes, and the order's name with 36 bytes), so they say nothing about
//! each other.

use std::{fmt, num::NonZeroU64};

use hmac::{KeyInit, Mac, SimpleHmac};
use serde::{Deserialize, Serialize};
use sha3::Sha3_256;

use crate::{
    ids::{Beacon, CandidateIndex, CommitmentRoot, LeafIndex, Tenant},
    units::CandidateCount,
};

const ORDER_KIND: &[u8] = b"hallmark/v1/query-order";

/// What every report says when the claimant drew the beacon: nobody else can know how often it was drawn.
pub const SELF_DRAWN_STATEMENT: &str = "the proof holds against innocent models but not against a claimant who grinds";

/// The randomness that drew the responses, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnBeacon {
    /// The 32 bytes.
    pub value: Beacon,
    /// Where they came from.
    pub source: BeaconSource,
}

/// Where a beacon came from. It decides against whom a proof holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BeaconSource {
    /// The claimant's own tool drew it: see [`SELF_DRAWN_STATEMENT`].
    SelfDrawn,
    /// Public randomness from after the commitment, described so that a reader can look it up. Hallmark does not
    /// check the description: whoever relies on the proof does.
    Given {
        /// For example "ethereum mainnet, prevrandao of block 21000000".
        description: String,
    },
}

impl BeaconSource {
    /// What a report must say about a proof that rests on this beacon; `None` when there is nothing to hold against it.
    pub fn reservation(&self) -> Option<&'static str> {
        match self {
            Self::SelfDrawn => Some(SELF_DRAWN_STATEMENT),
            Self::Given { .. } => None,
        }
    }
}

impl fmt::Display for BeaconSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfDrawn => write!(formatter, "drawn by the claimant ({SELF_DRAWN_STATEMENT})"),
            Self::Given { description } => formatter.write_str(description),
        }
    }
}

/// The candidate that the beacon draws for a key: the low bits of HMAC-SHA3-256(beacon, root ‖ leaf ‖ tenant), the two
/// numbers being 4 bytes big-endian and the digest read as one big-endian number.
///
/// Uniform over the candidates because `k` is a power of two, and independent of everything that was fixed before the
/// beacon was known: that is what bounds an innocent model's hits by `1/k` for each query.
pub fn draw_index(
    beacon: &Beacon,
    root: &CommitmentRoot,
    leaf: LeafIndex,
    tenant: Tenant,
    candidates: CandidateCount,
) -> CandidateIndex {
    let digest = authenticate(beacon, &[root.as_bytes(), &leaf.get().to_be_bytes(), &tenant.get().to_be_bytes()]);
    let [.., high, low] = digest;
    CandidateIndex::new(u16::from_be_bytes([high, low]) & candidates.mask())
}

/// The order in which the keys under a root are asked, by every run and at every host: a Fisher-Yates shuffle of
/// `0..leaves` from the last place downwards.
///
/// There is one order for each root, and the beacon that draws the responses fixes it. A run asks a part of it without a
/// gap, so a prover cannot pick the keys that work; what he can still choose, where to begin, is paid for by
/// [`crate::e_process::share_of_alpha`]. Random words are the four big-endian 64-bit parts of HMAC-SHA3-256(beacon,
/// name ‖ root ‖ block number) for blocks 0, 1, …; words that would favour some places are dropped.
pub fn query_order(beacon: &Beacon, root: &CommitmentRoot, leaves: u32) -> Vec<LeafIndex> {
    let mut words = Words { beacon, root, block: 0, ready: Vec::new() };
    let mut order: Vec<LeafIndex> = (0..leaves).map(LeafIndex::new).collect();
    for place in (1..leaves).rev() {
        let other = words.at_most(place);
        order.swap(LeafIndex::new(place).as_usize(), other.as_usize());
    }
    order
}

/// An endless stream of 64-bit words that beacon and root decide.
struct Words<'a> {
    beacon: &'a Beacon,
    root: &'a CommitmentRoot,
    block: u32,
    /// Words of the current block, last first.
    ready: Vec<u64>,
}

impl Words<'_> {
    fn word(&mut self) -> u64 {
        loop {
            if let Some(word) = self.ready.pop() {
                return word;
            }
            let digest = authenticate(self.beacon, &[ORDER_KIND, self.root.as_bytes(), &self.block.to_be_bytes()]);
            let (parts, _) = digest.as_chunks::<8>();
            self.ready.extend(parts.iter().rev().map(|part| u64::from_be_bytes(*part)));
            // 2^32 blocks hold four words for each place of the largest order; words are dropped once in 2^32.
            self.block = self.block.wrapping_add(1);
        }
    }

    /// Uniform in `0..=place`.
    fn at_most(&mut self, place: u32) -> LeafIndex {
        let choices = NonZeroU64::MIN.saturating_add(u64::from(place));
        // The words at and above the last multiple of `choices` below 2^64 are dropped: 2^64 mod choices of them.
        let dropped = choices.get().wrapping_neg() % choices;
        let limit = u64::MAX.wrapping_sub(dropped);
        loop {
            let word = self.word();
            if word <= limit {
                // The remainder is at most `place`.
                return LeafIndex::new(u32::try_from(word % choices).unwrap_or(place));
            }
        }
    }
}

fn authenticate(beacon: &Beacon, parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of every length")]
    let mut mac = SimpleHmac::<Sha3_256>::new_from_slice(beacon.as_bytes()).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_order_holds_every_leaf_once(beacon: [u8; 32], root: [u8; 32], leaves in 0_u32..300) {
            let mut order = query_order(&Beacon::from_bytes(beacon), &CommitmentRoot::from_bytes(root), leaves);
            order.sort_unstable();
            prop_assert_eq!(order, (0..leaves).map(LeafIndex::new).collect::<Vec<_>>());
        }

        #[test]
        fn a_draw_for_fewer_candidates_keeps_the_low_bits(beacon: [u8; 32], root: [u8; 32], leaf: u32, tenant: u32, power in 1_u32..10) {
            let draw = |count| {
                let (beacon, root) = (Beacon::from_bytes(beacon), CommitmentRoot::from_bytes(root));
                draw_index(&beacon, &root, LeafIndex::new(leaf), Tenant::new(tenant), count).get()
            };
            let count = CandidateCount::new(1 << power).unwrap();
            prop_assert!(draw(count) < count.get());
            prop_assert_eq!(draw(count), draw(CandidateCount::MAX) & count.mask());
        }
    }

    #[test]
    fn places_that_divide_the_words_unevenly_drop_the_surplus() {
        // Three choices: 2^64 mod 3 = 1, so only the very last word is dropped.
        let (beacon, root) = (Beacon::from_bytes([1; 32]), CommitmentRoot::from_bytes([2; 32]));
        let mut words = Words { beacon: &beacon, root: &root, block: 0, ready: vec![u64::MAX - 1, u64::MAX] };
        assert_eq!(words.at_most(2).get(), u32::try_from((u64::MAX - 1) % 3).unwrap());
        assert!(words.ready.is_empty());
        // Four choices: nothing is dropped.
        words.ready = vec![u64::MAX];
        assert_eq!(words.at_most(3).get(), 3);
    }
}
