//! Forgers who know the format: they change a bundle's content and compute its digest again.

use std::future::pending;

use alloy_primitives::keccak256;
use fingerprint::{
    bundle::{BundleError, QueryFault, verify_bundle},
    commitment::Commitment,
    prove::{Ledger, Outcome, ProofOptions, prove},
    set::FingerprintSet,
    surface::SystemPrompt,
};
use protocol::{
    draw::query_order,
    e_process::{Decision, EProcess, EProcessParameters, Reply, rounded, share_of_alpha},
    ids::CandidateIndex,
    units::CandidateCount,
};
use serde_json::{Value, json};

use super::{
    server::Server,
    sets::{commitment, drawn, stamped_answers},
};

struct Genuine {
    bundle: Value,
    commitment: Commitment,
}

impl Genuine {
    /// A proof with misses: the answers at positions 1, 4, 7 … of the order are those of a model with another draw.
    async fn new() -> Self {
        let set = drawn(40, 16, 31);
        let mut answers = stamped_answers(&set);
        let order = query_order(&set.beacon().unwrap().value, &set.root().unwrap(), 40);
        for leaf in order.iter().skip(1).step_by(3) {
            let fingerprint = set.fingerprint(*leaf).unwrap();
            let other = (fingerprint.drawn().unwrap().as_usize() + 1) % 16;
            answers.insert(fingerprint.key_text().to_owned(), fingerprint.candidates()[other].text.clone());
        }
        let options = ProofOptions {
            system: SystemPrompt::named("unseen-brief"),
            test: EProcessParameters { alpha: 1e-5, ..EProcessParameters::default() },
            ..ProofOptions::default()
        };
        let genuine = Self::of(&set, &Server::model(answers).await, options).await;
        assert_eq!(genuine.bundle["verdict"]["outcome"], "proved");
        assert_ne!(genuine.bundle["verdict"]["other_candidates"], 0);
        genuine
    }

    async fn of(set: &FingerprintSet, server: &Server, options: ProofOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("ledger.jsonl")).unwrap();
        let proof = prove(set, &mut server.client(), &mut ledger, &options, pending(), &mut |_| {}).await.unwrap();
        let bundle = proof.bundle;
        let genuine = Self { bundle: serde_json::from_slice(bundle.as_bytes()).unwrap(), commitment: commitment(set) };
        assert_eq!(serde_json::to_vec(&genuine.bundle).unwrap(), bundle.as_bytes());
        genuine
    }

    fn forge(&self, change: impl FnOnce(&mut Value)) -> BundleError {
        let mut bundle = self.bundle.clone();
        change(&mut bundle);
        assert_ne!(bundle, self.bundle, "the forgery changes nothing");
        verify_bundle(&redigested(bundle), &self.commitment).unwrap_err()
    }

    fn forge_query(&self, query: usize, change: impl FnOnce(&mut Value)) -> QueryFault {
        match self.forge(|bundle| change(&mut bundle["queries"][query])) {
            BundleError::Query { query: found, fault, .. } if found as usize == query => fault,
            other => panic!("not refused for query {query}: {other:?}"),
        }
    }

    fn queries(&self) -> &[Value] {
        self.bundle["queries"].as_array().unwrap()
    }

    /// A query whose reply was another candidate.
    fn miss(&self) -> usize {
        self.queries().iter().position(|query| query["matched"] != query["opening"]["drawn"]).unwrap()
    }
}

fn redigested(mut bundle: Value) -> Vec<u8> {
    bundle.as_object_mut().unwrap().shift_remove("digest");
    let digest = keccak256(serde_json::to_vec(&bundle).unwrap());
    bundle["digest"] = json!(format!("{digest:#x}"));
    serde_json::to_vec(&bundle).unwrap()
}

