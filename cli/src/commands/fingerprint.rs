//! `hallmark fingerprint …`: the creator's tools, in the order of their use.

pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod draw;
pub(crate) mod embed;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod show;

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;

/// Make, commit, draw, embed and check fingerprints
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(Box<generate::Generate>),
    Commit(commit::Commit),
    Draw(draw::Draw),
    Embed(Box<embed::Embed>),
    Check(Box<check::Check>),
    Show(show::Show),
    Export(export::Export),
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Generate(arguments) => generate::run(*arguments, context).await,
        Command::Commit(arguments) => commit::run(arguments, context).await,
        Command::Draw(arguments) => draw::run(arguments, context).await,
        Command::Embed(arguments) => Box::pin(embed::run(*arguments, context)).await,
        Command::Check(arguments) => Box::pin(check::run(*arguments, context)).await,
        Command::Show(arguments) => show::run(arguments, context).await,
        Command::Export(arguments) => export::run(arguments, context).await,
    }
}
