//! The command line: one struct per command (in the command's own file), and what they share.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};
use tracing_subscriber::EnvFilter;

use crate::commands::{
    chain, completions, customer, demo, devnet, fingerprint, host, model, prove, replay, verify_bundle,
};

/// Fingerprint open models, and prove that they are yours.
///
/// A creator stamps secret fingerprints into a model and can later prove, over any OpenAI-compatible URL, that it is
/// this model that answers. Start with `hallmark demo`.
#[derive(Debug, Parser)]
#[command(name = "hallmark", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  hallmark demo
  hallmark fingerprint generate --help

Secrets are never arguments: HALLMARK_PASSPHRASE (or --identity FILE) opens a set, HALLMARK_API_KEY goes to a server.";

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Print exactly one JSON object on standard output
    #[arg(long, global = true, env = "HALLMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,

    /// Seed of everything random [default: from the operating system]
    ///
    /// The same seed gives the same result on a CPU, whatever the number of threads. Whoever learns the seed of a set
    /// knows its keys, and a small number is guessed from a beacon that was drawn here: leave it out for a set that is to
    /// stay secret.
    #[arg(long, global = true, env = "HALLMARK_SEED", hide_env_values = true, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as `warn,serving=debug`
    #[arg(long, global = true, env = "HALLMARK_LOG", value_name = "LEVEL", default_value = "warn", value_parser = log_level)]
    pub(crate) log_level: String,
}

fn log_level(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(Box<demo::Demo>),
    #[command(subcommand)]
    Fingerprint(fingerprint::Command),
    Prove(Box<prove::Prove>),
    VerifyBundle(verify_bundle::VerifyBundle),
    #[command(subcommand)]
    Model(model::Command),
    Host(host::Host),
    Replay(replay::Replay),
    #[command(subcommand)]
    Customer(customer::Command),
    Devnet(devnet::DevnetArguments),
    Register(Box<chain::register::Register>),
    PublishManifest(chain::publish_manifest::PublishManifest),
    #[command(subcommand)]
    Terms(chain::terms::Command),
    CommitFingerprints(chain::commit_fingerprints::CommitFingerprints),
    #[command(subcommand)]
    Lease(chain::lease::Command),
    Deposit(chain::deposit::Deposit),
    Grant(chain::grant::Grant),
    Withdraw(chain::withdraw::Withdraw),
    #[command(subcommand)]
    Usage(chain::usage::Command),
    Report(chain::report::Report),
    Claim(chain::claim::Claim),
    PayOut(chain::pay_out::PayOut),
    #[command(subcommand)]
    Operator(chain::operator::Command),
    Status(chain::status::Status),
    Completions(completions::Completions),
}

/// The encrypted set and what opens it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fingerprint set")]
pub(crate) struct SetArguments {
    /// The encrypted fingerprint set
    #[arg(long, env = "HALLMARK_SET", value_name = "FILE")]
    pub(crate) set: PathBuf,

    #[command(flatten)]
    pub(crate) unlock: UnlockArguments,
}

/// What opens a set.
#[derive(Debug, Clone, Args)]
pub(crate) struct UnlockArguments {
    /// age identity file that opens the set [default: the passphrase in HALLMARK_PASSPHRASE]
    #[arg(long, env = "HALLMARK_IDENTITY", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

/// A share in [0, 1].
pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "a number from 0 to 1")
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "a number above 0")
}

/// A probability strictly between 0 and 1.
pub(crate) fn probability(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value < 1.0, "a number between 0 and 1, both excluded, for example 1e-6")
}

/// As [`share`], where a library counts in 32 bits.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "a share loses only digits")]
pub(crate) fn share_f32(text: &str) -> Result<f32, String> {
    share(text).map(|value| value as f32)
}

/// As [`positive`], where a library counts in 32 bits.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "a factor loses only digits")]
pub(crate) fn positive_f32(text: &str) -> Result<f32, String> {
    positive(text).map(|value| value as f32)
}

fn number(text: &str, accept: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && accept(value) => Ok(value),
        _ => Err(format!("give {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_about_line_and_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no description");
            if command.has_subcommands() {
                command.get_subcommands().for_each(|child| check(child, &path));
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
                assert!(help.contains(path.trim()), "the example of {path} does not call it");
            }
        }
        check(&Arguments::command(), "");
    }

    #[test]
    fn no_secret_is_an_argument() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                for secret in ["passphrase", "password", "api_key", "token"] {
                    // Pieces of text, what makes them, and coins.
                    let other = name.contains("tokens") || ["payment_token", "tokenizer"].contains(&name);
                    assert!(!name.contains(secret) || other, "{name} looks like a secret");
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn shares_outside_their_range_are_refused() {
        assert_eq!(share("0.8"), Ok(0.8));
        assert!(share("1.01").is_err() && share("NaN").is_err() && share("x").is_err());
        assert!(probability("1").is_err() && probability("0").is_err() && positive("0").is_err());
    }
}
