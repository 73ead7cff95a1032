//! Vectors made by another implementation in another language: golden/make_golden.py.

use protocol::{
    B256,
    binomial::{ln_probability, ln_upper_tail, lower_tail, normal_quantile, wilson},
    commitment::{
        CommitmentParameters, KeyLeaf, KeyTree, SetTree, key_leaf_hash, parameters_leaf_hash,
        parameters_leaf_hash_drawn, set_leaf_hash,
    },
    draw::{BeaconSource, DrawnBeacon, draw_index, query_order},
    e_process::{EProcess, EProcessParameters, Reply},
    ids::{Beacon, CandidateIndex, CommitmentRoot, LeafIndex, SetRoot, Tenant},
    matching::Candidate,
    merkle::{MerklePath, MerkleTree, leaf_hash},
    units::CandidateCount,
};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Vectors {
    trees: Vec<Tree>,
    commitment: Commitment,
    draws: Vec<Draw>,
    orders: Vec<Order>,
    e_values: Vec<EValue>,
    pub(crate) queries: Vec<Queries>,
    tails: Vec<Tail>,
    quantiles: Vec<Quantile>,
    intervals: Vec<IntervalOf>,
}

#[derive(Deserialize)]
struct Tree {
    leaves: u32,
    root: B256,
    index: u32,
    siblings: Vec<B256>,
}

#[derive(Deserialize)]
struct Commitment {
    parameters: CommitmentParameters,
    beacon: Beacon,
    source: BeaconSource,
    keys: Vec<Key>,
    parameters_leaf: B256,
    key_leaves: Vec<B256>,
    root: CommitmentRoot,
    drawn: Vec<CandidateIndex>,
    drawn_parameters_leaf: B256,
    self_drawn_parameters_leaf: B256,
    set_leaves: Vec<B256>,
    set_root: SetRoot,
}

#[derive(Deserialize)]
struct Key {
    salt: B256,
    key: String,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Draw {
    beacon: Beacon,
    root: CommitmentRoot,
    leaf: LeafIndex,
    tenant: Tenant,
    candidates: CandidateCount,
    index: CandidateIndex,
}

#[derive(Deserialize)]
struct Order {
    beacon: Beacon,
    root: CommitmentRoot,
    order: Vec<LeafIndex>,
}

#[derive(Deserialize)]
struct EValue {
    candidates: CandidateCount,
    min_hit_rate: f64,
    replies: String,
    log10_e: f64,
    log10_reverse: f64,
}

/// Exact points of the number of queries to proof at an error of `1e-digits`, by a stake of one half or the mixture.
#[derive(Deserialize)]
pub(crate) struct Queries {
    pub(crate) candidates: u16,
    pub(crate) mixture: bool,
    pub(crate) hit: f64,
    pub(crate) other: f64,
    pub(crate) digits: u32,
    pub(crate) median: u32,
    pub(crate) percentile_95: u32,
}

#[derive(Deserialize)]
struct Tail {
    trials: u32,
    hits: u32,
    p: f64,
    ln_probability: f64,
    ln_upper_tail: f64,
    lower_tail: f64,
}

#[derive(Deserialize)]
struct Quantile {
    p: f64,
    z: f64,
}

#[derive(Deserialize)]
struct IntervalOf {
    hits: u32,
    trials: u32,
    confidence: f64,
    wilson: [f64; 2],
}

pub(crate) fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../golden/golden.json")).unwrap()
}

/// Close in relative terms, or to zero.
fn assert_close(found: f64, expected: f64, relative: f64, what: &str) {
    assert!((found - expected).abs() <= relative * expected.abs().max(1e-3), "{what}: {found} instead of {expected}");
}

#[test]
fn trees_have_the_roots_and_paths_of_the_definition() {
    for vector in vectors().trees {
        let leaves: Vec<B256> = (0..vector.leaves).map(|i| leaf_hash(format!("leaf {i}").as_bytes())).collect();
        let tree = MerkleTree::new(leaves).unwrap();
        assert_eq!(tree.root(), vector.root);
        let path = MerklePath { index: vector.index, leaves: vector.leaves, siblings: vector.siblings };
        assert_eq!(tree.path(vector.index).unwrap(), path);
    }
}

