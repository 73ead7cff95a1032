//! The whole life of a licence, one command after another, as people type them.

use std::fs;

use serde_json::Value;

use super::running::{Account, CONTRIBUTOR, CREATOR, HOST, LEASE_KEY, PAYER, SESSION_KEY, VALIDATOR, World};
use crate::support::{Ran, run};

const MANIFEST: &str = "0x0707070707070707070707070707070707070707070707070707070707070707";
const LATER_MANIFEST: &str = "0x0606060606060606060606060606060606060606060606060606060606060606";
const TOKENIZER: &str = "0x0101010101010101010101010101010101010101010101010101010101010101";
const SPLIT: [&str; 2] = ["--split", "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc=2500"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// An address, in one spelling.
fn owner(value: &Value) -> String {
    text(value).to_lowercase()
}

fn units(value: &Value) -> u128 {
    text(value).parse().unwrap()
}

/// Registers a model with terms, and publishes a second version of both.
fn publish(world: &World) -> (String, String) {
    let terms = [
        &["--royalty", "1000", "--floor-prompt", "0.02", "--floor-cached", "0.005", "--floor-completion", "0.06"][..],
        &["--min-bond", "50", "--min-restake", "1000000", "--valid-for", "60d", "--tokenizer", TOKENIZER],
        &SPLIT,
    ]
    .concat();
    let register = [&["register", "--manifest", MANIFEST, "--uri", "file:model"], &terms[..]].concat();
    let tried = world.json(CREATOR, &[&register[..], &["--dry-run"]].concat());
    assert_eq!((&tried["model"], &tried["dry_run"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!(world.transactions(CREATOR), 0);
    let registered = world.json(CREATOR, &register);
    let model = text(&registered["model"]).to_owned();
    assert_eq!((text(&registered["manifest"]), registered["terms"]["terms"]["version"].as_u64()), (MANIFEST, Some(1)));
    assert_eq!(registered["transactions"].as_array().unwrap().len(), 2);

    let published = world.tried(CREATOR, &[&["terms", "publish", "--model-id", &model], &terms[..]].concat());
    assert_eq!(published["terms"]["version"], 2);
    let closed = text(&registered["terms"]["id"]);
    world.tried(CREATOR, &["terms", "close", "--terms-id", closed]);
    world.tried(CREATOR, &["publish-manifest", "--model-id", &model, "--manifest", LATER_MANIFEST]);
    let status = world.status(&["--model-id", &model])["model"].clone();
    assert_eq!(
        (owner(&status["creator"]), text(&status["manifest"])),
        (CREATOR.address.to_lowercase(), LATER_MANIFEST)
    );
    (model, text(&published["id"]).to_owned())
}

/// Commits to fingerprints, has them drawn by the chain, and publishes the set.
fn draw(world: &World, model: &str) {
    let set = ["--set", "set.age", "--seed", "7"];
    run(world.path(), &[&["fingerprint", "generate", "--model", "bundled", "-n", "8"][..], &set].concat()).succeeded();
    run(world.path(), &[&["fingerprint", "commit"][..], &set].concat()).succeeded();
    let commit = ["commit-fingerprints", "--model-id", model, "--commitment", "commitment.json"];
    let committed = world.tried(CREATOR, &[&commit[..], &["--no-wait"]].concat());
    let draw_block = committed["draw_block"].as_u64().unwrap();
    assert_eq!(committed["beacon"], Value::Null, "nobody can know it yet");
    world.devnet.mine(4);
    let recorded = world.json(CREATOR, &commit);
    assert_eq!(recorded["transactions"].as_array().unwrap().len(), 1, "the commitment is not sent again");
    let beacon = text(&recorded["beacon"]).to_owned();
    let block = world.devnet.rpc("eth_getBlockByNumber", serde_json::json!([format!("{draw_block:#x}"), false]));
    assert_eq!(text(&block["mixHash"]), beacon, "the randomness of the block that was fixed before");
    // What people are told to type next is what works.
    let again = world.run(CREATOR, &commit).succeeded();
    let next = again.out.lines().find_map(|line| line.strip_prefix("next")).expect("what to do next").trim();
    assert!(
        next.starts_with(&format!("hallmark fingerprint draw --beacon {beacon} --beacon-source 'chain 31337")),
        "{next}"
    );
    let source = next.split('\'').nth(1).unwrap();
    let draw = ["fingerprint", "draw", "--beacon", &beacon, "--beacon-source", source];
    run(world.path(), &[&draw[..], &set].concat()).succeeded();
    let published = world.json(CREATOR, &commit);
    assert_eq!(text(&published["transactions"][0]["action"]), "publication of the drawn set");
    assert_eq!(world.json(CREATOR, &commit)["transactions"].as_array().unwrap().len(), 0, "nothing is left to do");
}

/// Makes the host a restaked operator with a lease.
fn lease(world: &World, terms: &str) -> String {
    let open = [
        &["lease", "open", "--terms-id", terms, "--lease-key", LEASE_KEY.address][..],
        &["--endpoint", "http://127.0.0.1:8080/v1", "--price-request", "0.01", "--price-prompt", "2"],
        &["--price-cached", "0.5", "--price-completion", "6", "--bond", "100", "--for", "10d"],
    ]
    .concat();
    world.run(HOST, &open).refused(&["RestakeTooSmall", "hallmark operator register", "operator allocate"]);
    world.tried(HOST, &["operator", "register", "--set", "hosts", "--stake", "10"]);
    // Once more does what is missing: nothing.
    let again = world.json(HOST, &["operator", "register", "--set", "hosts"]);
    assert_eq!(again["transactions"].as_array().unwrap().len(), 0);
    world.devnet.mine(3);
    let allocate = ["operator", "allocate", "--set", "hosts", "--share", "5000"];
    assert_eq!(text(&world.tried(HOST, &allocate)["slashable_stake"]), "5000000");
    world.run(HOST, &allocate).refused(&["SameMagnitude", "nothing to change"]);

    let mut low = open.clone();
    low[15] = "0.05";
    world.run(HOST, &low).refused(&["PriceBelowFloor", "raise it"]);
    let opened = world.json(HOST, &open);
    let lease = opened["lease"].to_string();
    let before = world.status(&["--lease", &lease])["lease"].clone();
    assert_eq!((before["active"].as_bool(), owner(&before["host"])), (Some(true), HOST.address.to_lowercase()));
    let renewed = world.tried(HOST, &["lease", "renew", "--lease", &lease, "--for", "5d"]);
    assert_eq!(renewed["to"].as_u64(), before["to"].as_u64().map(|to| to + 5 * 86_400));
    lease
}

fn pay(world: &World) {
    let deposit = ["deposit", "--host", HOST.address, "--amount", "20", "--withdraw-delay", "120s"];
    world.tried(PAYER, &deposit);
    world.tried(PAYER, &["deposit", "--amount", "2.5"]);
    let status = world.status(&["--channel", "channel.json"])["channel"].clone();
    assert_eq!((units(&status["left"]), units(&status["spent"])), (22_500_000, 0));
    let grant = ["grant", "--key", SESSION_KEY.address, "--cap", "5", "--per-request-cap", "1"];
    let granted = world.tried(PAYER, &grant);
    assert_eq!(granted["grant"]["cap"], "5000000");
    world.run(PAYER, &["grant", "--key", SESSION_KEY.address, "--cap", "4"]).refused(&["GrantReduced", "revoke it"]);
    world.run(HOST, &grant).refused(&["WrongSigner"]);
}

/// Three requests, of which the last is in flight, until they are money.
fn claim(world: &World, lease: &str) {
    for (prompt, completion) in [("900", "300"), ("1500", "800"), ("400", "200")] {
        let record =
            ["usage", "record", "--lease", lease, "--prompt-tokens", prompt, "--completion-tokens", completion];
        world.run(HOST, &record).refused(&["is not signed by the lease's key"]);
        world.json(LEASE_KEY, &record);
    }
    let accept = ["usage", "accept", "--ceiling", "0.5"];
    let accepted = world.json(SESSION_KEY, &accept);
    // 2 requests of 0.01, 2400 prompt tokens of 2 and 1100 completion tokens of 6, each per million.
    assert_eq!((accepted["requests"].as_u64(), units(&accepted["worth"])), (Some(2), 11_401));

    let claim = ["claim", "--lease", lease, "--vouchers", "vouchers.json", "--pay-out"];
    world.run(HOST, &claim).refused(&["MoreThanReported", "report the epoch's usage first"]);
    let report = ["report", "--lease", lease];
    world.run(HOST, &report).refused(&["the epoch of these requests is not over before 20", "report them then"]);
    world.devnet.wait(120);
    let reported = world.tried(HOST, &report);
    assert_eq!(reported["reports"][0]["requests"], 3);
    let again = world.json(HOST, &report);
    assert_eq!((again["left_out"].as_u64(), again["transactions"].as_array().unwrap().len()), (Some(3), 0));

    let wrong = [&claim[..], &["--split", "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc=2501"]].concat();
    world.run(HOST, &wrong).refused(&["WrongSplits", "splits that the lease's terms"]);
    world.run(PAYER, &claim).refused(&["NotHost"]);
    let paid = world.json(HOST, &claim)["paid"].clone();
    // With the third request: 3 of 0.01, 2800 of 2 and 1300 of 6.
    assert_eq!((units(&paid["claimed"]), units(&paid["royalty"]), units(&paid["validators"])), (13_401, 1_340, 134));
    assert_eq!(units(&paid["host"]), 13_401 - 1_340 - 134);
    world.run(HOST, &claim).refused(&["NotNewer", "nothing more in this voucher"]);
    let held = |account: Account| units(&world.status(&["--account", account.address])["account"]["escrow"]);
    assert_eq!(
        (held(HOST), held(CREATOR), held(CONTRIBUTOR)),
        (0, 1_340 - 335, 335),
        "the host's share was sent to it"
    );
}

fn withdraw(world: &World) {
    world.run(PAYER, &["withdraw"]).refused(&["NothingAnnounced", "announce the withdrawal first"]);
    world.tried(PAYER, &["withdraw", "--announce", "5"]);
    world.tried(PAYER, &["withdraw", "--cancel"]);
    let announced = world.tried(PAYER, &["withdraw", "--announce", "8"]);
    assert_eq!(units(&announced["announced"]), 8_000_000);
    let refused = world.run(PAYER, &["withdraw"]);
    refused.refused(&["WithdrawalTooEarly (withdrawableAt 20", " UTC)", "when its time has come"]);
    world.devnet.wait(120);
    let taken = world.tried(PAYER, &["withdraw"]);
    assert_eq!(units(&taken["announced"]), 0);
    assert_eq!(units(&world.status(&["--channel", "channel.json"])["channel"]["left"]), 14_500_000 - 13_401);
    world.tried(PAYER, &["grant", "--key", SESSION_KEY.address, "--revoke"]);
    let anew = ["grant", "--key", SESSION_KEY.address, "--cap", "9"];
    world.run(PAYER, &anew).refused(&["was revoked", "make a new key"]);
}

fn end(world: &World, terms: &str, lease: &str) {
    world.run(HOST, &["lease", "revoke", "--lease", lease]).refused(&["NotCreator"]);
    world.tried(CREATOR, &["lease", "revoke", "--lease", lease]);
    world.run(HOST, &["lease", "renew", "--lease", lease]).refused(&["LeaseEnding", "open a new one"]);
    let open = [
        &["lease", "open", "--terms-id", terms, "--lease-key", LEASE_KEY.address, "--endpoint", "http://127.0.0.1/v1"]
            [..],
        &["--price-prompt", "2", "--price-completion", "6", "--bond", "50"],
    ]
    .concat();
    let second = world.json(HOST, &open)["lease"].to_string();
    world.tried(HOST, &["lease", "close", "--lease", &second]);
    let ended = world.status(&["--lease", &second])["lease"].clone();
    assert_eq!(ended["active"], false);
    world.run(HOST, &["lease", "withdraw-bond", "--lease", &second]).refused(&["BondLocked (until 20", " UTC)"]);
    world.devnet.wait(30 * 86_400);
    world.tried(HOST, &["lease", "withdraw-bond", "--lease", &second]);
    assert_eq!(units(&world.status(&["--lease", &second])["lease"]["bond"]), 0);
    world.tried(HOST, &["operator", "deregister", "--set", "hosts"]);
    assert_eq!(world.status(&["--account", HOST.address])["account"]["is_host"], false);
}

#[test]
fn a_licence_is_made_used_paid_and_ended() {
    let world = World::new();
    let (model, terms) = publish(&world);
    draw(&world, &model);
    let lease = lease(&world, &terms);
    pay(&world);
    claim(&world, &lease);
    withdraw(&world);
    end(&world, &terms, &lease);
}

#[test]
fn people_read_aligned_rows() {
    let world = World::new();
    let texts = [
        world.run(CREATOR, &["register", "--manifest", MANIFEST, "--tokenizer", TOKENIZER]),
        world.run(PAYER, &["deposit", "--host", HOST.address, "--amount", "10"]),
        world.run(PAYER, &["withdraw", "--announce", "1.5"]),
        world.run(PAYER, &["grant", "--key", SESSION_KEY.address, "--cap", "2"]),
        world.run(HOST, &["operator", "register", "--set", "hosts", "--stake", "3"]),
        world.run(HOST, &["deposit", "--host", PAYER.address, "--amount", "1", "--channel", "c.json", "--dry-run"]),
    ];
    for ran in texts {
        let out = ran.succeeded().out;
        assert_eq!(out.contains("nothing was sent"), out.contains("would succeed"), "{out}");
        let columns: Vec<usize> = out.lines().map(|line| line.len() - value(line).len()).collect();
        assert!(columns.len() > 2 && columns.iter().all(|column| *column == columns[0]), "{out}");
        eprintln!("{out}");
    }
    let status = ["--account", HOST.address, "--channel", "channel.json"];
    let shown = Ran::of(&mut world.command(None, &[&["status"][..], &status].concat())).succeeded().out;
    for word in ["chain", "account", "holds", "in the escrow", "host", "left", "announced", "1.5 ", "UTC"] {
        assert!(shown.contains(word), "{word:?} is not in: {shown}");
    }
    eprintln!("{shown}");
    let channel: Value = serde_json::from_slice(&fs::read(world.path().join("channel.json")).unwrap()).unwrap();
    assert_eq!(owner(&channel["payer"]), PAYER.address.to_lowercase());
    assert!(!world.path().join("c.json").exists(), "a dry run writes nothing");
}

/// What stands behind the name and at least two spaces.
fn value(line: &str) -> &str {
    let gap = line.find("  ").unwrap_or_else(|| panic!("no column in: {line}"));
    line[gap..].trim_start()
}

#[test]
fn a_validator_joins_with_its_key() {
    let world = World::new();
    let new = ["operator", "new-bls-key", "--out", "bls.json"];
    world.run(VALIDATOR, &new).refused(&["no password", "HALLMARK_BLS_KEYSTORE_PASSWORD"]);
    let with = |password: &str, arguments: &[&str]| {
        let mut command = world.command(Some(VALIDATOR), arguments);
        Ran::of(command.env("HALLMARK_BLS_KEYSTORE_PASSWORD", password))
    };
    with("sesame", &new).succeeded();
    with("sesame", &new).refused(&["bls.json", "exists already"]);
    assert!(!fs::read_to_string(world.path().join("bls.json")).unwrap().contains("sesame"));
    let register = ["operator", "register", "--set", "validators", "--stake", "100", "--bls-keystore", "bls.json"];
    world.run(VALIDATOR, &register[..6]).refused(&["a validator needs a BLS key", "operator new-bls-key"]);
    with("simsalabim", &register).refused(&["failed to open the keystore bls.json", "password"]);
    // It must have allocated already, and for that it must be an operator with stake.
    let told = with("sesame", &register).succeeded().out;
    assert!(told.contains("not yet") && told.contains("hallmark operator allocate --set validators"), "{told}");
    world.devnet.mine(3);
    world.tried(VALIDATOR, &["operator", "allocate", "--set", "validators", "--share", "10000"]);
    let joined = with("sesame", &[&register[..], &["--json"]].concat()).succeeded().json();
    assert_eq!(joined["transactions"].as_array().unwrap().len(), 1, "nothing is staked twice: {joined}");
    assert_eq!(text(&joined["transactions"][0]["action"]), "joining of the validators");
    world.tried(VALIDATOR, &["operator", "deregister", "--set", "validators"]);
}
