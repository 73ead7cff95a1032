use proptest::prelude::*;
use protocol::{
    B256,
    merkle::{MerkleError, MerklePath, MerkleTree, leaf_hash},
};

fn tree(leaves: u32) -> (Vec<B256>, MerkleTree) {
    let hashes: Vec<B256> = (0..leaves).map(|i| leaf_hash(format!("leaf {i}").as_bytes())).collect();
    let tree = MerkleTree::new(hashes.clone()).unwrap();
    (hashes, tree)
}

/// A tree's size and one of its positions.
fn place() -> impl Strategy<Value = (u32, u32)> {
    (1_u32..200).prop_flat_map(|leaves| (Just(leaves), 0..leaves))
}

/// One change of a path that proves another statement or none.
#[derive(Clone, Debug)]
enum Damage {
    FlipBit { sibling: prop::sample::Index, bit: prop::sample::Index },
    Drop { sibling: prop::sample::Index },
    Insert { place: prop::sample::Index, word: [u8; 32] },
    Swap { one: prop::sample::Index, other: prop::sample::Index },
    Repeat { sibling: prop::sample::Index },
    Move { index: u32 },
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    prop_oneof![
        any::<(Index, Index)>().prop_map(|(sibling, bit)| Damage::FlipBit { sibling, bit }),
        any::<Index>().prop_map(|sibling| Damage::Drop { sibling }),
        any::<(Index, [u8; 32])>().prop_map(|(place, word)| Damage::Insert { place, word }),
        any::<(Index, Index)>().prop_map(|(one, other)| Damage::Swap { one, other }),
        any::<Index>().prop_map(|sibling| Damage::Repeat { sibling }),
        prop_oneof![0_u32..200, any::<u32>()].prop_map(|index| Damage::Move { index }),
    ]
}

fn apply(damage: &Damage, path: &mut MerklePath) {
    let siblings = &mut path.siblings;
    let count = siblings.len();
    match damage {
        Damage::Move { index } => path.index = *index,
        Damage::Insert { place, word } => siblings.insert(place.index(count + 1), B256::new(*word)),
        _ if count == 0 => {}
        Damage::FlipBit { sibling, bit } => {
            let bit = bit.index(256);
            siblings[sibling.index(count)].0[bit / 8] ^= 1 << (bit % 8);
        }
        Damage::Drop { sibling } => {
            siblings.remove(sibling.index(count));
        }
        Damage::Swap { one, other } => siblings.swap(one.index(count), other.index(count)),
        Damage::Repeat { sibling } => {
            let copy = siblings[sibling.index(count)];
            siblings.insert(sibling.index(count), copy);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_damaged_path_proves_nothing((leaves, index) in place(), damages in prop::collection::vec(damage(), 1..4)) {
        let (hashes, tree) = tree(leaves);
        let path = tree.path(index).unwrap();
        let mut damaged = path.clone();
        for damage in &damages {
            apply(damage, &mut damaged);
        }
        prop_assume!(damaged != path);
        for hash in &hashes {
            // A path moved to another position could only prove the leaf that stands there, with that leaf's siblings.
            prop_assert!(damaged.verify(*hash, tree.root()).is_err() || tree.path(damaged.index) == Ok(damaged.clone()));
        }
    }

    #[test]
    fn a_path_proves_its_own_leaf_in_its_own_tree_only((leaves, index) in place(), other in any::<[u8; 32]>()) {
        let (hashes, tree) = tree(leaves);
        let path = tree.path(index).unwrap();
        let root = tree.root();
        for (hash, place) in hashes.iter().zip(0..) {
            prop_assert_eq!(path.verify(*hash, root).is_ok(), place == index);
        }
        prop_assert!(path.verify(B256::new(other), root).is_err());
        let own = usize::try_from(index).unwrap();
        prop_assert!(path.verify(hashes[own], B256::new(other)).is_err());
    }

    #[test]
    fn arbitrary_paths_are_refused_without_a_panic(index: u32, leaves: u32, siblings in prop::collection::vec(any::<[u8; 32]>(), 0..40), leaf: [u8; 32], root: [u8; 32]) {
        let path = MerklePath { index, leaves, siblings: siblings.into_iter().map(B256::new).collect() };
        prop_assert!(path.verify(B256::new(leaf), B256::new(root)).is_err());
    }

    #[test]
    fn a_path_needs_exactly_the_siblings_of_its_position((leaves, index) in place(), length in 0_usize..12) {
        let (_, tree) = tree(leaves);
        let needed = tree.path(index).unwrap().siblings.len();
        let path = MerklePath { index, leaves, siblings: vec![B256::ZERO; length] };
        let wrong_length = MerkleError::Length { index, leaves, found: length };
        prop_assert_eq!(path.verify(B256::ZERO, tree.root()) == Err(wrong_length), length != needed);
    }

    #[test]
    fn paths_round_trip_through_json((leaves, index) in place()) {
        let (_, tree) = tree(leaves);
        let path = tree.path(index).unwrap();
        let json = serde_json::to_string(&path).unwrap();
        prop_assert_eq!(serde_json::from_str::<MerklePath>(&json).unwrap(), path);
    }
}

#[test]
fn any_changed_leaf_changes_the_root() {
    let (hashes, tree) = tree(37);
    for place in 0..hashes.len() {
        let mut changed = hashes.clone();
        changed[place].0[31] ^= 1;
        assert_ne!(MerkleTree::new(changed).unwrap().root(), tree.root());
    }
    assert_ne!(MerkleTree::new(hashes[..36].to_vec()).unwrap().root(), tree.root());
    // A repeated last leaf is another tree (the flaw of trees that double it).
    let doubled = hashes.iter().chain(hashes.last()).copied().collect();
    assert_ne!(MerkleTree::new(doubled).unwrap().root(), tree.root());
}
