#![doc = include_str!("../README.md")]

mod arguments;
mod clock;
mod commands;
mod context;
mod demo;
mod failure;
mod folders;
mod format;
mod hosting;
mod logs;
mod models;
mod output;
mod progress;
mod secrets;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{arguments::Arguments, context::Context};

/// Tensors of many megabytes come and go in training; glibc gives such memory back to the system every time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::usage(&error),
    };
    let json = arguments.common.json;
    match run(arguments) {
        Ok(exit) => exit,
        Err(error) => failure::report(&error, json),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    logs::start(&arguments.common.log_level)?;
    // HTTPS needs one process-wide provider. A second installation is the only way for this to fail.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("failed to install the TLS provider twice"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let context = Context::new(&arguments.common);
    let result = runtime.block_on(context.interruptible(commands::run(arguments.command, &context)));
    // A computation that an interrupt left behind would hold a waiting shutdown for as long as it runs.
    runtime.shutdown_background();
    result
}
