//! Fetches EigenLayer's bytecode into a folder, if it is not there, and prints the file's path. For tools that are not
//! written in Rust: `cargo run --release --package licensing-contracts --example eigenlayer_core -- FOLDER`.

use std::{
    env,
    error::Error,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use licensing_contracts::eigenlayer::core::{CACHE_FILE, Cargo, CoreBytecode};

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprint!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn run() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or("which folder?")?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let cargo = Cargo { program: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), home };
    CoreBytecode::load(&folder, &cargo)?;
    writeln!(io::stdout(), "{}", folder.join(CACHE_FILE).display())?;
    Ok(())
}
