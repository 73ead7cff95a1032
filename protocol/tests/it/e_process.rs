//! The sequential test by simulation and by exact enumeration.

use protocol::{
    binomial::ln_probability,
    draw::{draw_index, query_order},
    e_process::{Decision, EProcess, EProcessParameters, Reply, stake_factor},
    ids::{Beacon, CandidateIndex, CommitmentRoot, LeafIndex, Tenant},
    units::CandidateCount,
};

use crate::{golden, random::Random};

fn count(value: u16) -> CandidateCount {
    CandidateCount::new(value).unwrap()
}

/// A reply of a model that gives the drawn response and another candidate at these rates.
fn reply(random: &mut Random, hit: f64, other: f64) -> Reply {
    let u = random.unit();
    if u < hit {
        Reply::Drawn
    } else if u < hit + other {
        Reply::OtherCandidate
    } else {
        Reply::Outside
    }
}

/// Within this share and one query.
fn near(found: u32, expected: u32, share: f64) -> bool {
    (f64::from(found) - f64::from(expected)).abs() <= 1.0 + share * f64::from(expected)
}

/// Asserts that median and 95 % point of the simulated counts are the exact ones.
fn assert_points(mut queries: Vec<u32>, row: &golden::Queries) {
    queries.sort_unstable();
    let (median, percentile_95) = (queries[queries.len() / 2], queries[queries.len() * 95 / 100]);
    let what = format!("k {}, hit rate {}, 1e-{}", row.candidates, row.hit, row.digits);
    // About three standard deviations with the fewest runs, where the counts spread most.
    let right = near(median, row.median, 0.04) && near(percentile_95, row.percentile_95, 0.06);
    assert!(right, "{what}: {median} and {percentile_95}, not {} and {}", row.median, row.percentile_95);
}

/// Hits in a row that a single stake needs.
fn clean_hits(candidates: u16, stake: f64, alpha: f64) -> u32 {
    let factor = stake_factor(count(candidates), stake, Reply::Drawn);
    (1..).find(|&hits| factor.powi(hits) >= 1.0 / alpha).unwrap().unsigned_abs()
}

#[test]
fn clean_hits_to_proof_with_a_stake_of_nine_tenths() {
    for (candidates, expected) in [(8, [7, 11, 14]), (16, [6, 8, 11]), (64, [4, 6, 7]), (256, [3, 4, 6])] {
        assert_eq!([1e-6, 1e-9, 1e-12].map(|alpha| clean_hits(candidates, 0.9, alpha)), expected, "k {candidates}");
    }
}

#[test]
fn exact_query_counts_confirm_the_table_of_the_design() {
    // Rows: median and 95 % point to 1e-6 and median to 1e-9 with a stake of one half, from 2,000 runs each.
    let rates = [0.99, 0.6, 0.3, 0.1, 0.05, 0.02];
    let table = [
        (8, [(10, 11, 14), (16, 23, 24), (33, 50, 48), (103, 171, 153), (230, 394, 338), (811, 1670, 1233)]),
        (16, [(7, 8, 10), (11, 17, 17), (23, 38, 34), (71, 129, 106), (155, 274, 220), (472, 958, 688)]),
        (64, [(4, 4, 6), (6, 11, 10), (13, 26, 20), (42, 90, 64), (89, 188, 129), (238, 554, 372)]),
        (256, [(3, 3, 5), (5, 8, 8), (9, 20, 16), (28, 66, 47), (59, 147, 94), (166, 410, 237)]),
    ];
    let rows = golden::vectors().queries;
    for (candidates, cells) in table {
        for (hit, (median, percentile_95, dispute_median)) in rates.into_iter().zip(cells) {
            let exact = |digits: u32| {
                let found = rows
                    .iter()
                    .find(|row| (row.candidates, row.mixture, row.hit, row.digits) == (candidates, false, hit, digits));
                found.map(|row| (row.median, row.percentile_95)).unwrap()
            };
            let right = near(median, exact(6).0, 0.03)
                && near(percentile_95, exact(6).1, 0.03)
                && near(dispute_median, exact(9).0, 0.03);
            assert!(right, "k {candidates}, hit rate {hit}: {:?}, {:?}", exact(6), exact(9));
        }
    }
}

