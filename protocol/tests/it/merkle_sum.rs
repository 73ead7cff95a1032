use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use protocol::{
    B256,
    counts::{CountError, RequestUsage, UsageTotals},
    ids::StatementDigest,
    merkle_sum::{AbsenceProof, Commitment, InclusionProof, Leaf, MerkleSumError, MerkleSumTree, Sibling},
    units::Amount,
};

/// Digests on a grid, so that there are some to be missing between, before and behind them.
fn digest(place: u8) -> StatementDigest {
    let mut bytes = [0; 32];
    bytes[0] = place;
    StatementDigest::from_bytes(bytes)
}

/// Leaves at odd places only.
fn leaves() -> impl Strategy<Value = Vec<Leaf>> {
    let members = (0_u64..1 << 40, 0_u64..1 << 40, 0_u64..1 << 40, 0_u128..1 << 100);
    prop::collection::btree_map(0_u8..127, members, 0..40).prop_map(|places: BTreeMap<u8, _>| {
        let leaf = |(place, (prompt_tokens, cached_tokens, completion_tokens, charge))| Leaf {
            digest: digest(2 * place + 1),
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            charge: Amount::new(charge),
        };
        places.into_iter().map(leaf).collect()
    })
}

fn tree() -> impl Strategy<Value = MerkleSumTree> {
    leaves().prop_map(|leaves| MerkleSumTree::new(leaves).unwrap())
}

/// A tree with a leaf at least.
fn full_tree() -> impl Strategy<Value = MerkleSumTree> {
    tree().prop_filter("empty", |tree| !tree.leaves().is_empty())
}

