//! The binary under test, and what it answered.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// A run that has ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::new(command.output().expect("the binary runs"))
    }

    fn new(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the process was not killed by a signal"),
            out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }

    /// The one object on standard output.
    pub(crate) fn json(&self) -> Value {
        let mut objects = serde_json::Deserializer::from_str(&self.out).into_iter::<Value>();
        let first = objects.next().unwrap_or_else(|| panic!("nothing on standard output; stderr: {}", self.err));
        let first = first.unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.out));
        assert!(first.is_object(), "not an object: {first}");
        assert!(objects.next().is_none(), "more than one object: {}", self.out);
        first
    }

    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Failed with one line that holds all the words, and nothing on standard output.
    pub(crate) fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, 1, "stdout: {}\nstderr: {}", self.out, self.err);
        assert_eq!(self.out, "", "standard output must stay empty");
        let lines: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "not exactly one line of error: {}", self.err);
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
        }
    }
}

/// A command with a clean environment and a passphrase.
pub(crate) fn hallmark(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallmark"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HALLMARK_") {
            command.env_remove(name);
        }
    }
    command.env("HALLMARK_PASSPHRASE", "correct horse");
    command
}

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Ran {
    Ran::of(&mut hallmark(folder, arguments))
}

pub(crate) fn run_with(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    Ran::of(hallmark(folder, arguments).envs(environment.iter().copied()))
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A folder with a drawn set of eight fingerprints for the bundled model, made once. Tests copy what they change.
///
/// `set.age` opens with the passphrase of [`hallmark`].
pub(crate) fn drawn() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = folder();
            let path = folder.path();
            let set = ["--set", "set.age", "--seed", "7"];
            for step in [
                &["fingerprint", "generate", "--model", "bundled", "-n", "8"][..],
                &["fingerprint", "commit"],
                &["fingerprint", "draw"],
            ] {
                run(path, &[step, &set].concat()).succeeded();
            }
            folder
        })
        .path()
}

/// A copy of [`drawn`] that a test may change.
pub(crate) fn drawn_copy() -> TempDir {
    let copy = folder();
    for name in names(drawn()) {
        std::fs::copy(drawn().join(&name), copy.path().join(&name)).expect("a copy");
    }
    copy
}