#[test]
fn queries_to_proof_by_simulation_with_a_stake_of_one_half() {
    let mut random = Random::new(31);
    for row in golden::vectors().queries.into_iter().filter(|row| !row.mixture) {
        let factor = |reply| stake_factor(count(row.candidates), 0.5, reply).log10();
        let (drawn, other_candidate) = (factor(Reply::Drawn), factor(Reply::OtherCandidate));
        let run = |_| {
            let (mut log10_e, mut queries) = (0.0, 0);
            while log10_e < f64::from(row.digits) {
                queries += 1;
                log10_e += match reply(&mut random, row.hit, row.other) {
                    Reply::Drawn => drawn,
                    Reply::OtherCandidate => other_candidate,
                    Reply::Outside => 0.0,
                };
            }
            queries
        };
        assert_points((0..6_000).map(run).collect(), &row);
    }
}

#[test]
fn queries_to_proof_by_simulation_with_the_mixture() {
    let mut random = Random::new(32);
    for row in golden::vectors().queries.into_iter().filter(|row| row.mixture) {
        // No reverse stop: how long the forward process takes is what is measured.
        let alpha = 10_f64.powi(-row.digits.cast_signed());
        let parameters = EProcessParameters { alpha, min_hit_rate: 1e-4, beta: 1e-9 };
        let run = |_| {
            let mut process = EProcess::new(count(row.candidates), parameters).unwrap();
            let mut queries = 0;
            while process.decision().is_none() {
                process.observe(reply(&mut random, row.hit, row.other));
                queries += 1;
            }
            assert_eq!(process.decision(), Some(Decision::Proved));
            queries
        };
        assert_points((0..1_500).map(run).collect(), &row);
    }
}

/// A process that has seen this many replies of each kind.
fn after(candidates: u16, parameters: EProcessParameters, drawn: u32, other_candidate: u32, outside: u32) -> EProcess {
    let mut process = EProcess::new(count(candidates), parameters).unwrap();
    for (reply, times) in [(Reply::Drawn, drawn), (Reply::OtherCandidate, other_candidate), (Reply::Outside, outside)] {
        for _ in 0..times {
            process.observe(reply);
        }
    }
    process
}

#[test]
fn the_forward_process_of_an_innocent_model_has_mean_one() {
    // Exactly, by going through all counts: `n` queries, a share of them inside the list, one in `k` of those drawn.
    for (candidates, inside) in [(2, 1.0), (16, 0.05), (16, 0.3), (16, 1.0), (1024, 0.7)] {
        for n in [1, 7, 25] {
            let mut mean = 0.0;
            for in_list in 0..=n {
                for drawn in 0..=in_list {
                    let chance = ln_probability(n, in_list, inside).unwrap()
                        + ln_probability(in_list, drawn, 1.0 / f64::from(candidates)).unwrap();
                    let process = after(candidates, EProcessParameters::default(), drawn, in_list - drawn, n - in_list);
                    mean += (chance + process.log10_e() * std::f64::consts::LN_10).exp();
                }
            }
            assert!((mean - 1.0).abs() < 1e-9, "k {candidates}, inside {inside}, n {n}: {mean}");
        }
    }
}

#[test]
fn the_reverse_process_has_mean_one_at_the_smallest_rate_and_less_above_it() {
    for min_hit_rate in [0.05, 0.5, 0.9] {
        let parameters = EProcessParameters { min_hit_rate, ..EProcessParameters::default() };
        for n in [1, 7, 60] {
            let mean = |rate: f64| -> f64 {
                let term = |drawn| {
                    let ln_e = after(16, parameters, drawn, 0, n - drawn).log10_reverse() * std::f64::consts::LN_10;
                    (ln_probability(n, drawn, rate).unwrap() + ln_e).exp()
                };
                (0..=n).map(term).sum()
            };
            assert!((mean(min_hit_rate) - 1.0).abs() < 1e-9, "rate {min_hit_rate}, n {n}");
            let above = min_hit_rate + 0.3 * (1.0 - min_hit_rate);
            assert!(mean(above) < 1.0 && mean(0.9 * min_hit_rate) > 1.0, "rate {min_hit_rate}, n {n}");
        }
    }
}

