use std::collections::HashMap;

use protocol::{
    binomial::normal_quantile,
    draw::{draw_index, query_order},
    ids::{Beacon, CommitmentRoot, LeafIndex, Tenant},
    units::CandidateCount,
};

use crate::random::Random;

/// Asserts that counts in equally likely cells are neither too uneven nor too even: both happen to one fair draw in a
/// million, and the inputs are fixed, so this passes for good once it passes.
fn assert_uniform(counts: &[u32], what: &str) {
    let total: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let freedom = counts.len() as f64 - 1.0;
    let expected = total / (freedom + 1.0);
    assert!(expected >= 20.0, "{what}: too few draws for the approximation");
    let statistic: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    // Wilson and Hilferty: the cube root of chi-square over its degrees of freedom is nearly normal.
    let spread = 2.0 / (9.0 * freedom);
    let z = ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt();
    assert!(z.abs() < -normal_quantile(1e-6), "{what}: chi-square {statistic} with {freedom} degrees of freedom");
}

fn count(value: u16) -> CandidateCount {
    CandidateCount::new(value).unwrap()
}

fn tally(candidates: u16, draws: u32, draw: impl Fn(u32) -> u16) -> Vec<u32> {
    let mut counts = vec![0; usize::from(candidates)];
    for i in 0..draws {
        counts[usize::from(draw(i))] += 1;
    }
    counts
}

#[test]
fn drawn_indices_are_uniform_over_leaves_tenants_beacons_and_roots() {
    let mut random = Random::new(1);
    for candidates in [2, 16, 1024] {
        let draws = u32::from(candidates).max(64) * 40;
        let k = count(candidates);
        let (beacon, root) = (Beacon::from_bytes(random.bytes()), CommitmentRoot::from_bytes(random.bytes()));
        let over_leaves = |i| draw_index(&beacon, &root, LeafIndex::new(i), Tenant::SHARED, k).get();
        assert_uniform(&tally(candidates, draws, over_leaves), "leaves");
        let over_tenants = |i| draw_index(&beacon, &root, LeafIndex::new(3), Tenant::new(i), k).get();
        assert_uniform(&tally(candidates, draws, over_tenants), "tenants");
        let words: Vec<[u8; 32]> = (0..draws).map(|_| random.bytes()).collect();
        let word = |i: u32| words[usize::try_from(i).unwrap()];
        let over_beacons =
            |i| draw_index(&Beacon::from_bytes(word(i)), &root, LeafIndex::new(0), Tenant::SHARED, k).get();
        assert_uniform(&tally(candidates, draws, over_beacons), "beacons");
        let over_roots =
            |i| draw_index(&beacon, &CommitmentRoot::from_bytes(word(i)), LeafIndex::new(0), Tenant::SHARED, k).get();
        assert_uniform(&tally(candidates, draws, over_roots), "roots");
    }
}

#[test]
fn draws_of_neighbouring_leaves_and_of_two_tenants_are_independent() {
    let mut random = Random::new(2);
    let mut pairs = vec![0; 256];
    let mut tenants = vec![0; 256];
    for _ in 0..12_800 {
        let (beacon, root) = (Beacon::from_bytes(random.bytes()), CommitmentRoot::from_bytes(random.bytes()));
        let draw = |leaf, tenant| {
            draw_index(&beacon, &root, LeafIndex::new(leaf), Tenant::new(tenant), CandidateCount::DEFAULT).as_usize()
        };
        pairs[16 * draw(0, 0) + draw(1, 0)] += 1;
        tenants[16 * draw(0, 0) + draw(0, 1)] += 1;
    }
    assert_uniform(&pairs, "neighbouring leaves");
    assert_uniform(&tenants, "tenants");
}

#[test]
fn every_order_of_four_leaves_is_equally_likely() {
    let mut random = Random::new(3);
    let root = CommitmentRoot::from_bytes([7; 32]);
    let mut orders: HashMap<Vec<LeafIndex>, u32> = HashMap::new();
    for _ in 0..12_000 {
        *orders.entry(query_order(&Beacon::from_bytes(random.bytes()), &root, 4)).or_default() += 1;
    }
    assert_eq!(orders.len(), 24);
    assert_uniform(&orders.into_values().collect::<Vec<_>>(), "orders");
}

#[test]
fn each_leaf_of_a_longer_order_is_equally_likely_at_each_place() {
    let mut random = Random::new(4);
    let mut counts = vec![0; 11 * 11];
    for _ in 0..4_000 {
        let order = query_order(&Beacon::from_bytes(random.bytes()), &CommitmentRoot::from_bytes(random.bytes()), 11);
        for (place, leaf) in order.iter().enumerate() {
            counts[11 * place + leaf.as_usize()] += 1;
        }
    }
    // Every place and every leaf has the same sum, so a row is tested by itself.
    for row in counts.chunks(11) {
        assert_uniform(row, "place");
    }
}

#[test]
fn an_order_depends_on_beacon_and_root() {
    let order =
        |beacon, root| query_order(&Beacon::from_bytes([beacon; 32]), &CommitmentRoot::from_bytes([root; 32]), 64);
    assert_eq!(order(1, 1), order(1, 1));
    assert_ne!(order(1, 1), order(2, 1));
    assert_ne!(order(1, 1), order(1, 2));
}