/// One change of a proof.
#[derive(Clone, Debug)]
enum Damage {
    LeafDigest {
        bit: usize,
    },
    LeafMember {
        which: usize,
        by: u64,
    },
    Hash {
        sibling: Index,
        bit: usize,
    },
    SiblingMember {
        sibling: Index,
        which: usize,
        by: u64,
    },
    Side {
        sibling: Index,
    },
    Drop {
        sibling: Index,
    },
    Repeat {
        sibling: Index,
    },
    Swap {
        one: Index,
        other: Index,
    },
    /// Moves use from a sibling into the leaf, so that the totals stay right.
    Shift {
        sibling: Index,
        which: usize,
        by: u64,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let by = || prop_oneof![Just(1_u64), Just(u64::MAX), any::<u64>()].prop_filter("no change", |by| *by != 0);
    prop_oneof![
        (0_usize..256).prop_map(|bit| Damage::LeafDigest { bit }),
        (0_usize..4, by()).prop_map(|(which, by)| Damage::LeafMember { which, by }),
        (any::<Index>(), 0_usize..256).prop_map(|(sibling, bit)| Damage::Hash { sibling, bit }),
        (any::<Index>(), 0_usize..5, by()).prop_map(|(sibling, which, by)| Damage::SiblingMember {
            sibling,
            which,
            by
        }),
        any::<Index>().prop_map(|sibling| Damage::Side { sibling }),
        any::<Index>().prop_map(|sibling| Damage::Drop { sibling }),
        any::<Index>().prop_map(|sibling| Damage::Repeat { sibling }),
        any::<(Index, Index)>().prop_map(|(one, other)| Damage::Swap { one, other }),
        (any::<Index>(), 0_usize..4, by()).prop_map(|(sibling, which, by)| Damage::Shift { sibling, which, by }),
    ]
}

fn flip(word: &mut B256, bit: usize) {
    word.0[bit / 8] ^= 1 << (bit % 8);
}

fn add_to_leaf(leaf: &mut Leaf, which: usize, by: u64) {
    match which {
        0 => leaf.prompt_tokens = leaf.prompt_tokens.wrapping_add(by),
        1 => leaf.cached_tokens = leaf.cached_tokens.wrapping_add(by),
        2 => leaf.completion_tokens = leaf.completion_tokens.wrapping_add(by),
        _ => leaf.charge = Amount::new(leaf.charge.get().wrapping_add(u128::from(by))),
    }
}

fn add_to_sums(sums: &mut UsageTotals, which: usize, by: u64) {
    match which {
        0 => sums.prompt_tokens = sums.prompt_tokens.wrapping_add(by),
        1 => sums.cached_tokens = sums.cached_tokens.wrapping_add(by),
        2 => sums.completion_tokens = sums.completion_tokens.wrapping_add(by),
        3 => sums.charge = Amount::new(sums.charge.get().wrapping_add(u128::from(by))),
        _ => sums.requests = sums.requests.wrapping_add(by),
    }
}

fn apply(damage: &Damage, proof: &mut InclusionProof) {
    let InclusionProof { leaf, path } = proof;
    let count = path.len();
    match damage {
        Damage::LeafDigest { bit } => {
            let mut word = leaf.digest.word();
            flip(&mut word, *bit);
            leaf.digest = word.into();
        }
        Damage::LeafMember { which, by } => add_to_leaf(leaf, *which, *by),
        _ if count == 0 => {}
        Damage::Hash { sibling, bit } => flip(&mut path[sibling.index(count)].hash, *bit),
        Damage::SiblingMember { sibling, which, by } => add_to_sums(&mut path[sibling.index(count)].sums, *which, *by),
        Damage::Side { sibling } => path[sibling.index(count)].left ^= true,
        Damage::Drop { sibling } => drop(path.remove(sibling.index(count))),
        Damage::Repeat { sibling } => path.insert(sibling.index(count), path[sibling.index(count)]),
        Damage::Swap { one, other } => path.swap(one.index(count), other.index(count)),
        Damage::Shift { sibling, which, by } => {
            add_to_leaf(leaf, *which, *by);
            let sums = &mut path[sibling.index(count)].sums;
            // The charge has 128 bits, so taking away is done there, not by adding a complement of 64.
            if *which == 3 {
                sums.charge = Amount::new(sums.charge.get().wrapping_sub(u128::from(*by)));
            } else {
                add_to_sums(sums, *which, by.wrapping_neg());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_damaged_proof_shows_nothing(tree in full_tree(), place in any::<Index>(), damages in prop::collection::vec(damage(), 1..4)) {
        let leaf = tree.leaves()[place.index(tree.leaves().len())];
        let proof = tree.prove_inclusion(leaf.digest).unwrap();
        let mut damaged = proof.clone();
        for damage in &damages {
            apply(damage, &mut damaged);
        }
        if damaged == proof {
            prop_assert!(proof.verify(&tree.commitment()).is_ok());
        } else {
            prop_assert!(damaged.verify(&tree.commitment()).is_err());
        }
    }

    #[test]
    fn a_proof_holds_for_its_own_root_and_totals_only(tree in full_tree(), place in any::<Index>(), bit in 0_usize..256, which in 0_usize..5, by in 1_u64..) {
        let leaf = tree.leaves()[place.index(tree.leaves().len())];
        let proof = tree.prove_inclusion(leaf.digest).unwrap();
        let commitment = tree.commitment();
        let mut root = commitment.root.unwrap();
        flip(&mut root, bit);
        let other_root = Commitment { root: Some(root), ..commitment };
        let wrong_root = MerkleSumError::WrongRoot { expected: root, actual: commitment.root.unwrap() };
        prop_assert_eq!(proof.verify(&other_root), Err(wrong_root));
        let mut totals = commitment.totals;
        add_to_sums(&mut totals, which, by);
        let wrong_totals = MerkleSumError::WrongTotals { expected: totals, actual: commitment.totals };
        prop_assert_eq!(proof.verify(&Commitment { totals, ..commitment }), Err(wrong_totals));
    }

    #[test]
    fn every_digest_is_either_included_or_absent(tree in tree()) {
        let commitment = tree.commitment();
        for place in 0..=255 {
            let digest = digest(place);
            let included = tree.leaves().iter().position(|leaf| leaf.digest == digest);
            match (tree.prove_inclusion(digest), tree.prove_absence(digest)) {
                (Ok(proof), Err(error)) => {
                    let index = u64::try_from(included.unwrap()).unwrap();
                    prop_assert_eq!(proof.verify(&commitment), Ok(index));
                    prop_assert_eq!(error, MerkleSumError::Included { digest });
                }
                (Err(error), Ok(proof)) => {
                    prop_assert_eq!(included, None);
                    prop_assert_eq!(proof.verify(&commitment, digest), Ok(()));
                    prop_assert_eq!(error, MerkleSumError::NotIncluded { digest });
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn no_choice_of_leaves_proves_that_an_included_statement_is_absent(tree in full_tree(), place in any::<Index>(), chosen in prop::collection::vec(any::<Index>(), 0..4)) {
        let count = tree.leaves().len();
        let digest = tree.leaves()[place.index(count)].digest;
        let neighbours = chosen.iter().map(|index| tree.prove_inclusion(tree.leaves()[index.index(count)].digest).unwrap());
        let proof = AbsenceProof { neighbours: neighbours.collect() };
        prop_assert!(proof.verify(&tree.commitment(), digest).is_err());
    }

    #[test]
    fn absence_needs_exactly_the_neighbours(tree in full_tree(), place in 0_u8..128, chosen in prop::collection::vec(any::<Index>(), 0..3)) {
        let (count, digest) = (tree.leaves().len(), digest(2 * place));
        let neighbours = chosen.iter().map(|index| tree.prove_inclusion(tree.leaves()[index.index(count)].digest).unwrap());
        let proof = AbsenceProof { neighbours: neighbours.collect() };
        let right = tree.prove_absence(digest).unwrap();
        prop_assert_eq!(proof.verify(&tree.commitment(), digest).is_ok(), proof == right);
    }

    #[test]
    fn arbitrary_proofs_are_refused_without_a_panic(
        leaf in (any::<[u8; 32]>().prop_map(StatementDigest::from_bytes), any::<[u64; 3]>(), any::<u128>()),
        siblings in prop::collection::vec((any::<[u8; 32]>(), any::<[u64; 4]>(), any::<u128>(), any::<bool>()), 0..70),
        totals in (any::<[u64; 4]>(), any::<u128>()), root in any::<Option<[u8; 32]>>(), digest: [u8; 32],
    ) {
        let sums = |[requests, prompt_tokens, cached_tokens, completion_tokens]: [u64; 4], charge| UsageTotals {
            requests, prompt_tokens, cached_tokens, completion_tokens, charge: Amount::new(charge),
        };
        let (digest_of_leaf, [prompt_tokens, cached_tokens, completion_tokens], charge) = leaf;
        let leaf = Leaf { digest: digest_of_leaf, prompt_tokens, cached_tokens, completion_tokens, charge: Amount::new(charge) };
        let path = siblings.into_iter().map(|(hash, counts, charge, left)| Sibling { hash: hash.into(), sums: sums(counts, charge), left });
        let proof = InclusionProof { leaf, path: path.collect() };
        let commitment = Commitment { root: root.map(B256::new), totals: sums(totals.0, totals.1) };
        prop_assert!(proof.verify(&commitment).is_err());
        let absence = AbsenceProof { neighbours: vec![proof] };
        prop_assert!(absence.verify(&commitment, StatementDigest::from_bytes(digest)).is_err());
    }

    #[test]
    fn proofs_round_trip_through_json(tree in full_tree(), place in 0_u8..=255) {
        if let Ok(proof) = tree.prove_absence(digest(place)) {
            let json = serde_json::to_string(&proof).unwrap();
            prop_assert_eq!(serde_json::from_str::<AbsenceProof>(&json).unwrap(), proof);
        } else {
            let proof = tree.prove_inclusion(digest(place)).unwrap();
            let json = serde_json::to_string(&proof).unwrap();
            prop_assert_eq!(serde_json::from_str::<InclusionProof>(&json).unwrap(), proof);
        }
    }
}

fn leaf(place: u8, charge: u128) -> Leaf {
    Leaf::new(digest(place), RequestUsage::new(10, 4, 5).unwrap(), Amount::new(charge))
}

#[test]
fn an_empty_epoch_has_no_root_and_lacks_everything() {
    let tree = MerkleSumTree::new(Vec::new()).unwrap();
    let commitment = Commitment { root: None, totals: UsageTotals::ZERO };
    assert_eq!(tree.commitment(), commitment);
    let nothing = AbsenceProof { neighbours: Vec::new() };
    assert_eq!(tree.prove_absence(digest(3)), Ok(nothing.clone()));
    assert_eq!(nothing.verify(&commitment, digest(3)), Ok(()));
    // No leaf belongs to it, and an empty proof says nothing about a tree that has leaves.
    let other = MerkleSumTree::new(vec![leaf(1, 1)]).unwrap();
    let foreign = other.prove_inclusion(digest(1)).unwrap();
    assert!(foreign.verify(&commitment).is_err());
    let stuffed = AbsenceProof { neighbours: vec![foreign] };
    assert_eq!(stuffed.verify(&commitment, digest(3)), Err(MerkleSumError::WrongNeighbourCount { found: 1 }));
    let missing = Err(MerkleSumError::WrongNeighbourCount { found: 0 });
    assert_eq!(nothing.verify(&other.commitment(), digest(3)), missing);
}

#[test]
fn each_wrong_choice_of_neighbours_has_its_own_error() {
    let tree = MerkleSumTree::new([10, 20, 30, 40].map(|place| leaf(place, 1)).to_vec()).unwrap();
    let verify = |places: &[u8], missing: u8| {
        let neighbours = places.iter().map(|&place| tree.prove_inclusion(digest(place)).unwrap()).collect();
        AbsenceProof { neighbours }.verify(&tree.commitment(), digest(missing))
    };
    assert_eq!(verify(&[10], 5), Ok(()));
    assert_eq!(verify(&[20, 30], 25), Ok(()));
    assert_eq!(verify(&[40], 45), Ok(()));
    assert_eq!(verify(&[20], 15), Err(MerkleSumError::NotFirst { index: 1 }));
    assert_eq!(verify(&[30], 35), Err(MerkleSumError::NotLast { index: 2, requests: 4 }));
    assert_eq!(verify(&[10, 30], 25), Err(MerkleSumError::NotAdjacent { before: 0, after: 2 }));
    let not_between = |before, missing, after| {
        Err(MerkleSumError::NotBetween { before: digest(before), digest: digest(missing), after: digest(after) })
    };
    assert_eq!(verify(&[20, 30], 35), not_between(20, 35, 30));
    assert_eq!(verify(&[30, 20], 25), not_between(30, 25, 20));
    assert_eq!(verify(&[20, 30], 30), Err(MerkleSumError::Included { digest: digest(30) }));
    assert_eq!(verify(&[20], 20), Err(MerkleSumError::Included { digest: digest(20) }));
    assert_eq!(verify(&[10, 20, 30], 15), Err(MerkleSumError::WrongNeighbourCount { found: 3 }));
}

#[test]
fn a_statement_is_counted_once() {
    let error = MerkleSumTree::new(vec![leaf(1, 1), leaf(2, 1), leaf(1, 2)]).unwrap_err();
    assert_eq!(error, MerkleSumError::Duplicate { digest: digest(1) });
}

#[test]
fn sums_that_do_not_fit_are_refused_when_building_and_when_verifying() {
    let overflow = MerkleSumError::SumOverflow(CountError::TotalOverflow { what: "charges" });
    let error = MerkleSumTree::new(vec![leaf(1, u128::MAX), leaf(2, 1)]).unwrap_err();
    assert_eq!(error, overflow);

    let tree = MerkleSumTree::new(vec![leaf(1, 1), leaf(2, 1)]).unwrap();
    let mut proof = tree.prove_inclusion(digest(1)).unwrap();
    proof.path[0].sums.charge = Amount::MAX;
    assert_eq!(proof.verify(&tree.commitment()), Err(overflow));

    // A host cannot hide use by letting requests wrap around.
    let mut proof = tree.prove_inclusion(digest(2)).unwrap();
    let first = proof.path[0];
    proof.path[0].sums.requests = u64::MAX;
    proof.path.push(Sibling { sums: UsageTotals { requests: 2, ..first.sums }, ..first });
    let overflow = MerkleSumError::SumOverflow(CountError::TotalOverflow { what: "requests" });
    assert_eq!(proof.verify(&tree.commitment()), Err(overflow));
}