/// Gives queries the positions of their places, and computes factors and verdict as their replies give them: what a
/// forger does who has read the verifier.
fn retold(bundle: &mut Value) {
    let number = |value: &Value| value.as_str().unwrap().parse().unwrap();
    let test = &bundle["test"];
    let parameters = EProcessParameters {
        alpha: number(&test["alpha"]),
        min_hit_rate: number(&test["min_hit_rate"]),
        beta: number(&test["beta"]),
    };
    let mut failed = 0;
    let start = u32::try_from(test["start"].as_u64().unwrap()).unwrap();
    let mut process = EProcess::new(CandidateCount::DEFAULT, parameters.starting_at(start)).unwrap();
    let digits = |number: f64| json!(format!("{:.6}", rounded(number) + 0.0));
    for (query, position) in bundle["queries"].as_array_mut().unwrap().iter_mut().zip(start..) {
        let index = |value: &Value| value.as_u64().map(|index| CandidateIndex::new(u16::try_from(index).unwrap()));
        let drawn = index(&query["opening"]["drawn"]).unwrap();
        let (forward, reverse) = if query["status"] == 200 {
            let factors = process.observe(Reply::of(index(&query["matched"]), drawn));
            (factors.forward, factors.reverse)
        } else {
            failed += 1;
            (1.0, 1.0)
        };
        query["position"] = json!(position);
        query["factors"] = json!({
            "log10_factor": digits(forward.log10()),
            "log10_e": digits(process.log10_e()),
            "log10_reverse_factor": digits(reverse.log10()),
            "log10_reverse": digits(process.log10_reverse()),
        });
    }
    let counts = process.counts();
    let outcome = match process.decision() {
        Some(Decision::Proved) => "proved",
        Some(Decision::NotThisModel) => "not_this_model",
        None => "undecided",
    };
    let bound = (process.error_bound() / share_of_alpha(start)).log10().min(0.0);
    let verdict = bundle["verdict"].as_object_mut().unwrap();
    verdict["outcome"] = json!(outcome);
    verdict["queries"] = json!(counts.drawn + counts.other_candidate + counts.outside + failed);
    verdict["drawn"] = json!(counts.drawn);
    verdict["other_candidates"] = json!(counts.other_candidate);
    verdict["outside"] = json!(counts.outside);
    verdict["failed"] = json!(failed);
    verdict["log10_e"] = digits(process.log10_e());
    verdict["log10_error_bound"] = digits(bound);
    verdict["log10_reverse"] = digits(process.log10_reverse());
}

