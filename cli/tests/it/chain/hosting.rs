//! A metered host, from its example configuration to a replayed answer.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use super::running::{Devnet, HOST, LEASE_KEY};
use crate::{
    host::{Running, ask_as},
    support::{Ran, folder, hallmark, run},
};

/// The example on free ports, beside the chain.
fn configure(folder: &Path, devnet: &Devnet) {
    let example = run(folder, &["host", "--example"]).succeeded().out;
    let example = example.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8090", "127.0.0.1:0");
    fs::write(folder.join("host.toml"), example.replace("http://127.0.0.1:8545", devnet.url())).unwrap();
}

fn start(folder: &Path) -> (Running, String) {
    let mut command = hallmark(folder, &["host", "--config", "host.toml", "--json"]);
    command.env("HALLMARK_PRIVATE_KEY", HOST.key).env("HALLMARK_LEASE_KEY", LEASE_KEY.key);
    let mut host = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs"));
    let mut text = String::new();
    let mut lines = BufReader::new(host.0.stdout.take().expect("a pipe"));
    let ready: Value = loop {
        assert!(lines.read_line(&mut text).expect("a line") > 0, "the host ended: {text}");
        if let Ok(ready) = serde_json::from_str(&text) {
            break ready;
        }
    };
    let url = ready["url"].as_str().expect("an address");
    let (_, address) = url.split_once("://").expect("a scheme");
    (host, address.trim_end_matches("/v1").to_owned())
}

