//! Names of commands, help, completions and what an argument may be.

use crate::support::{folder, run, run_with};

const COMMANDS: [&str; 24] = [
    "demo",
    "fingerprint",
    "prove",
    "verify-bundle",
    "model",
    "host",
    "replay",
    "customer",
    "devnet",
    "register",
    "publish-manifest",
    "terms",
    "commit-fingerprints",
    "lease",
    "deposit",
    "grant",
    "withdraw",
    "usage",
    "report",
    "claim",
    "pay-out",
    "operator",
    "status",
    "completions",
];
const FINGERPRINT: [&str; 7] = ["generate", "commit", "draw", "embed", "check", "show", "export"];

/// The names under "Commands:" in a help text.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn help_names_every_command() {
    let folder = folder();
    let help = run(folder.path(), &["--help"]).succeeded();
    assert_eq!(commands(&help.out), COMMANDS);
    let help = run(folder.path(), &["fingerprint", "--help"]).succeeded();
    assert_eq!(commands(&help.out), FINGERPRINT);
    let help = run(folder.path(), &["model", "--help"]).succeeded();
    assert_eq!(commands(&help.out), ["import", "info"]);
}

#[test]
fn help_of_prove_documents_its_exit_codes() {
    let help = run(folder().path(), &["prove", "--help"]).succeeded().out;
    for line in [
        "0  proved",
        "2  not this model",
        "3  undecided",
        "1  error",
        "HALLMARK_API_KEY",
        "chat-terse",
        "unseen-knight",
    ] {
        assert!(help.contains(line), "{line:?} is not in the help");
    }
}

#[test]
fn help_never_shows_a_value_of_the_environment() {
    let environment = [
        ("HALLMARK_PASSPHRASE", "sesame-7781"),
        ("HALLMARK_API_KEY", "key-7782"),
        ("HALLMARK_SEED", "7783"),
        ("HALLMARK_PROXY", "http://me:word@a.example/7784"),
        ("HALLMARK_URL", "http://me:word@a.example/7785"),
    ];
    for command in [&["prove", "--help"][..], &["fingerprint", "generate", "--help"]] {
        let help = run_with(folder().path(), &environment, command).succeeded().out;
        for (name, value) in environment {
            assert!(!help.contains(&value[value.len() - 4..]), "{name} is shown: {help}");
        }
    }
}

#[test]
fn version_is_that_of_the_package() {
    let version = run(folder().path(), &["--version"]).succeeded();
    assert_eq!(version.out.trim(), format!("hallmark {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(folder().path(), &["completions", shell]).succeeded().out;
        assert!(script.contains("verify-bundle"), "the {shell} script knows no verify-bundle");
    }
    let object = run(folder().path(), &["completions", "bash", "--json"]).succeeded().json();
    assert_eq!(object["shell"], "bash");
}

#[test]
fn wrong_arguments_exit_with_one_so_that_two_stays_not_this_model() {
    for arguments in [
        &["prove"][..],
        &["nonsense"],
        &["host", "--listen", "nowhere"],
        &["demo", "--fingerprints", "many"],
        &["fingerprint", "generate", "--model", "bundled", "--set", "s", "--candidates", "12"],
        &["--log-level", "=====", "completions", "bash"],
        &["prove", "--set", "s", "--url", "http://127.0.0.1:9", "--system", "Answer with amber."],
        &["verify-bundle", "b", "--commitment", "c", "--max-alpha", "1"],
    ] {
        let ran = run(folder().path(), arguments);
        assert_eq!(ran.code, 1, "{arguments:?}: {}", ran.err);
        assert_eq!(ran.out, "");
        assert!(ran.err.starts_with("error: "), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn a_failure_under_json_is_one_object_too() {
    let ran = run(folder().path(), &["host", "--json"]);
    assert_eq!(ran.code, 1);
    assert!(ran.json()["error"]["message"].as_str().is_some_and(|text| text.contains("--unmetered")));
    let ran = run(folder().path(), &["prove", "--json"]);
    assert_eq!(ran.code, 1);
    let told = "the following required arguments were not provided: --url <URL> --set <FILE>";
    assert_eq!(ran.json()["error"]["message"], told);
    let ran = run_with(folder().path(), &[("HALLMARK_JSON", "1")], &["prove"]);
    assert_eq!(ran.json()["error"]["message"], told);
    let ran = run_with(folder().path(), &[("HALLMARK_JSON", "0")], &["prove"]);
    assert_eq!(ran.out, "");
}

#[test]
fn arguments_can_come_from_the_environment() {
    let ran = run_with(folder().path(), &[("HALLMARK_JSON", "1")], &["completions", "bash"]).succeeded();
    assert_eq!(ran.json()["shell"], "bash");
    let ran = run_with(folder().path(), &[("HALLMARK_JSON", "0")], &["completions", "bash"]).succeeded();
    assert!(!ran.out.starts_with('{'));
}
