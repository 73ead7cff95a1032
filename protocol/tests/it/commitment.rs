use proptest::prelude::*;
use protocol::{
    commitment::{
        CommitmentError, CommitmentParameters, KeyLeaf, KeyTree, SetTree, key_leaf_hash, parameters_leaf_hash,
        parameters_leaf_hash_drawn, set_leaf_hash, verify_drawn_parameters, verify_key_leaf, verify_parameters,
        verify_set_leaf,
    },
    draw::{BeaconSource, DrawnBeacon},
    ids::{Beacon, CandidateIndex, CommitmentRoot, LeafIndex, ManifestDigest, TokenizerDigest},
    matching::{Candidate, MatchingRule},
    merkle::MerkleError,
    units::{BasisPoints, CandidateCount},
};

#[derive(Clone, Debug, PartialEq)]
struct Key {
    salt: [u8; 32],
    index: u32,
    key: String,
    candidates: Vec<(u32, String)>,
    drawn: u16,
}

impl Key {
    /// Both hashes, taken over the borrowed form.
    fn hashes(&self) -> [protocol::B256; 2] {
        let candidates = self.candidates();
        let leaf = self.leaf(&candidates);
        [key_leaf_hash(&leaf), set_leaf_hash(&leaf, CandidateIndex::new(self.drawn))]
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.candidates.iter().map(|(id, text)| Candidate { id: *id, text: text.clone() }).collect()
    }

    fn leaf<'a>(&'a self, candidates: &'a [Candidate]) -> KeyLeaf<'a> {
        KeyLeaf { salt: self.salt, index: LeafIndex::new(self.index), key: &self.key, candidates }
    }
}

/// Few letters and short texts, so that sloppy concatenation would collide.
fn key() -> impl Strategy<Value = Key> {
    let candidates = prop::collection::vec((0_u32..3, "[ab]{0,2}"), 0..4);
    (0_u8..2, 0_u32..2, "[ab]{0,3}", candidates, 0_u16..2).prop_map(|(salt, index, key, candidates, drawn)| Key {
        salt: [salt; 32],
        index,
        key,
        candidates,
        drawn,
    })
}

fn parameters(fingerprints: u32) -> CommitmentParameters {
    CommitmentParameters {
        version: CommitmentParameters::VERSION,
        fingerprints,
        candidates: CandidateCount::new(4).unwrap(),
        nucleus: BasisPoints::new(8_000).unwrap(),
        matching: MatchingRule::FirstAnswerPrefix,
        base: ManifestDigest::from_bytes([1; 32]),
        tokenizer: TokenizerDigest::from_bytes([2; 32]),
    }
}

fn keys(count: u32) -> Vec<Key> {
    (0..count)
        .map(|index| Key {
            salt: [u8::try_from(index).unwrap(); 32],
            index,
            key: format!("key {index}"),
            candidates: ["moss", "ivy", "fern", "oak"].iter().zip(10..).map(|(t, id)| (id, t.to_string())).collect(),
            drawn: u16::try_from(index % 4).unwrap(),
        })
        .collect()
}

const BEACON: DrawnBeacon = DrawnBeacon { value: Beacon::from_bytes([9; 32]), source: BeaconSource::SelfDrawn };

fn trees(parameters: &CommitmentParameters, keys: &[Key]) -> (KeyTree, SetTree) {
    let (key_leaves, set_leaves): (Vec<_>, Vec<_>) = keys.iter().map(Key::hashes).map(|[k, s]| (k, s)).unzip();
    let tree = KeyTree::new(parameters, &key_leaves).unwrap();
    let drawn = SetTree::new(parameters, &tree.root(), &BEACON, &set_leaves).unwrap();
    (tree, drawn)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn different_keys_have_different_leaves(one in key(), other in key()) {
        let ([key_one, set_one], [key_other, set_other]) = (one.hashes(), other.hashes());
        let same_key = Key { drawn: 0, ..one.clone() } == Key { drawn: 0, ..other.clone() };
        prop_assert_eq!(key_one == key_other, same_key);
        prop_assert_eq!(set_one == set_other, one == other);
        prop_assert_ne!(key_one, set_other);
    }
}

