//! The tables of fixed-size tests that the design was made with: exact binomial, so equal to the last digit.

use protocol::binomial::{ln_upper_tail, lower_tail, upper_tail};

/// The fewest hits that a rate of `p` reaches with probability at most `alpha`.
fn minimum_hits(trials: u32, p: f64, alpha: f64) -> Option<u32> {
    (0..=trials).find(|&hits| ln_upper_tail(trials, hits, p).unwrap() <= alpha.ln())
}

#[test]
fn minimum_hits_of_the_measured_null() {
    let sizes = [5, 10, 20, 50, 100, 200];
    let table: [(f64, f64, [Option<u32>; 6]); 9] = [
        (0.05, 1e-6, [Some(5), Some(7), Some(9), Some(13), Some(19), Some(28)]),
        (0.05, 1e-9, [None, Some(9), Some(11), Some(17), Some(23), Some(34)]),
        (0.01, 1e-6, [Some(4), Some(5), Some(6), Some(7), Some(9), Some(13)]),
        (0.01, 1e-9, [Some(5), Some(6), Some(7), Some(10), Some(12), Some(16)]),
        (1.0 / 256.0, 1e-6, [Some(3), Some(4), Some(5), Some(6), Some(7), Some(9)]),
        (1.0 / 256.0, 1e-9, [Some(5), Some(5), Some(6), Some(8), Some(9), Some(11)]),
        (0.001, 1e-6, [Some(3), Some(3), Some(4), Some(4), Some(5), Some(6)]),
        (1.0 / 65536.0, 1e-6, [Some(2), Some(2), Some(2), Some(2), Some(3), Some(3)]),
        (1.0 / 65536.0, 1e-9, [Some(3), Some(3), Some(3), Some(3), Some(3), Some(4)]),
    ];
    for (p, alpha, expected) in table {
        assert_eq!(sizes.map(|n| minimum_hits(n, p, alpha)), expected, "p0 {p}, alpha {alpha}");
    }
}

#[test]
fn minimum_hits_of_the_design_null() {
    let sizes = [20, 32, 64, 100, 200];
    for (candidates, alpha, expected) in [
        (2.0, 1e-6, [20, 30, 51, 74, 134]),
        (3.0, 1e-6, [18, 25, 41, 58, 100]),
        (3.0, 1e-9, [20, 28, 46, 64, 109]),
        (8.0, 1e-6, [12, 16, 24, 31, 51]),
        (16.0, 1e-6, [10, 12, 17, 21, 33]),
        (16.0, 1e-9, [12, 15, 21, 26, 38]),
    ] {
        assert_eq!(
            sizes.map(|n| minimum_hits(n, 1.0 / candidates, alpha)),
            expected.map(Some),
            "k {candidates}, alpha {alpha}"
        );
    }
}

#[test]
fn power_of_the_fixed_size_test() {
    for (n, rate, power, digits) in [
        (10, 0.6, 0.83, 2),
        (20, 0.6, 0.998, 3),
        (20, 0.3, 0.58, 2),
        (50, 0.3, 0.9975, 4),
        (100, 0.1, 0.68, 2),
        (200, 0.1, 0.968, 3),
        (200, 0.05, 0.20, 2),
    ] {
        let hits = minimum_hits(n, 0.01, 1e-6).unwrap();
        let found = upper_tail(n, hits, rate).unwrap();
        assert!((found - power).abs() <= 0.51 * 10_f64.powi(-digits), "n {n}, rate {rate}: {found}");
    }
}

#[test]
fn all_hits_of_three_candidates() {
    for (n, expected) in [(5, 0.0041), (10, 1.7e-5), (20, 2.9e-10)] {
        let found = upper_tail(n, n, 1.0 / 3.0).unwrap();
        assert!((found / expected - 1.0).abs() < 0.02, "{n}: {found}");
        assert!((found / (1.0_f64 / 3.0).powi(i32::try_from(n).unwrap()) - 1.0).abs() < 1e-13);
    }
}

#[test]
fn trials_without_a_hit_that_certify_a_rate() {
    for (trials, miss, rate) in [(299, 0.05, 0.01), (688, 0.001, 0.01), (2_995, 0.05, 0.001), (6_905, 0.001, 0.001)] {
        let none = |trials| lower_tail(trials, 0, rate).unwrap();
        assert!(none(trials) <= miss && none(trials - 1) > miss, "{trials}");
    }
}