/// Share of runs of 300 queries in which an innocent model's E ever reaches 20, for one stake or for the mixture.
fn false_alarms(random: &mut Random, stake: Option<f64>, inside: f64, runs: u32) -> f64 {
    let parameters = EProcessParameters { alpha: 0.05, min_hit_rate: 1e-4, beta: 1e-9 };
    let k = CandidateCount::DEFAULT;
    let hit = inside / f64::from(k.get());
    let mut alarms = 0;
    for _ in 0..runs {
        let mut process = EProcess::new(k, parameters).unwrap();
        let mut e = 1.0;
        for _ in 0..300 {
            let reply = reply(random, hit, inside - hit);
            let crossed = match stake {
                Some(stake) => {
                    e *= stake_factor(k, stake, reply);
                    e >= 1.0 / parameters.alpha
                }
                None => {
                    process.observe(reply);
                    process.decision() == Some(Decision::Proved)
                }
            };
            if crossed {
                alarms += 1;
                break;
            }
        }
    }
    f64::from(alarms) / f64::from(runs)
}

#[test]
fn false_alarms_stay_below_alpha() {
    let mut random = Random::new(33);
    for inside in [0.05, 0.3, 1.0] {
        // Measured for the design with few runs: 0.012 to 0.014.
        let single = false_alarms(&mut random, Some(0.9), inside, 20_000);
        assert!((0.009..=0.017).contains(&single), "stake 0.9, inside {inside}: {single}");
    }
    for inside in [0.05, 0.3, 1.0] {
        let mixture = false_alarms(&mut random, None, inside, 4_000);
        // Not far below either, or the test would be wasting queries.
        assert!((0.005..=0.05).contains(&mixture), "mixture, inside {inside}: {mixture}");
    }
}

#[test]
fn a_fixed_model_is_not_accused_by_real_draws() {
    // The model may know the lists and always answers with the same candidate of each; only the draw is random.
    let parameters = EProcessParameters { alpha: 0.05, min_hit_rate: 1e-4, beta: 1e-9 };
    let mut random = Random::new(34);
    let (runs, mut alarms, mut hits) = (1_500, 0, 0);
    for _ in 0..runs {
        let (beacon, root) = (Beacon::from_bytes(random.bytes()), CommitmentRoot::from_bytes(random.bytes()));
        let mut process = EProcess::new(CandidateCount::DEFAULT, parameters).unwrap();
        for leaf in query_order(&beacon, &root, 100) {
            let drawn = draw_index(&beacon, &root, leaf, Tenant::SHARED, CandidateCount::DEFAULT);
            let answer = CandidateIndex::new(u16::try_from(leaf.get() * 7 % 16).unwrap());
            process.observe(Reply::of(Some(answer), drawn));
        }
        alarms += u32::from(process.decision() == Some(Decision::Proved));
        hits += process.counts().drawn;
    }
    let rate = f64::from(hits) / (100.0 * f64::from(runs));
    assert!((rate - 1.0 / 16.0).abs() < 0.0025, "hit rate {rate}");
    let alarms = f64::from(alarms) / f64::from(runs);
    assert!((0.003..=0.05).contains(&alarms), "false alarms {alarms}");
}

#[test]
fn a_stamped_model_is_not_given_up() {
    // Leaves are asked without replacement, which makes the process no more likely to cross.
    let parameters = EProcessParameters { alpha: 1e-300, min_hit_rate: 0.5, beta: 0.05 };
    let root = CommitmentRoot::from_bytes([3; 32]);
    let mut random = Random::new(35);
    let runs = 3_000;
    let mut given_up = |leaves: u32, hits: &dyn Fn(&mut Random, LeafIndex) -> bool| {
        let mut count = 0;
        for _ in 0..runs {
            let order = query_order(&Beacon::from_bytes(random.bytes()), &root, leaves);
            let mut process = EProcess::new(CandidateCount::DEFAULT, parameters).unwrap();
            for leaf in order {
                let reply = if hits(&mut random, leaf) { Reply::Drawn } else { Reply::Outside };
                process.observe(reply);
            }
            count += u32::from(process.decision() == Some(Decision::NotThisModel));
        }
        f64::from(count) / f64::from(runs)
    };
    let independent = given_up(64, &|random, _| random.unit() < 0.5);
    assert!((0.01..=0.05).contains(&independent), "independent replies: {independent}");
    let half_of_the_keys = given_up(64, &|_, leaf| leaf.get() % 2 == 0);
    assert!(half_of_the_keys <= 0.05, "half of the keys: {half_of_the_keys}");
    let nearly_all = given_up(64, &|random, _| random.unit() < 0.98);
    assert!(nearly_all == 0.0, "98 % of replies: {nearly_all}");
}