macro_rules! refused {
    ($forged:expr, $pattern:pat) => {
        let forged = $forged;
        assert!(matches!(forged, $pattern), "{forged:?} is not {}", stringify!($pattern));
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn genuine_bundle_survives_its_own_digest() {
    let genuine = Genuine::new().await;
    verify_bundle(&redigested(genuine.bundle.clone()), &genuine.commitment).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_cannot_be_dropped_reordered_or_repeated() {
    let genuine = Genuine::new().await;
    let (miss, last) = (genuine.miss(), genuine.queries().len() - 1);
    let drop = |bundle: &mut Value, place| {
        bundle["queries"].as_array_mut().unwrap().remove(place);
    };
    refused!(genuine.forge(|bundle| drop(bundle, miss)), BundleError::Query { fault: QueryFault::Position { .. }, .. });
    let renumbered = genuine.forge(|bundle| {
        drop(bundle, miss);
        retold(bundle);
    });
    refused!(renumbered, BundleError::Query { fault: QueryFault::Order { .. }, .. });
    // Without its last query the evidence no longer proves anything, and the figures say otherwise.
    refused!(
        genuine.forge(|bundle| drop(bundle, last)),
        BundleError::Outcome { expected: Outcome::Undecided, found: Outcome::Proved }
    );
    let swapped = genuine.forge(|bundle| {
        bundle["queries"].as_array_mut().unwrap().swap(0, 1);
        retold(bundle);
    });
    refused!(swapped, BundleError::Query { query: 0, fault: QueryFault::Order { .. }, .. });
    let repeated = genuine.forge(|bundle| {
        let queries = bundle["queries"].as_array_mut().unwrap();
        queries.push(queries[0].clone());
        retold(bundle);
    });
    refused!(repeated, BundleError::Query { fault: QueryFault::Order { .. }, .. });
    let none = genuine.forge(|bundle| bundle["queries"] = json!([]));
    refused!(none, BundleError::NoQueries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_cannot_be_moved_or_thinned_out() {
    let genuine = Genuine::new().await;
    let miss = genuine.miss();
    // The claimant's ideal: only the hits, as if the order had no misses.
    let only_hits = genuine.forge(|bundle| {
        let queries = bundle["queries"].as_array_mut().unwrap();
        queries.retain(|query| query["matched"] == query["opening"]["drawn"]);
        retold(bundle);
    });
    refused!(only_hits, BundleError::Query { fault: QueryFault::Order { .. }, .. });
    // Everything up to the miss called used before: a sound run, but at a level that it does not reach.
    let mut later = genuine.bundle.clone();
    later["queries"].as_array_mut().unwrap().drain(..=miss);
    later["test"]["start"] = json!(miss + 1);
    retold(&mut later);
    let report = verify_bundle(&redigested(later.clone()), &genuine.commitment).unwrap();
    assert_eq!((report.outcome, report.start as usize), (Outcome::Undecided, miss + 1));
    let share = f64::from(report.start + 1) * f64::from(report.start + 2);
    assert!((report.level * share - report.alpha).abs() < 1e-12);
    later["verdict"]["outcome"] = json!("proved");
    let error = verify_bundle(&redigested(later), &genuine.commitment).unwrap_err();
    refused!(error, BundleError::Outcome { expected: Outcome::Undecided, found: Outcome::Proved });
    // The same leaves at another position.
    let shifted = genuine.forge(|bundle| {
        bundle["test"]["start"] = json!(1);
        retold(bundle);
    });
    refused!(shifted, BundleError::Query { query: 0, fault: QueryFault::Order { .. }, .. });
    // One more after the last leaf.
    let set = drawn(6, 16, 32);
    let server = Server::model([].into()).await;
    let whole = Genuine::of(&set, &server, ProofOptions::default()).await;
    let beyond = whole.forge(|bundle| {
        let queries = bundle["queries"].as_array_mut().unwrap();
        queries.push(queries[0].clone());
        retold(bundle);
    });
    refused!(beyond, BundleError::Query { query: 6, fault: QueryFault::NoLeafLeft, .. });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_forged_file_cannot_ask_for_much_work() {
    // A commitment to one leaf that claims to have as many as a number can say.
    let genuine = Genuine::new().await;
    let mut commitment: Value = serde_json::from_str(&genuine.commitment.to_json()).unwrap();
    for fingerprints in [(1_u32 << 20) + 1, u32::MAX - 1] {
        commitment["parameters"]["fingerprints"] = json!(fingerprints);
        let error = Commitment::from_json(commitment.to_string().as_bytes()).unwrap_err();
        let fingerprint::commitment::CommitmentError::Roots { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source, protocol::commitment::CommitmentError::Size { fingerprints });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openings_cannot_be_changed() {
    let genuine = Genuine::new().await;
    let miss = genuine.miss();
    let swap_drawn = genuine.forge_query(miss, |query| query["opening"]["drawn"] = query["matched"].clone());
    refused!(swap_drawn, QueryFault::Drawn { .. });
    let key = genuine.forge_query(1, |query| query["opening"]["key"] = json!("Another key"));
    refused!(key, QueryFault::KeyPath(_));
    let salt = genuine.forge_query(1, |query| query["opening"]["salt"] = json!(format!("0x{}", "11".repeat(32))));
    refused!(salt, QueryFault::KeyPath(_));
    let reordered = genuine.forge_query(miss, |query| query["opening"]["candidates"].as_array_mut().unwrap().reverse());
    refused!(reordered, QueryFault::KeyPath(_));
    let shorter = genuine.forge_query(1, |query| {
        query["opening"]["candidates"].as_array_mut().unwrap().pop();
    });
    refused!(shorter, QueryFault::KeyPath(_));
    let sibling = genuine.forge_query(1, |query| query["opening"]["set_path"] = query["opening"]["key_path"].clone());
    refused!(sibling, QueryFault::SetPath(_));
    let swapped = genuine.forge_query(1, |query| {
        let opening = query["opening"].as_object_mut().unwrap();
        let (key, set) = (opening["key_path"].clone(), opening["set_path"].clone());
        opening["key_path"] = set;
        opening["set_path"] = key;
    });
    refused!(swapped, QueryFault::KeyPath(_));
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_cannot_be_changed() {
    let genuine = Genuine::new().await;
    let miss = genuine.miss();
    let answer = |text: &Value| json!(json!({ "choices": [{ "message": { "content": text } }] }).to_string());
    let better = genuine.forge_query(miss, |query| {
        let drawn = query["opening"]["drawn"].as_u64().unwrap() as usize;
        query["response"] = answer(&query["opening"]["candidates"][drawn]["text"]);
    });
    refused!(better, QueryFault::Matched { .. });
    let better_and_matched = genuine.forge_query(miss, |query| {
        let drawn = query["opening"]["drawn"].as_u64().unwrap() as usize;
        query["response"] = answer(&query["opening"]["candidates"][drawn]["text"]);
        query["matched"] = query["opening"]["drawn"].clone();
    });
    refused!(better_and_matched, QueryFault::Factors);
    // An answer without a reply matches nothing and moves nothing, whatever the bundle says of it.
    for failed in [json!("{}"), json!(""), json!("<html>")] {
        let forged = genuine.forge_query(0, |query| query["response"] = failed.clone());
        refused!(forged, QueryFault::Matched { expected: None, found: Some(_) });
        let unmatched = genuine.forge_query(0, |query| {
            query["response"] = failed;
            query["matched"] = Value::Null;
        });
        refused!(unmatched, QueryFault::Factors);
    }
    refused!(genuine.forge_query(miss, |query| query["matched"] = Value::Null), QueryFault::Matched { .. });
    for status in [json!(404), json!(302), json!(500), Value::Null] {
        let forged = genuine.forge_query(0, |query| query["status"] = status);
        refused!(forged, QueryFault::Matched { expected: None, found: Some(_) });
    }
    // Failures told consistently are a run with worse evidence, and no more than a proof allows in a row.
    let fail = |bundle: &mut Value, count: usize| {
        for query in bundle["queries"].as_array_mut().unwrap().iter_mut().take(count) {
            query["status"] = Value::Null;
            query["response"] = json!("");
            query["matched"] = Value::Null;
        }
        retold(bundle);
    };
    let mut four = genuine.bundle.clone();
    four["queries"].as_array_mut().unwrap().truncate(4);
    fail(&mut four, 4);
    let report = verify_bundle(&redigested(four), &genuine.commitment).unwrap();
    assert_eq!((report.outcome, report.failed, report.log10_e), (Outcome::Undecided, 4, 0.0));
    assert!(report.reservations.last().unwrap().contains("the prover's word"));
    refused!(
        genuine.forge(|bundle| fail(bundle, 4)),
        BundleError::Query { query: 4, fault: QueryFault::AfterFailures, .. }
    );
    let hinted = genuine.forge_query(1, |query| {
        let request = query["request"].as_str().unwrap().replace("Be brief.", "Say amber.");
        query["request"] = json!(request);
    });
    refused!(hinted, QueryFault::Request);
    let other_system = genuine.forge(|bundle| bundle["endpoint"]["request"]["system"] = Value::Null);
    refused!(other_system, BundleError::Query { query: 0, fault: QueryFault::Request, .. });
    // A prompt that tells the answers, told truthfully: only that it is not built in gives it away.
    let crib = genuine.forge(|bundle| {
        bundle["endpoint"]["request"]["system"] = json!("Say amber.");
        for query in bundle["queries"].as_array_mut().unwrap() {
            query["request"] = json!(query["request"].as_str().unwrap().replace("Be brief.", "Say amber."));
        }
    });
    refused!(crib, BundleError::Endpoint { what: "its system prompt is not built in, so it could hold the answers" });
    refused!(genuine.forge_query(1, |query| query["started_unix_ms"] = json!(1)), QueryFault::Time);
    refused!(genuine.forge_query(1, |query| query["finished_unix_ms"] = json!(1)), QueryFault::Time);
    for factor in ["log10_factor", "log10_e", "log10_reverse_factor", "log10_reverse"] {
        refused!(genuine.forge_query(1, |query| query["factors"][factor] = json!("9.000000")), QueryFault::Factors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn test_order_and_verdict_cannot_be_changed() {
    let genuine = Genuine::new().await;
    let set = |path: &'static str, value: Value| genuine.forge(|bundle| *bundle.pointer_mut(path).unwrap() = value);
    // A laxer test would have ended earlier, a stricter one later.
    refused!(set("/test/alpha", json!("1e-1")), BundleError::Query { fault: QueryFault::AfterDecision, .. });
    refused!(set("/test/alpha", json!("1e-9")), BundleError::Outcome { expected: Outcome::Undecided, .. });
    refused!(set("/test/alpha", json!("2e0")), BundleError::Test { .. });
    refused!(set("/test/alpha", json!("0.00001")), BundleError::NotCanonical { .. });
    refused!(set("/test/min_hit_rate", json!("9e-1")), BundleError::Query { fault: QueryFault::Factors, .. });
    refused!(set("/test/max_queries", json!(2)), BundleError::TooManyQueries { max: 2, .. });
    refused!(set("/test/max_queries", json!(0)), BundleError::Malformed { .. });
    refused!(set("/test/start", json!(1)), BundleError::Query { fault: QueryFault::Position { .. }, .. });
    refused!(set("/test/start", json!(40)), BundleError::Start { start: 40, leaves: 40 });
    refused!(set("/test/start", json!(u32::MAX)), BundleError::Start { .. });
    let other_beacon = json!(format!("0x{}", "22".repeat(32)));
    refused!(set("/endpoint/request/kind", json!("completion")), BundleError::Endpoint { .. });
    refused!(set("/endpoint/url", json!("http://me:key@host/v1/chat/completions")), BundleError::Endpoint { .. });
    for (field, value) in [("root", &other_beacon), ("set_root", &other_beacon), ("beacon", &other_beacon)] {
        let forged = genuine.forge(|bundle| bundle["commitment"][field] = value.clone());
        refused!(forged, BundleError::OtherCommitment { .. });
    }
    refused!(set("/commitment/beacon_source", json!("self-drawn")), BundleError::OtherCommitment { what: "beacon" });
    refused!(set("/commitment/parameters/candidates", json!(32)), BundleError::OtherCommitment { .. });
    refused!(set("/commitment/parameters_path/siblings/0", other_beacon.clone()), BundleError::Parameters { .. });
    refused!(set("/commitment/drawn_parameters_path/siblings/0", other_beacon), BundleError::DrawnParameters { .. });
    refused!(set("/verdict/outcome", json!("undecided")), BundleError::Outcome { .. });
    for field in ["queries", "drawn", "other_candidates", "outside", "empty", "failed"] {
        let forged = genuine.forge(|bundle| bundle["verdict"][field] = json!(77));
        refused!(forged, BundleError::Verdict);
    }
    for field in ["log10_e", "log10_error_bound", "log10_reverse"] {
        let forged = genuine.forge(|bundle| bundle["verdict"][field] = json!("-9.000000"));
        refused!(forged, BundleError::Verdict);
    }
}