#[test]
fn every_parameter_is_bound() {
    let base = parameters(8);
    let variants = [
        CommitmentParameters { version: 2, ..base.clone() },
        CommitmentParameters { fingerprints: 9, ..base.clone() },
        CommitmentParameters { candidates: CandidateCount::DEFAULT, ..base.clone() },
        CommitmentParameters { nucleus: BasisPoints::new(7_999).unwrap(), ..base.clone() },
        CommitmentParameters { base: ManifestDigest::from_bytes([3; 32]), ..base.clone() },
        CommitmentParameters { tokenizer: TokenizerDigest::from_bytes([3; 32]), ..base.clone() },
    ];
    let root = CommitmentRoot::from_bytes([5; 32]);
    let drawn = |p: &CommitmentParameters| parameters_leaf_hash_drawn(p, &root, &BEACON);
    for variant in &variants {
        assert_ne!(parameters_leaf_hash(variant), parameters_leaf_hash(&base));
        assert_ne!(drawn(variant), drawn(&base));
    }
    assert_ne!(drawn(&base), parameters_leaf_hash(&base));
    assert_ne!(drawn(&base), parameters_leaf_hash_drawn(&base, &CommitmentRoot::from_bytes([6; 32]), &BEACON));
    let given = |description: &str| BeaconSource::Given { description: description.to_owned() };
    let others = [
        DrawnBeacon { value: Beacon::from_bytes([8; 32]), ..BEACON },
        DrawnBeacon { source: given(""), ..BEACON },
        DrawnBeacon { source: given("self-drawn"), ..BEACON },
        DrawnBeacon { source: given("block 7"), ..BEACON },
    ];
    for (place, other) in others.iter().enumerate() {
        let leaf = parameters_leaf_hash_drawn(&base, &root, other);
        assert_ne!(drawn(&base), leaf, "{other:?}");
        assert!(others[..place].iter().all(|earlier| parameters_leaf_hash_drawn(&base, &root, earlier) != leaf));
    }
}

#[test]
fn openings_verify_against_both_roots() {
    for count in [1, 2, 7, 64] {
        let (parameters, keys) = (parameters(count), keys(count));
        let (tree, drawn) = trees(&parameters, &keys);
        verify_parameters(&parameters, &tree.parameters_path().unwrap(), &tree.root()).unwrap();
        let path = drawn.parameters_path().unwrap();
        verify_drawn_parameters(&parameters, &tree.root(), &BEACON, &path, &drawn.root()).unwrap();
        for key in &keys {
            let (candidates, index) = (key.candidates(), LeafIndex::new(key.index));
            let leaf = key.leaf(&candidates);
            verify_key_leaf(&parameters, &leaf, &tree.path(index).unwrap(), &tree.root()).unwrap();
            let path = drawn.path(index).unwrap();
            verify_set_leaf(&parameters, &leaf, CandidateIndex::new(key.drawn), &path, &drawn.root()).unwrap();
        }
    }
}

#[test]
fn any_change_of_an_opening_is_refused() {
    let (parameters, keys) = (parameters(7), keys(7));
    let (tree, drawn) = trees(&parameters, &keys);
    let key = &keys[3];
    let index = LeafIndex::new(3);
    let changes: [fn(&mut Key); 7] = [
        |key| key.salt[0] ^= 1,
        |key| key.index = 4,
        |key| key.key.push(' '),
        |key| key.candidates[1].0 += 1,
        |key| key.candidates[2].1.push('x'),
        |key| key.candidates.swap(0, 1),
        |key| key.candidates.truncate(3),
    ];
    for change in changes {
        let mut changed = key.clone();
        change(&mut changed);
        let candidates = changed.candidates();
        let leaf = changed.leaf(&candidates);
        verify_key_leaf(&parameters, &leaf, &tree.path(index).unwrap(), &tree.root()).unwrap_err();
        let (path, choice) = (drawn.path(index).unwrap(), CandidateIndex::new(changed.drawn));
        verify_set_leaf(&parameters, &leaf, choice, &path, &drawn.root()).unwrap_err();
    }
    let candidates = key.candidates();
    let (leaf, path) = (key.leaf(&candidates), drawn.path(index).unwrap());
    verify_set_leaf(&parameters, &leaf, CandidateIndex::new(key.drawn ^ 1), &path, &drawn.root()).unwrap_err();
    // The roots are of different kinds: an opening of one proves nothing about the other.
    verify_set_leaf(&parameters, &leaf, CandidateIndex::new(key.drawn), &tree.path(index).unwrap(), &drawn.root())
        .unwrap_err();
}

