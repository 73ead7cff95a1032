//! How a failure is told: one line that says what failed, why, and what to do.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::builder::{FalseyValueParser, TypedValueParser as _};
use serde_json::json;

use crate::output;

/// Exit code of every failure; `prove` keeps 2 and 3 for its outcomes.
pub(crate) const FAILURE: u8 = 1;
/// What shells use for a command ended by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// What the user can do about an error; shown at the end of its line.
#[derive(Debug, Clone)]
pub(crate) struct Advice(String);

impl fmt::Display for Advice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Ctrl-C ended the command.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Adds what to do to an error.
pub(crate) trait Advise<T> {
    fn advise(self, advice: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn advise(self, advice: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Advice(advice.into())))
    }
}

/// Prints the error and gives the exit code. With `--json` standard output still gets its one object.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let line = line(error);
    print(&format!("error: {line}\n"));
    if json {
        object(&line);
    }
    ExitCode::from(if error.is::<Interrupted>() { INTERRUPTED } else { FAILURE })
}

/// Prints what is wrong with the arguments, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help and version go to standard output. A closed pipe is the only failure, and nobody reads it then.
        error.print().unwrap_or_default();
        return ExitCode::SUCCESS;
    }
    if wants_json() {
        let text = error.to_string();
        // Up to where clap repeats how the command is used.
        let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        object(told.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").trim_end());
    }
    error.print().unwrap_or_default();
    ExitCode::from(FAILURE)
}

/// The arguments could not be parsed, so whether `--json` was among them is read from what clap had to read.
fn wants_json() -> bool {
    let variable = std::env::var_os("HALLMARK_JSON");
    let parser = FalseyValueParser::new();
    let is_true = |value: OsString| parser.parse(&clap::Command::new(""), None, value).unwrap_or_default();
    std::env::args_os().any(|word| word == "--json") || variable.is_some_and(is_true)
}

fn object(message: &str) {
    let object = json!({ "error": { "message": message } });
    // The failure itself is already told on standard error.
    output::write_line(&format!("{object:#}")).unwrap_or_default();
}

fn print(text: &str) {
    // Nobody is left to tell when standard error is closed.
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// The chain of an error on one line, without words that say the same twice, then the advice.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let advice = error.downcast_ref::<Advice>().map(ToString::to_string);
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        // Causes quote servers and files of others.
        let text = output::plain(&cause.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
        let repeated = parts.iter().any(|part| part.contains(&text)) || advice.as_ref().is_some_and(|a| *a == text);
        if !repeated && !text.is_empty() {
            parts.push(text);
        }
    }
    let chain = parts.join(": ");
    match advice {
        Some(advice) => format!("{chain}; {advice}"),
        None => chain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn the_line_holds_chain_and_advice_once() {
        let error = anyhow!("end of\nfile").context("failed to read set.age: end of file");
        assert_eq!(line(&error), "failed to read set.age: end of file");
        let advised: anyhow::Result<()> = Err(anyhow!("cause").context("what failed")).advise("do this");
        assert_eq!(line(&advised.expect_err("it is an error")), "what failed: cause; do this");
    }

    #[test]
    fn an_interrupt_is_found_under_context() {
        assert!(anyhow::Error::new(Interrupted).context("while stamping").is::<Interrupted>());
    }
}