#[test]
fn the_example_starts_as_it_is_and_its_answers_can_be_replayed() {
    let folder = folder();
    let folder = folder.path();
    let devnet = Devnet::start_with(folder, &["--port", "0"]);
    assert_eq!(devnet.ready["market"]["lease"], 1);
    configure(folder, &devnet);
    let refused = run(folder, &["host", "--config", "host.toml"]);
    refused.refused(&["no key to sign statements with", "HALLMARK_LEASE_KEY"]);
    let mut wrong = hallmark(folder, &["host", "--config", "host.toml"]);
    wrong.env("HALLMARK_PRIVATE_KEY", HOST.key).env("HALLMARK_LEASE_KEY", HOST.key);
    Ran::of(&mut wrong).refused(&["wants statements signed by", LEASE_KEY.address]);
    let mut wrong = hallmark(folder, &["host", "--config", "host.toml"]);
    wrong.env("HALLMARK_PRIVATE_KEY", LEASE_KEY.key).env("HALLMARK_LEASE_KEY", LEASE_KEY.key);
    Ran::of(&mut wrong).refused(&["belongs to", HOST.address]);

    let (mut host, address) = start(folder);
    let request =
        json!({"model": "stories", "messages": [{"role": "user", "content": "Who goes there?"}], "max_tokens": 12});
    let unpaid = ask_as(&address, "POST", "/v1/chat/completions", "", &request.to_string());
    assert_eq!(unpaid["error"]["code"], "payment_required");
    let customer = |arguments: &[&str]| {
        let mut command = hallmark(folder, &[&["customer"], arguments].concat());
        Ran::of(command.env("HALLMARK_RPC", devnet.url()))
    };
    let added = customer(&["add", "acme", "--budget", "0.5", "--json"]).succeeded().json();
    customer(&["add", "acme"]).refused(&["there is a customer acme already"]);
    customer(&["add", "a b"]).refused(&["letters, digits"]);
    let header = format!("authorization: Bearer {}\r\n", added["api_key"].as_str().unwrap());
    let answer = ask_as(&address, "POST", "/v1/chat/completions", &header, &request.to_string());
    let stated = &answer["hallmark"]["statement"]["message"];
    assert_eq!(answer["usage"]["completion_tokens"], stated["completionTokens"], "{answer}");
    let charge = stated["charge"].clone();
    let listed = customer(&["list", "--json"]).succeeded().json();
    assert_eq!((&listed["customers"][0]["charged"], &listed["customers"][0]["budget"]), (&charge, &json!("500000")));
    let ask = || ask_as(&address, "POST", "/v1/chat/completions", &header, &request.to_string());
    customer(&["set", "acme"]).refused(&["required"]);
    customer(&["set", "acme", "--budget", "much"]).refused(&["much"]);
    customer(&["set", "acme", "--requests-per-minute", "0"]).refused(&["or `none` for no limit"]);
    customer(&["set", "nobody", "--budget", "1"]).refused(&["is no customer whose key is good"]);
    let set = customer(&["set", "acme", "--budget", "0.000001"]).succeeded();
    assert!(set.out.contains("0.000001") && set.out.contains("nothing more is admitted"), "{}", set.out);
    assert_eq!(ask()["error"]["code"], "budget_exceeded");
    // No chain is needed where no tokens are counted.
    let lifted = ["customer", "set", "acme", "--budget", "none", "--requests-per-minute", "1", "--json"];
    let lifted = run(folder, &lifted).succeeded().json();
    assert_eq!((&lifted["budget"], &lifted["requests_per_minute"]), (&Value::Null, &json!(1)));
    let answers = [ask(), ask(), ask()];
    assert!(answers.iter().any(|answer| answer["error"]["code"] == "rate_limit_exceeded"), "{answers:?}");
    run(folder, &["customer", "set", "acme", "--requests-per-minute", "none"]).succeeded();
    assert!(ask()["error"].is_null());
    let listed = customer(&["list", "--json"]).succeeded().json();
    assert_eq!(listed["customers"][0]["requests_per_minute"], Value::Null);
    customer(&["revoke", "acme"]).succeeded();
    customer(&["set", "acme", "--budget", "1"]).refused(&["is no customer whose key is good"]);
    customer(&["revoke", "acme"]).refused(&["is no customer whose key is good"]);
    let revoked = ask_as(&address, "POST", "/v1/chat/completions", &header, &request.to_string());
    assert_eq!(revoked["error"]["code"], "invalid_api_key");

    // A second host on the same books would state the same places.
    let mut second = hallmark(folder, &["host", "--config", "host.toml"]);
    second.env("HALLMARK_PRIVATE_KEY", HOST.key).env("HALLMARK_LEASE_KEY", LEASE_KEY.key);
    Ran::of(&mut second).refused(&["another process is sending transactions of this account"]);

    let ended = Command::new("kill").args(["-TERM", &host.0.id().to_string()]).status().expect("kill runs");
    assert!(ended.success());
    assert_eq!(host.0.wait().expect("the host ends").code(), Some(0));

    // Anybody with the weights finds the same answer again, and finds out another one.
    let replay = |request: &Value, answer: &Value, options: &[&str]| {
        fs::write(folder.join("request.json"), request.to_string()).unwrap();
        fs::write(folder.join("answer.json"), answer.to_string()).unwrap();
        run(folder, &[&["replay", "--request", "request.json", "--answer", "answer.json"], options].concat())
    };
    let replayed = replay(&request, &answer, &["--json"]).succeeded().json();
    assert_eq!(replayed["same"], true);
    assert_eq!(replayed["texts"][0], answer["choices"][0]["message"]["content"]);
    let mut other = request.clone();
    other["messages"][0]["content"] = json!("Who goes here?");
    replay(&other, &answer, &[]).refused(&["differs from the stated one in its prompt"]);
    other = request.clone();
    other["temperature"] = json!(0.5);
    replay(&other, &answer, &[]).refused(&["differs from the stated one in its sampling"]);
    let mut forged = answer.clone();
    forged["hallmark"]["statement"]["message"]["responseHash"] = json!(format!("0x{}", "77".repeat(32)));
    let ran = replay(&request, &forged, &["--json"]);
    assert_eq!((ran.code, ran.json()["same"].as_bool()), (2, Some(false)));
    let mut forged = answer.clone();
    let record = forged["hallmark"]["record"].as_str().unwrap().replace("\"seed\":\"", "\"seed\":\"1");
    forged["hallmark"]["record"] = json!(record);
    replay(&request, &forged, &[]).refused(&["not the one that it signs"]);
}

/// Makes a certificate for 127.0.0.1, and a client that trusts no other.
fn certify(folder: &Path) -> Client {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("certificate.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let root = Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([root]).build().unwrap()
}

#[test]
fn a_renewed_certificate_is_taken_over_at_a_hangup() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let folder = folder();
    let folder = folder.path();
    let devnet = Devnet::start_with(folder, &["--port", "0"]);
    configure(folder, &devnet);
    let old = certify(folder);
    let configuration = fs::read_to_string(folder.join("host.toml")).unwrap();
    let with_tls = configuration.replace("# [tls]\n# certificate", "[tls]\ncertificate").replace("# key =", "key =");
    fs::write(folder.join("host.toml"), with_tls).unwrap();
    let (mut host, address) = start(folder);
    let url = format!("https://{address}/healthz");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answers = |client: &Client| runtime.block_on(async { client.get(&url).send().await.is_ok() });
    assert!(answers(&old));
    let new = certify(folder);
    assert!(!answers(&new), "nobody told the host to look yet");
    let signal = |name: &str| Command::new("kill").args([name, &host.0.id().to_string()]).status().unwrap().success();
    assert!(signal("-HUP"));
    let began = Instant::now();
    while !answers(&new) {
        assert!(began.elapsed() < Duration::from_secs(20), "the new certificate is not taken over");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(signal("-TERM"));
    assert_eq!(host.0.wait().unwrap().code(), Some(0));
}
