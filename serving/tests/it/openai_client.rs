//! The official Python package against a real host; see `tests/openai_client/check.py`.

use std::process::Command;

use licensing_contracts::deploy::ProtocolSetup;
use serving::engine::builtin::BuiltinSettings;
use tokio::task;

use crate::{
    metered::{customers, world::World},
    support::{Host, count, real_model},
};

const KEY: &str = "hmk-0123456789abcdef";

/// Runs the check against two hosts, the second of which has little room.
async fn check(hosts: [&str; 2], options: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "tests have no command line")]
    let python = std::env::var("HALLMARK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client/check.py"));
    command.args(hosts.map(|host| format!("{host}/v1"))).args(options).env("HALLMARK_TEST_API_KEY", KEY);
    let output = task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}

fn little_room() -> BuiltinSettings {
    BuiltinSettings { streams: count(1), queue: 1, ..BuiltinSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with the openai package: set HALLMARK_PYTHON"]
async fn official_client_finds_what_it_expects() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let small = Host::start(real_model("bundled", &little_room())).await;
    check([&host.url, &small.url], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with the openai package: set HALLMARK_PYTHON"]
async fn official_client_finds_what_it_expects_of_a_metered_host() {
    let models = [BuiltinSettings::default(), little_room()].map(|settings| real_model("bundled", &settings));
    let setup = ProtocolSetup::development();
    let worlds = [World::of(setup.clone(), &models[0]).await, World::of(setup, &models[1]).await];
    let [model, little] = models;
    let (host, small) = (worlds[0].host(model).await, worlds[1].host(little).await);
    for world in &worlds {
        customers::add(world, "python", KEY, None, None).await;
    }
    check([&host.url, &small.url], &["--metered"]).await;
}
