//! One file per command: its arguments, and what it does with them.

pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod fingerprint;
pub(crate) mod host;
pub(crate) mod model;
pub(crate) mod prove;
pub(crate) mod verify_bundle;

use std::process::ExitCode;

use crate::{arguments::Command, context::Context};

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    // Boxed: the larger commands would make this future as large as the largest of them.
    match command {
        Command::Demo(arguments) => Box::pin(demo::run(*arguments, context)).await,
        Command::Fingerprint(command) => Box::pin(fingerprint::run(command, context)).await,
        Command::Prove(arguments) => Box::pin(prove::run(*arguments, context)).await,
        Command::VerifyBundle(arguments) => verify_bundle::run(&arguments, context),
        Command::Model(command) => Box::pin(model::run(command, context)).await,
        Command::Host(arguments) => Box::pin(host::run(arguments, context)).await,
        Command::Completions(arguments) => completions::run(&arguments, context),
    }
}
