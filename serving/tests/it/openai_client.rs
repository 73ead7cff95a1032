//! The official Python package against a real host; see `tests/openai_client/check.py`.

use std::process::Command;

use serving::engine::builtin::BuiltinSettings;
use tokio::task;

use crate::support::{Host, count, real_model};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with the openai package: set HALLMARK_PYTHON"]
async fn official_client_finds_what_it_expects() {
    #[expect(clippy::disallowed_methods, reason = "tests have no command line")]
    let python = std::env::var("HALLMARK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let settings = BuiltinSettings { streams: count(1), queue: 1, ..BuiltinSettings::default() };
    let small = Host::start(real_model("bundled", &settings)).await;
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client/check.py"));
    command.args([&host, &small].map(|host| format!("{}/v1", host.url)));
    let output = task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}