#[test]
fn a_commitment_hashes_to_the_same_leaves_and_roots() {
    let vector = vectors().commitment;
    let leaves: Vec<KeyLeaf<'_>> = vector
        .keys
        .iter()
        .zip(0..)
        .map(|(key, i)| KeyLeaf {
            salt: key.salt.0,
            index: LeafIndex::new(i),
            key: &key.key,
            candidates: &key.candidates,
        })
        .collect();
    assert_eq!(parameters_leaf_hash(&vector.parameters), vector.parameters_leaf);
    let key_leaves: Vec<B256> = leaves.iter().map(key_leaf_hash).collect();
    assert_eq!(key_leaves, vector.key_leaves);
    let root = KeyTree::new(&vector.parameters, &key_leaves).unwrap().root();
    assert_eq!(root, vector.root);

    let drawn: Vec<CandidateIndex> = leaves
        .iter()
        .map(|leaf| draw_index(&vector.beacon, &root, leaf.index, Tenant::SHARED, vector.parameters.candidates))
        .collect();
    assert_eq!(drawn, vector.drawn);
    let beacon = DrawnBeacon { value: vector.beacon, source: vector.source };
    let drawn_parameters = |beacon: &DrawnBeacon| parameters_leaf_hash_drawn(&vector.parameters, &root, beacon);
    assert_eq!(drawn_parameters(&beacon), vector.drawn_parameters_leaf);
    let self_drawn = DrawnBeacon { source: BeaconSource::SelfDrawn, ..beacon.clone() };
    assert_eq!(drawn_parameters(&self_drawn), vector.self_drawn_parameters_leaf);
    let set_leaves: Vec<B256> = leaves.iter().zip(&drawn).map(|(leaf, drawn)| set_leaf_hash(leaf, *drawn)).collect();
    assert_eq!(set_leaves, vector.set_leaves);
    let set_root = SetTree::new(&vector.parameters, &root, &beacon, &set_leaves).unwrap().root();
    assert_eq!(set_root, vector.set_root);
}

#[test]
fn draws_are_the_low_bits_of_hmac_sha3() {
    for vector in vectors().draws {
        let index = draw_index(&vector.beacon, &vector.root, vector.leaf, vector.tenant, vector.candidates);
        assert_eq!(index, vector.index);
    }
}

#[test]
fn orders_are_the_same_shuffle() {
    for vector in vectors().orders {
        let leaves = u32::try_from(vector.order.len()).unwrap();
        assert_eq!(query_order(&vector.beacon, &vector.root, leaves), vector.order);
    }
}

#[test]
fn e_values_equal_exact_fractions() {
    for vector in vectors().e_values {
        let parameters = EProcessParameters { min_hit_rate: vector.min_hit_rate, ..EProcessParameters::default() };
        let mut process = EProcess::new(vector.candidates, parameters).unwrap();
        for reply in vector.replies.chars() {
            process.observe(match reply {
                'd' => Reply::Drawn,
                'o' => Reply::OtherCandidate,
                _ => Reply::Outside,
            });
        }
        assert_close(process.log10_e(), vector.log10_e, 1e-12, &vector.replies);
        assert_close(process.log10_reverse(), vector.log10_reverse, 1e-12, &vector.replies);
    }
}

#[test]
fn tails_equal_exact_fractions() {
    for Tail { trials, hits, p, ln_probability: ln_mass, ln_upper_tail: ln_tail, lower_tail: lower } in vectors().tails
    {
        let what = format!("{hits} of {trials} at {p}");
        assert_close(ln_probability(trials, hits, p).unwrap(), ln_mass, 1e-13, &what);
        assert_close(ln_upper_tail(trials, hits, p).unwrap(), ln_tail, 1e-13, &what);
        // Relative to the value itself, also where it is tiny.
        let found = lower_tail(trials, hits, p).unwrap();
        assert!((found - lower).abs() <= 1e-12 * lower, "{what}: {found} instead of {lower}");
    }
}

#[test]
fn quantiles_and_intervals() {
    let vectors = vectors();
    for Quantile { p, z } in vectors.quantiles {
        assert_close(normal_quantile(p), z, 1e-14, &format!("quantile of {p}"));
    }
    for IntervalOf { hits, trials, confidence, wilson: score } in vectors.intervals {
        let what = format!("{hits} of {trials}");
        let found = wilson(hits, trials, confidence).unwrap();
        assert_close(found.lower, score[0], 1e-9, &what);
        assert_close(found.upper, score[1], 1e-9, &what);
    }
}