#[test]
fn a_path_that_claims_another_tree_size_is_refused() {
    let (parameters, keys) = (parameters(2), keys(2));
    let (tree, _) = trees(&parameters, &keys);
    let candidates = keys[0].candidates();
    let mut path = tree.path(LeafIndex::new(0)).unwrap();
    // Three leaves or four, the first two have the same siblings on the same sides.
    path.leaves = 4;
    path.verify(key_leaf_hash(&keys[0].leaf(&candidates)), tree.root().word()).unwrap();
    assert!(matches!(
        verify_key_leaf(&parameters, &keys[0].leaf(&candidates), &path, &tree.root()),
        Err(CommitmentError::Position { expected_leaves: 3, found_leaves: 4, .. })
    ));
}

#[test]
fn lists_that_change_the_odds_are_refused_even_when_committed() {
    let parameters = parameters(1);
    let index = LeafIndex::new(0);
    for (texts, expected) in [
        (vec!["a", "b", "c"], CommitmentError::CandidateCount { index, expected: parameters.candidates, found: 3 }),
        (vec!["an", "another", "b", "c"], CommitmentError::NotPrefixFree { index, rule: parameters.matching }),
        (vec!["a", " A", "b", "c"], CommitmentError::NotPrefixFree { index, rule: parameters.matching }),
    ] {
        let candidates = texts.iter().zip(0..).map(|(text, id)| (id, text.to_string())).collect();
        let key = Key { salt: [0; 32], index: 0, key: "key".to_owned(), candidates, drawn: 0 };
        let (tree, _) = trees(&parameters, std::slice::from_ref(&key));
        let candidates = key.candidates();
        let found = verify_key_leaf(&parameters, &key.leaf(&candidates), &tree.path(index).unwrap(), &tree.root());
        assert_eq!(found, Err(expected));
    }
}

#[test]
fn sizes_and_versions_that_do_not_fit_are_refused() {
    let hashes: Vec<_> = keys(3).iter().map(|key| key.hashes()[0]).collect();
    let wrong = KeyTree::new(&parameters(4), &hashes).unwrap_err();
    assert_eq!(wrong, CommitmentError::Leaves { expected: 4, found: 3 });
    assert_eq!(KeyTree::new(&parameters(0), &[]).unwrap_err(), CommitmentError::Size { fingerprints: 0 });
    let newer = CommitmentParameters { version: 2, ..parameters(3) };
    assert_eq!(KeyTree::new(&newer, &hashes).unwrap_err(), CommitmentError::Version { found: 2 });
    // More would make a verifier of a small forged file work and allocate without bound.
    let most = CommitmentParameters::MAX_FINGERPRINTS;
    assert_eq!(parameters(most).leaves(), Ok(most + 1));
    for fingerprints in [most + 1, u32::MAX - 1, u32::MAX] {
        assert_eq!(parameters(fingerprints).leaves(), Err(CommitmentError::Size { fingerprints }));
    }

    let tree = KeyTree::new(&parameters(3), &hashes).unwrap();
    let outside = MerkleError::OutOfRange { index: 4, leaves: 4 };
    assert_eq!(tree.path(LeafIndex::new(3)), Err(outside));
    assert!(tree.path(LeafIndex::new(u32::MAX)).is_err());
}

#[test]
fn debug_shows_nothing_of_a_key() {
    let key = &keys(2)[1];
    let candidates = key.candidates();
    assert_eq!(format!("{:?}", key.leaf(&candidates)), "KeyLeaf { index: LeafIndex(1), .. }");
}

#[test]
fn parameters_are_strict_json() {
    let json = serde_json::to_value(parameters(8)).unwrap();
    let expected = serde_json::json!({
        "version": 1,
        "fingerprints": 8,
        "candidates": 4,
        "nucleus": 8000,
        "matching": "first_answer_prefix",
        "base": format!("0x{}", "01".repeat(32)),
        "tokenizer": format!("0x{}", "02".repeat(32)),
    });
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<CommitmentParameters>(json.clone()).unwrap(), parameters(8));
    for (name, value) in
        [("candidates", 3.into()), ("nucleus", 10_001.into()), ("matching", "any".into()), ("more", 1.into())]
    {
        let mut wrong = json.clone();
        wrong[name] = value;
        assert!(serde_json::from_value::<CommitmentParameters>(wrong).is_err(), "{name}");
    }
}
