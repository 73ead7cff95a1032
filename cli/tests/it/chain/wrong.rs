//! What cannot work, said in one line with what to do; and commands that were cut off.

use std::{fs, process::Stdio};

use serde_json::json;

use super::running::{Account, CREATOR, HOST, PAYER, World};
use crate::support::{Ran, folder, hallmark, run_with};

const MANIFEST: &str = "0x0909090909090909090909090909090909090909090909090909090909090909";
const REGISTER: [&str; 4] = ["register", "--manifest", MANIFEST, "--no-terms"];

#[test]
fn a_chain_that_is_not_there_is_told_from_a_deployment_that_is_not() {
    let environment = [("HALLMARK_PRIVATE_KEY", CREATOR.key)];
    let folder = folder();
    run_with(folder.path(), &environment, &REGISTER).refused(&[
        "failed to read the deployment file deployment.json",
        "hallmark devnet",
        "--deployment",
    ]);
    fs::write(folder.path().join("deployment.json"), "{}").unwrap();
    run_with(folder.path(), &environment, &REGISTER).refused(&["is not a deployment file", "chain_id"]);

    let world = World::new();
    let run = |rpc: &str, more: &[&str]| {
        let mut command = world.command(Some(CREATOR), &[&REGISTER[..], more].concat());
        Ran::of(command.env("HALLMARK_RPC", rpc))
    };
    run("http://127.0.0.1:9/key-71", &[]).refused(&["127.0.0.1:9", "did not answer", "hallmark devnet", "--rpc"]);
    assert!(!run("http://127.0.0.1:9/key-71", &[]).err.contains("key-71"));
    // The first of several may be dead.
    let both = format!("http://127.0.0.1:9,{}", world.devnet.url());
    let ran = run(&both, &["--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    // A node of another chain, and a file of another chain.
    let text = fs::read_to_string(world.path().join("deployment.json")).unwrap();
    fs::write(world.path().join("other.json"), text.replace("31337", "1")).unwrap();
    run(world.devnet.url(), &["--deployment", "other.json"]).refused(&["serves chain 31337 and not 1", "--rpc"]);
    let moved = text.replace(
        world.devnet.ready["deployment"]["model_registry"].as_str().unwrap(),
        "0x1111111111111111111111111111111111111111",
    );
    fs::write(world.path().join("moved.json"), moved).unwrap();
    let ran = Ran::of(&mut world.command(None, &["status", "--model-id", MANIFEST, "--deployment", "moved.json"]));
    ran.refused(&["0x1111111111111111111111111111111111111111", "is the deployment file of this chain?"]);
    assert_eq!(world.transactions(CREATOR), 0);
}

#[test]
fn refusals_of_the_contracts_say_what_to_do() {
    let world = World::new();
    let refused = |account: Account, arguments: &[&str], words: &[&str]| {
        let before = world.transactions(account);
        world.run(account, arguments).refused(words);
        let object = world.run(account, &[arguments, &["--json"]].concat());
        assert_eq!(object.code, 1);
        assert!(object.json()["error"]["message"].as_str().unwrap().contains(words[0]));
        assert_eq!(world.transactions(account), before, "{arguments:?}");
    };
    let model = world.json(CREATOR, &REGISTER)["model"].as_str().unwrap().to_owned();
    refused(HOST, &REGISTER, &["ManifestTaken", &model, "registered already"]);
    refused(
        HOST,
        &["terms", "publish", "--model-id", &model, "--tokenizer", MANIFEST],
        &["NotCreator", "sign with that account"],
    );
    refused(
        HOST,
        &["terms", "publish", "--model-id", MANIFEST, "--tokenizer", MANIFEST],
        &["UnknownModel", MANIFEST, "check the id"],
    );
    let publish = ["terms", "publish", "--model-id", &model, "--tokenizer", MANIFEST];
    let ran = world.run(CREATOR, &publish[..4]);
    assert!(ran.code == 1 && ran.err.contains("--model"), "{}", ran.err);
    refused(CREATOR, &[&publish[..], &["--royalty", "9990"]].concat(), &["more than"]);
    refused(CREATOR, &[&publish[..], &["--floor-prompt", "1.2345678"]].concat(), &["at most 6 decimals"]);
    refused(HOST, &["lease", "close", "--lease", "7"], &["UnknownLease", "check the number"]);
    refused(HOST, &["operator", "deregister", "--set", "hosts"], &["NotMemberOfSet", "not in this set"]);
    refused(
        HOST,
        &["operator", "allocate", "--set", "hosts", "--share", "10"],
        &["UninitializedAllocationDelay", "wait"],
    );
    refused(PAYER, &["grant", "--key", HOST.address, "--cap", "1"], &["channel.json", "hallmark deposit --host"]);
    refused(PAYER, &["claim", "--lease", "1", "--vouchers", "none.json"], &["none.json"]);
    // An account that has nothing.
    let poor = Account {
        address: "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
        key: "0x0000000000000000000000000000000000000000000000000000000000000001",
    };
    let manifest = "0x0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
    refused(poor, &["register", "--manifest", manifest, "--no-terms"], &["has 0.0", "send it some"]);
    // More than the account has, seen before anything is approved for good.
    let deposit = ["deposit", "--host", HOST.address, "--amount", "2000000"];
    world.run(PAYER, &deposit).refused(&["ERC20InsufficientBalance", "holds too little"]);
    assert!(!world.path().join("channel.json").exists());
    fs::write(world.path().join("channel.json"), "{}").unwrap();
    refused(PAYER, &deposit, &["another channel's file", "--channel"]);
}

/// Starts a command with mining by hand, and waits until it has a transaction in the pool.
fn begin(world: &World, arguments: &[&str]) -> std::process::Child {
    let child = world.command(Some(PAYER), arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.until(|world| world.pooled() == 1);
    child
}

fn deposited(world: &World) -> String {
    world.status(&["--channel", "channel.json"])["channel"]["left"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_that_was_killed_goes_on_and_does_nothing_twice() {
    let world = World::new();
    let deposit = ["deposit", "--host", HOST.address, "--amount", "10"];
    world.devnet.rpc("evm_setAutomine", json!([false]));
    // It dies while its approval is on its way, and again while the deposit is.
    let mut child = begin(&world, &deposit);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = begin(&world, &deposit);
    world.devnet.mine(1);
    world.until(|world| world.pooled() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    world.devnet.mine(1);
    world.devnet.rpc("evm_setAutomine", json!([true]));
    assert_eq!(world.transactions(PAYER), 2, "an approval and a deposit");

    let ran = world.run(PAYER, &[&deposit[..], &["--json"]].concat()).succeeded();
    assert!(ran.err.contains("which an earlier run of this command sent"), "{}", ran.err);
    assert_eq!(ran.json()["transactions"][0]["action"], "deposit");
    assert_eq!((world.transactions(PAYER), deposited(&world)), (2, "10000000".to_owned()));
    // Told, and wanted once more.
    world.json(PAYER, &deposit);
    assert_eq!((world.transactions(PAYER), deposited(&world)), (4, "20000000".to_owned()));
}

#[test]
fn another_command_says_what_became_of_one_that_was_killed() {
    let world = World::new();
    world.json(PAYER, &["deposit", "--host", HOST.address, "--amount", "10"]);
    world.devnet.rpc("evm_setAutomine", json!([false]));
    let announce = ["withdraw", "--announce", "4"];
    let mut child = begin(&world, &announce);
    child.kill().unwrap();
    child.wait().unwrap();
    world.devnet.rpc("evm_setAutomine", json!([true]));
    world.devnet.mine(1);
    let ran = world.run(PAYER, &["grant", "--key", CREATOR.address, "--cap", "1"]).succeeded();
    assert!(
        ran.err.contains("an earlier command was cut off; its announcement of a withdrawal was done in transaction 0x"),
        "{}",
        ran.err
    );
    assert_eq!(world.status(&["--channel", "channel.json"])["channel"]["announced"], "4000000");
    let ran = world.run(PAYER, &["grant", "--key", HOST.address, "--cap", "1"]).succeeded();
    assert!(!ran.err.contains("cut off"), "{}", ran.err);
}

#[test]
fn a_new_chain_with_the_same_number_has_nothing_to_do_with_the_last_one() {
    let mut world = World::new();
    world.devnet.rpc("evm_setAutomine", json!([false]));
    let deposit = ["deposit", "--host", HOST.address, "--amount", "10"];
    let mut child = begin(&world, &deposit);
    child.kill().unwrap();
    child.wait().unwrap();
    // The chain goes, with what was on its way; the journal stays.
    world.devnet = super::running::Devnet::start(world.path(), &["--port", "0"]);
    let ran = world.run(PAYER, &deposit).succeeded();
    assert!(!ran.err.contains("earlier"), "{}", ran.err);
    assert_eq!((world.transactions(PAYER), deposited(&world)), (2, "10000000".to_owned()));
}

#[test]
fn two_commands_of_one_account_do_not_run_side_by_side() {
    let world = World::new();
    world.devnet.rpc("evm_setAutomine", json!([false]));
    let mut child = begin(&world, &["deposit", "--host", HOST.address, "--amount", "10"]);
    world
        .run(PAYER, &["deposit", "--host", CREATOR.address, "--amount", "1", "--channel", "c.json"])
        .refused(&["another process is sending transactions of this account", "wait for it to end"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(hallmark(world.path(), &["status"]).env("HALLMARK_RPC", world.devnet.url()).status().unwrap().success());
}
