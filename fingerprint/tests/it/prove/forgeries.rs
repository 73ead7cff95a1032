//! Forgers who know the format: they change a bundle's content and compute its digest again.

use alloy_primitives::keccak256;
use fingerprint::{
    bundle::{BundleError, QueryFault, verify_bundle},
    commitment::Commitment,
    prove::{Ledger, Outcome, ProofOptions, prove},
};
use protocol::e_process::EProcessParameters;
use serde_json::{Value, json};

use super::{
    proofs::order,
    server::Server,
    sets::{commitment, drawn, innocent_answers, stamped_answers},
};

struct Genuine {
    bundle: Value,
    commitment: Commitment,
}

impl Genuine {
    /// A proof with misses: every third answer is an innocent model's.
    async fn new() -> Self {
        let set = drawn(40, 16, 31);
        let mut answers = stamped_answers(&set);
        let innocent = innocent_answers(&set, 2);
        for fingerprint in set.fingerprints().iter().step_by(3) {
            answers.insert(fingerprint.key_text().to_owned(), innocent[fingerprint.key_text()].clone());
        }
        let server = Server::model(answers).await;
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("ledger.jsonl")).unwrap();
        let options = ProofOptions {
            system: Some("Be brief.".to_owned()),
            test: EProcessParameters { alpha: 1e-5, ..EProcessParameters::default() },
            ..ProofOptions::new(order(1))
        };
        let bundle = prove(&set, &mut server.client(), &mut ledger, &options, &mut |_| {}).await.unwrap();
        let report = bundle.report();
        assert!(report.outcome == Outcome::Proved && report.other_candidates > 0, "{report:?}");
        let genuine = Self { bundle: serde_json::from_slice(bundle.as_bytes()).unwrap(), commitment: commitment(&set) };
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

/// Gives queries the numbers of their places.
fn renumber(bundle: &mut Value) {
    for (query, number) in bundle["queries"].as_array_mut().unwrap().iter_mut().zip(0..) {
        query["position"] = json!(number);
    }
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
        renumber(bundle);
    });
    refused!(renumbered, BundleError::Query { fault: QueryFault::Order { .. }, .. });
    let burned = genuine.forge(|bundle| {
        bundle["order"]["burned_before"] = json!([bundle["queries"][miss]["leaf"]]);
        drop(bundle, miss);
        renumber(bundle);
    });
    // Called burned, the miss leaves the order; but the evidence then decides before the recorded end.
    refused!(burned, BundleError::Query { fault: QueryFault::Factors, .. });
    refused!(genuine.forge(|bundle| drop(bundle, last)), BundleError::Unfinished { .. });
    let swapped = genuine.forge(|bundle| {
        bundle["queries"].as_array_mut().unwrap().swap(0, 1);
        renumber(bundle);
    });
    refused!(swapped, BundleError::Query { query: 0, fault: QueryFault::Order { .. }, .. });
    let repeated = genuine.forge(|bundle| {
        let queries = bundle["queries"].as_array_mut().unwrap();
        queries.push(queries[0].clone());
        renumber(bundle);
    });
    refused!(repeated, BundleError::Query { fault: QueryFault::Repeated { .. }, .. });
    let none = genuine.forge(|bundle| bundle["queries"] = json!([]));
    refused!(none, BundleError::NoQueries);
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
    refused!(genuine.forge_query(1, |query| query["response"] = json!("{}")), QueryFault::Response(_));
    refused!(genuine.forge_query(miss, |query| query["matched"] = Value::Null), QueryFault::Matched { .. });
    refused!(genuine.forge_query(1, |query| query["status"] = json!(404)), QueryFault::Status { found: 404 });
    let hinted = genuine.forge_query(1, |query| {
        let request = query["request"].as_str().unwrap().replace("Be brief.", "Say amber.");
        query["request"] = json!(request);
    });
    refused!(hinted, QueryFault::Request);
    let other_system = genuine.forge(|bundle| bundle["endpoint"]["request"]["system"] = Value::Null);
    refused!(other_system, BundleError::Query { query: 0, fault: QueryFault::Request, .. });
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
    refused!(set("/test/alpha", json!("1e-9")), BundleError::Unfinished { .. });
    refused!(set("/test/alpha", json!("2e0")), BundleError::Test { .. });
    refused!(set("/test/alpha", json!("0.00001")), BundleError::NotCanonical { .. });
    refused!(set("/test/multiplicity", json!(0)), BundleError::Malformed { .. });
    refused!(set("/test/multiplicity", json!(1_000_000)), BundleError::Unfinished { .. });
    refused!(set("/test/min_hit_rate", json!("9e-1")), BundleError::Query { fault: QueryFault::Factors, .. });
    refused!(set("/test/max_queries", json!(2)), BundleError::TooManyQueries { max: 2, .. });
    let other_beacon = json!(format!("0x{}", "22".repeat(32)));
    refused!(set("/order/beacon", other_beacon.clone()), BundleError::Query { fault: QueryFault::Order { .. }, .. });
    refused!(set("/order/burned_before", json!([99])), BundleError::BurnedBefore);
    refused!(set("/order/burned_before", json!([3, 3])), BundleError::BurnedBefore);
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
    for field in ["queries", "drawn", "other_candidates", "outside", "empty"] {
        let forged = genuine.forge(|bundle| bundle["verdict"][field] = json!(77));
        refused!(forged, BundleError::Verdict);
    }
    for field in ["log10_e", "log10_error_bound", "log10_reverse"] {
        let forged = genuine.forge(|bundle| bundle["verdict"][field] = json!("-9.000000"));
        refused!(forged, BundleError::Verdict);
    }
}
