//! `hallmark devnet`: ready soon, stopped cleanly, gone on with.

use std::{fs, net::TcpListener};

use serde_json::json;

use super::running::{CREATOR, Devnet, World, number};
use crate::support::{Ran, folder, hallmark, names, run};

const MANIFEST: &str = "0x0707070707070707070707070707070707070707070707070707070707070707";

#[test]
fn it_is_ready_in_seconds_and_says_how_many() {
    let folder = folder();
    let devnet = Devnet::start(folder.path(), &["--port", "0", "--deployment", "local.json"]);
    let told = devnet.ready["ready_ms"].as_u64().unwrap();
    eprintln!("ready in {told} ms by its own clock, {:?} with the start of the process", devnet.took);
    assert!(u128::from(told) <= devnet.took.as_millis());
    // The file names every contract, and each is there.
    let file: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("local.json")).unwrap()).unwrap();
    assert_eq!(file, devnet.ready["deployment"]);
    for contract in [
        "model_registry",
        "lease_manager",
        "payment_escrow",
        "usage_log",
        "audit_service_manager",
        "evidence_court",
        "test_token",
    ] {
        let code = devnet.rpc("eth_getCode", json!([file[contract], "latest"]));
        assert!(code.as_str().unwrap().len() > 1_000, "{contract}");
    }
    assert!(file["eigenlayer"]["delegation_manager"].is_string());
    // Eight accounts with coins, whose keys are told.
    let accounts = devnet.ready["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 8);
    for account in accounts {
        assert_eq!(account["private_key"].as_str().unwrap().len(), 66);
        let coins = devnet.rpc("eth_getBalance", json!([account["address"], "latest"]));
        assert!(coins.as_str().unwrap().len() > 18, "{coins}");
    }
    assert_eq!(names(folder.path()), ["local.json"], "nothing else is left behind");
}

#[test]
fn people_read_where_it_is_and_what_to_use() {
    let folder = folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let child = hallmark(folder.path(), &["devnet", "--port", &port])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !folder.path().join("deployment.json").exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let text = String::from_utf8(ended.stdout).unwrap();
    for word in [&format!("http://127.0.0.1:{port}"), "ready in", "deployment.json", "creator", "payer", "1,000,000"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(String::from_utf8(ended.stderr).unwrap().contains("Ctrl-C"));
}

#[test]
fn it_stops_cleanly_and_goes_on_where_it_was() {
    let world = World::new();
    let folder = &world.folder;
    let arguments = ["--port", "0", "--state", "local.chain", "--deployment", "kept.json"];
    let first = Devnet::start(folder.path(), &arguments);
    let register = |devnet: &Devnet, expected: i32| {
        let mut command = hallmark(folder.path(), &["register", "--manifest", MANIFEST, "--no-terms", "--json"]);
        command.env("HALLMARK_RPC", devnet.url()).env("HALLMARK_PRIVATE_KEY", CREATOR.key);
        command.env("HALLMARK_DEPLOYMENT", "kept.json").env("HALLMARK_STATE", folder.path().join("state"));
        let ran = Ran::of(&mut command);
        assert_eq!(ran.code, expected, "{}", ran.err);
        ran
    };
    let model = register(&first, 0).json()["model"].as_str().unwrap().to_owned();
    let state = |devnet: &Devnet| {
        let head = number(&devnet.rpc("eth_blockNumber", json!([])));
        let block = devnet.rpc("eth_getBlockByNumber", json!([format!("{:#x}", 30), false]))["hash"].clone();
        let coins = devnet.rpc("eth_getBalance", json!([CREATOR.address, "latest"]));
        (head, block, coins)
    };
    let before = state(&first);
    for signal in ["-INT", "-TERM"] {
        let devnet = Devnet::start(folder.path(), &["--port", "0", "--deployment", "other.json"]);
        let (code, said) = devnet.end(signal);
        assert_eq!(code, Some(0), "{signal}: {said}");
    }
    let (code, said) = first.end("-TERM");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the chain is in local.chain"), "{said}");

    let again = Devnet::start(folder.path(), &arguments);
    let after = state(&again);
    assert_eq!((&after.1, &after.2), (&before.1, &before.2));
    assert!(after.0 >= before.0);
    let error = register(&again, 1);
    assert!(error.err.contains("ManifestTaken") && error.err.contains(&model), "{}", error.err);
    assert_eq!(again.end("-INT").0, Some(0));
}

#[test]
fn what_is_in_the_way_is_said_and_not_overwritten() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    run(folder.path(), &["devnet", "--port", &port]).refused(&["failed to listen", &port, "choose another --port"]);
    assert!(names(folder.path()).is_empty(), "no deployment of a chain that is not there");

    fs::write(folder.path().join("deployment.json"), "mine").unwrap();
    run(folder.path(), &["devnet", "--port", "0"]).refused(&["deployment.json", "--deployment"]);
    assert_eq!(fs::read(folder.path().join("deployment.json")).unwrap(), b"mine");
    fs::remove_file(folder.path().join("deployment.json")).unwrap();

    // That of a public chain is somebody's only copy.
    let devnet = Devnet::start(folder.path(), &["--port", "0", "--chain-id", "8453"]);
    drop(devnet);
    let kept = fs::read(folder.path().join("deployment.json")).unwrap();
    run(folder.path(), &["devnet", "--port", "0"]).refused(&["deployment of chain 8453", "--deployment"]);
    assert_eq!(fs::read(folder.path().join("deployment.json")).unwrap(), kept);

    fs::write(folder.path().join("bad.chain"), "{").unwrap();
    let bad = ["devnet", "--port", "0", "--chain-id", "8453", "--state", "bad.chain"];
    run(folder.path(), &bad).refused(&["bad.chain"]);
    let lost = ["devnet", "--port", "0", "--state", "bad.chain", "--deployment", "none.json"];
    run(folder.path(), &lost).refused(&["none.json", "without --state"]);
}

#[test]
fn without_a_registry_it_says_so_in_one_line_and_pretends_nothing() {
    let folder = folder();
    let mut command = hallmark(folder.path(), &["devnet", "--port", "0"]);
    command.env("XDG_CACHE_HOME", folder.path().join("cache")).env("CARGO", "/nowhere/cargo");
    let ran = Ran::of(&mut command);
    ran.refused(&["EigenLayer", "--eigenlayer-core"]);
    assert!(!folder.path().join("deployment.json").exists());
    run(folder.path(), &["devnet", "--port", "0", "--eigenlayer-core", "none.json"]).refused(&["none.json"]);
}
