//! `hallmark completions`

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;

use crate::{arguments::Arguments, context::Context};

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark completions bash > ~/.local/share/bash-completion/completions/hallmark
  hallmark completions zsh > ~/.zfunc/_hallmark
  hallmark completions fish > ~/.config/fish/completions/hallmark.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &Completions, context: &Context) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "hallmark", &mut script);
    let script = String::from_utf8_lossy(&script);
    context.output.finish(&script, &json!({ "shell": arguments.shell.to_string(), "script": script }))?;
    Ok(ExitCode::SUCCESS)
}
