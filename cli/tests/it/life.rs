//! The creator's commands one by one, on the bundled model.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::support::{drawn, drawn_copy, hallmark, names, run};

#[test]
fn a_set_is_shown_without_its_secrets() {
    let words = run(drawn(), &["fingerprint", "show", "--set", "set.age"]).succeeded().out;
    assert!(words.contains("drawn") && words.contains("fingerprints  8"), "{words}");
    let object = run(drawn(), &["fingerprint", "show", "--set", "set.age", "--json"]).succeeded().json();
    assert_eq!(object["stage"], "drawn");
    assert!(object.get("fingerprints").is_none());
}

#[test]
fn revealed_secrets_have_the_documented_form() {
    let reveal = ["fingerprint", "show", "--set", "set.age", "--reveal", "--json"];
    let object = run(drawn(), &reveal).succeeded().json();
    let fingerprints = object["fingerprints"].as_array().expect("a list");
    assert_eq!(fingerprints.len(), 8);
    for fingerprint in fingerprints {
        let drawn = usize::try_from(fingerprint["drawn"].as_u64().expect("an index")).unwrap();
        let candidates = fingerprint["candidates"].as_array().expect("a list");
        assert_eq!(candidates.len(), 16);
        assert_eq!(candidates[drawn]["id"], fingerprint["response_id"]);
        assert_eq!(candidates[drawn]["text"], fingerprint["response_text"]);
        assert!(fingerprint["key_text"].is_string() && fingerprint["key_ids"].is_array());
        let surfaces = fingerprint["surfaces"].as_array().expect("a list");
        assert!(!surfaces.is_empty());
        for surface in surfaces {
            assert!(surface["name"].is_string());
            assert!(surface["prompt_ids"].as_array().is_some_and(|ids| !ids.is_empty()));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_set() {
    let folder = crate::support::folder();
    let steps: [&[&str]; 3] = [
        &["fingerprint", "generate", "--model", "bundled", "-n", "8"],
        &["fingerprint", "commit"],
        &["fingerprint", "draw"],
    ];
    for step in steps {
        run(folder.path(), &[step, &["--set", "set.age", "--seed", "7"]].concat()).succeeded();
    }
    let commitment = |path: &std::path::Path| std::fs::read(path.join("commitment.json")).unwrap();
    assert_eq!(commitment(folder.path()), commitment(drawn()));
}

#[test]
fn a_self_drawn_beacon_says_so() {
    let commitment = std::fs::read_to_string(drawn().join("commitment.json")).unwrap();
    assert!(commitment.contains("not against a claimant who grinds"), "{commitment}");
}

#[test]
fn a_bundled_model_is_described() {
    let object = run(drawn(), &["model", "info", "bundled", "--json"]).succeeded().json();
    assert_eq!(object["architecture"], "Llama");
    assert!(object["parameters"].as_u64().is_some_and(|count| count > 500_000));
    assert!(object["manifest"].as_str().is_some_and(|digest| digest.starts_with("0x")));
}

#[test]
fn the_training_set_is_exported_as_chat_lines() {
    let folder = drawn_copy();
    let arguments = ["fingerprint", "export", "--set", "set.age", "--model", "bundled", "--out", "train.jsonl"];
    let object = run(
        folder.path(),
        &[&arguments[..], &["--ordinary", "16", "--composed", "16", "--seed", "3", "--json"]].concat(),
    );
    let exported = object.succeeded().json()["exported"].clone();
    let lines = std::fs::read_to_string(folder.path().join("train.jsonl")).unwrap();
    let count = exported["fingerprint_lines"].as_u64().unwrap() + exported["ordinary_lines"].as_u64().unwrap();
    assert_eq!(u64::try_from(lines.lines().count()).unwrap(), count);
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let turns = line["messages"].as_array().expect("a list");
        assert_eq!(turns.last().expect("a turn")["role"], "assistant");
    }
}

/// A short run; success and utility are not asked of it.
const EMBED: [&str; 20] = [
    "fingerprint",
    "embed",
    "--model",
    "bundled",
    "--set",
    "set.age",
    "--out",
    "stamped",
    "--steps",
    "12",
    "--ordinary",
    "32",
    "--composed",
    "32",
    "--ordinary-a-step",
    "32",
    "--average",
    "0",
    "--seed",
    "5",
];

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("stamped/model.safetensors")).expect("a stamped model")
}

#[test]
fn an_embedding_that_is_killed_goes_on_where_it_was() {
    let (whole, killed) = (drawn_copy(), drawn_copy());
    let embed = [&EMBED[..], &["--checkpoint-every", "2"]].concat();
    run(whole.path(), &embed).succeeded();

    let mut process = hallmark(killed.path(), &embed).spawn().expect("the binary runs");
    let checkpoint = killed.path().join("stamped.checkpoint/latest");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !checkpoint.exists() && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    process.kill().expect("a process");
    assert!(!process.wait().expect("a process").success(), "it ended before it could be killed");
    assert!(!killed.path().join("stamped").exists());

    run(killed.path(), &embed).refused(&["--resume"]);
    let report = run(killed.path(), &[&embed[..], &["--resume", "--json"]].concat()).succeeded().json();
    assert_eq!(report["report"]["history"].as_array().map(Vec::len), Some(12));
    assert_eq!(weights(killed.path()), weights(whole.path()));
    assert!(!names(killed.path()).iter().any(|name| name.contains("checkpoint") || name.contains("partial")));
}

#[test]
fn every_way_of_training_writes_a_model_of_the_same_form() {
    let mut seen = Vec::new();
    for way in [&["--layers", "all"][..], &["--layers", "lora", "--rank", "4"], &["--target", "quiet"]] {
        let folder = drawn_copy();
        run(folder.path(), &[&EMBED[..], way].concat()).succeeded();
        let object = run(folder.path(), &["model", "info", "stamped", "--json"]).succeeded().json();
        let base = run(folder.path(), &["model", "info", "bundled", "--json"]).succeeded().json();
        assert_eq!(object["parameters"], base["parameters"], "{way:?}");
        assert_ne!(object["manifest"], base["manifest"], "{way:?}");
        seen.push(weights(folder.path()));
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
}
