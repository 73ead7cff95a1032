//! The whole demo on the bundled model.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{folder, names, run};

const SEED: &str = "718281828459";

#[test]
fn demo_proves_the_stamped_model_and_not_the_original() {
    let folder = folder();
    let demo = run(folder.path(), &["demo", "--out", "demo", "--seed", SEED, "--json"]).succeeded();
    let object = demo.json();
    assert_eq!(object["stamped"]["verdict"], "proved", "{object:#}");
    assert_ne!(object["base"]["verdict"], "proved", "{object:#}");
    let place = folder.path().join("demo");
    check_files(&place);
    check_licence(&object);
    check_page(&place, &object);
    for report in ["report.html", "report.txt", "report.json"] {
        let text = fs::read_to_string(place.join(report)).unwrap();
        assert!(!text.contains(SEED), "{report} tells the seed, from which keys and responses can be made again");
    }
    check_again(folder.path());
}

/// Everything is there and nothing half-written is left.
fn check_files(place: &Path) {
    assert_eq!(
        names(place),
        [
            "attempt-on-original.json",
            "bundle.json",
            "chain.json",
            "commitment.json",
            "deployment.json",
            "host",
            "identity.txt",
            "report.html",
            "report.json",
            "report.txt",
            "set.age",
            "set.age.ledger.jsonl",
            "stamped",
            "statements.json",
            "vouchers.json"
        ]
    );
    assert!(names(&place.join("stamped")).contains(&"model.safetensors".to_owned()));
}

/// The commitment came before the draw, and nobody was paid in any other way than the terms say.
fn check_licence(object: &Value) {
    let (licence, payment) = (&object["licence"], &object["payment"]);
    assert!(licence["committed_in"].as_u64() < licence["draw_block"].as_u64(), "{licence:#}");
    let source = object["scheme"]["beacon_source"].as_str().unwrap();
    assert!(source.starts_with(&format!("prevrandao of block {} of chain 31337", licence["draw_block"])), "{source}");
    assert_eq!((&payment["requests"], &licence["slashable"]), (&Value::from(8), &Value::from("500 TEST")));
    let parts: Vec<(&str, f64)> = payment["shares"]
        .as_array()
        .unwrap()
        .iter()
        .map(|share| (share["who"].as_str().unwrap(), share["part"].as_f64().unwrap()))
        .collect();
    // A tenth is the royalty, a quarter of it the contributor's; what rounding leaves goes to the host.
    for ((who, part), (expected, least)) in
        parts.iter().zip([("host", 0.89), ("creator", 0.075), ("contributor", 0.025), ("validators", 0.01)])
    {
        assert_eq!(*who, expected);
        assert!((part - least).abs() < 2e-4, "{who} got {part}");
    }
    assert!((parts.iter().map(|(_, part)| part).sum::<f64>() - 1.0).abs() < 1e-9, "{parts:?}");
    let refused: Vec<&str> =
        payment["refused"].as_array().unwrap().iter().map(|attempt| attempt["error"].as_str().unwrap()).collect();
    assert_eq!(refused, ["MoreThanReported", "WrongSplits", "NotNewer"]);
}

fn check_page(place: &Path, object: &Value) {
    let page = fs::read_to_string(place.join("report.html")).unwrap();
    let text = fs::read_to_string(place.join("report.txt")).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(place.join("report.json")).unwrap()).unwrap();
    assert_eq!(&report, object);
    for words in ["Not this model", "Proved", "</html>"] {
        assert!(page.contains(words), "{words:?} is not in the page");
    }
    assert!(!page.contains("<script") && !page.contains("http-equiv=\"refresh\""));
    assert!(text.contains("PROVED"));
}

/// What a reader is told of the proof, and of one that aims too low for him.
fn check_words(folder: &Path, digest: &str) {
    let verify = ["verify-bundle", "demo/bundle.json", "--commitment", "demo/commitment.json"];
    let words = run(folder, &[&verify[..], &["--digest", digest]].concat()).succeeded().out;
    for part in [
        "The bundle is sound. It says: proved.",
        "model          model\n",
        "system prompt  none\n",
        "from position 0 of",
        "tested at 5.00e-7",
        "beacon source  prevrandao of block ",
        "a development chain that the claimant ran alone",
        "each published root",
    ] {
        assert!(words.contains(part), "{part:?} is not in\n{words}");
    }
    let strict = [&verify[..], &["--max-alpha", "1e-7"]].concat();
    let ran = run(folder, &strict);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.out.contains("aims at an error bound of 1e-6, and at most 1e-7 is accepted"), "{}", ran.out);
    assert!(!ran.out.contains("proved"), "{}", ran.out);
    let ran = run(folder, &[&strict[..], &["--json"]].concat());
    assert_eq!((ran.code, &ran.json()["proved"]), (3, &Value::Bool(false)));
    let other = digest.replace(&digest[..6], if digest.starts_with("0x0000") { "0x1111" } else { "0x0000" });
    run(folder, &[&verify[..], &["--digest", &other]].concat()).refused(&["refused", digest, &other]);
}

/// The bundle verifies by itself, and no altered byte of it does; the set opens with its identity.
fn check_again(folder: &Path) {
    let verify = ["verify-bundle", "demo/bundle.json", "--commitment", "demo/commitment.json", "--json"];
    let object = run(folder, &verify).succeeded().json();
    assert_eq!((&object["sound"], &object["proved"]), (&Value::Bool(true), &Value::Bool(true)));
    check_words(folder, object["report"]["digest"].as_str().unwrap());
    let bundle = fs::read(folder.join("demo/bundle.json")).unwrap();
    for position in (0..bundle.len()).step_by(bundle.len() / 23) {
        let mut altered = bundle.clone();
        altered[position] ^= 1;
        fs::write(folder.join("altered.json"), altered).unwrap();
        run(folder, &["verify-bundle", "altered.json", "--commitment", "demo/commitment.json"])
            .refused(&["altered.json", "refused"]);
    }
    let show = ["fingerprint", "show", "--set", "demo/set.age", "--identity", "demo/identity.txt", "--json"];
    assert_eq!(run(folder, &show).succeeded().json()["stage"], "embedded");
}
