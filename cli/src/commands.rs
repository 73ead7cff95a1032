//! One file per command: its arguments, and what it does with them.

pub(crate) mod chain;
pub(crate) mod completions;
pub(crate) mod customer;
pub(crate) mod demo;
pub(crate) mod devnet;
pub(crate) mod fingerprint;
pub(crate) mod host;
pub(crate) mod model;
pub(crate) mod prove;
pub(crate) mod replay;
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
        Command::Replay(arguments) => Box::pin(replay::run(arguments, context)).await,
        Command::Customer(command) => Box::pin(customer::run(command, context)).await,
        Command::Devnet(arguments) => Box::pin(devnet::run(arguments, context)).await,
        Command::Register(arguments) => Box::pin(chain::register::run(*arguments, context)).await,
        Command::PublishManifest(arguments) => Box::pin(chain::publish_manifest::run(arguments, context)).await,
        Command::Terms(command) => Box::pin(chain::terms::run(command, context)).await,
        Command::CommitFingerprints(arguments) => Box::pin(chain::commit_fingerprints::run(arguments, context)).await,
        Command::Lease(command) => Box::pin(chain::lease::run(command, context)).await,
        Command::Deposit(arguments) => Box::pin(chain::deposit::run(arguments, context)).await,
        Command::Grant(arguments) => Box::pin(chain::grant::run(arguments, context)).await,
        Command::Withdraw(arguments) => Box::pin(chain::withdraw::run(arguments, context)).await,
        Command::Usage(command) => Box::pin(chain::usage::run(command, context)).await,
        Command::Report(arguments) => Box::pin(chain::report::run(arguments, context)).await,
        Command::Claim(arguments) => Box::pin(chain::claim::run(arguments, context)).await,
        Command::PayOut(arguments) => Box::pin(chain::pay_out::run(arguments, context)).await,
        Command::Operator(command) => Box::pin(chain::operator::run(command, context)).await,
        Command::Status(arguments) => Box::pin(chain::status::run(arguments, context)).await,
        Command::Completions(arguments) => completions::run(&arguments, context),
    }
}
