//! One crate, fetched by cargo as data. Nothing of it is compiled.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use alloy::{hex, primitives::Bytes};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Contract;

const CRATE: &str = "eigenlayer-contract-deployer";
const CRATE_VERSION: &str = "0.4.0";

/// Of the crate as it is published.
const CRATE_SHA256: &str = "df259858472ebcda21942b9994352c9d09ea34c0ab4173e29b0319441082bc51";

/// What the crate depends on: name, a version that satisfies it, features that it asks for. Cargo would fetch all of them
/// and what they depend on; empty packages in their place leave one crate to fetch.
const DEPENDENCIES: [(&str, &str, &[&str]); 12] = [
    ("alloy", "1.99.0", &[]),
    ("alloy-contract", "1.99.0", &[]),
    ("alloy-json-abi", "1.99.0", &["serde_json"]),
    ("alloy-primitives", "1.99.0", &[]),
    ("alloy-provider", "1.99.0", &[]),
    ("alloy-rpc-types-eth", "1.99.0", &[]),
    ("alloy-sol-types", "1.99.0", &["json"]),
    ("color-eyre", "0.6.99", &[]),
    ("eigensdk", "2.99.0", &["crypto-bls", "utils"]),
    ("serde", "1.0.9999", &["derive"]),
    ("serde_json", "1.0.9999", &["alloc"]),
    ("tracing", "0.1.9999", &[]),
];

/// The cargo that fetches.
#[derive(Clone, Debug)]
pub struct Cargo {
    /// The program: `cargo`, or what the variable `CARGO` names inside of `cargo run`.
    pub program: OsString,
    /// The user's cargo folder. Its configuration is respected, a replaced registry for instance; nothing is written to it.
    pub home: Option<PathBuf>,
}

/// Cargo did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no cargo.
    #[error("failed to start {program}", program = .program.display())]
    Start {
        /// What was started.
        program: OsString,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Cargo says why.
    #[error("cargo failed: {reason}")]
    Cargo {
        /// The errors that it printed.
        reason: String,
    },
    /// The folder for it cannot be written, or what cargo put there cannot be read.
    #[error("failed to use {path}")]
    Files {
        /// File or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Cargo's own report cannot be understood.
    #[error("cargo does not say where {CRATE} is")]
    Metadata(#[source] Option<serde_json::Error>),
    /// The registry has another crate than the one that was tested.
    #[error("{CRATE} {CRATE_VERSION} has the SHA-256 {found}, and not {CRATE_SHA256}")]
    Pin {
        /// Of the crate that came.
        found: String,
    },
    /// The crate's sources are not as expected.
    #[error("{path} does not hold the bytecode of {contract}")]
    Extract {
        /// The source file.
        path: PathBuf,
        /// The contract.
        contract: &'static str,
    },
}

/// Fetches the crate into a folder under `cache`, takes the bytecode out and removes the folder.
pub(super) fn fetch(cache: &Path, cargo: &Cargo) -> Result<BTreeMap<Contract, Bytes>, FetchError> {
    let files = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Files { path, source }
    };
    let work = tempfile::Builder::new().prefix(".eigenlayer-core-").tempdir_in(cache).map_err(files(cache))?;
    write_stub(work.path()).map_err(files(work.path()))?;
    run(cargo, work.path(), &["fetch"])?;
    let metadata = run(cargo, work.path(), &["metadata", "--offline", "--format-version", "1"])?;
    let sources = sources(&metadata.stdout)?;
    check_pin(work.path())?;
    Contract::ALL.into_iter().map(|contract| Ok((contract, extract(&sources, contract)?))).collect()
}

/// A package that depends on the crate, and empty packages in the place of the crate's own dependencies.
fn write_stub(folder: &Path) -> io::Result<()> {
    let mut manifest = format!(
        "[package]\nname = \"stub\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n\
         [dependencies]\n{CRATE} = \"={CRATE_VERSION}\"\n\n[patch.crates-io]\n"
    );
    for (name, version, features) in DEPENDENCIES {
        let package = folder.join("empty").join(name);
        let features: String = features.iter().map(|feature| format!("{feature} = []\n")).collect();
        write_package(
            &package,
            &format!(
                "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n\n\
                 [features]\ndefault = []\nstd = []\n{features}"
            ),
        )?;
        manifest.push_str(&format!("{name} = {{ path = \"empty/{name}\" }}\n"));
    }
    write_package(folder, &manifest)
}

fn write_package(folder: &Path, manifest: &str) -> io::Result<()> {
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("src").join("lib.rs"), "")?;
    fs::write(folder.join("Cargo.toml"), manifest)
}

/// Runs cargo on the stub, with a home of its own so that nothing is left in the user's, and with the user's configuration.
fn run(cargo: &Cargo, stub: &Path, arguments: &[&str]) -> Result<Output, FetchError> {
    let mut command = Command::new(&cargo.program);
    command.args(arguments).current_dir(stub).stdin(Stdio::null());
    command.env("CARGO_HOME", stub.join("home")).env("CARGO_TERM_COLOR", "never");
    // An unreachable registry is said after seconds, not minutes.
    command.env("CARGO_NET_RETRY", "1").env("CARGO_HTTP_TIMEOUT", "20");
    // What an outer cargo set for its own package has no meaning here.
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("RUSTC_WRAPPER");
    for name in ["config.toml", "config"] {
        let configuration = cargo.home.as_ref().map(|home| home.join(name));
        if let Some(configuration) = configuration.filter(|file| file.is_file()) {
            command.arg("--config").arg(configuration);
            break;
        }
    }
    let output = command.output().map_err(|source| FetchError::Start { program: cargo.program.clone(), source })?;
    if !output.status.success() {
        return Err(FetchError::Cargo { reason: reason(&output.stderr) });
    }
    Ok(output)
}

/// What cargo complains about, on one line.
fn reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // Warnings and progress come first, the error and its causes last.
    let error: Vec<&str> = lines.skip_while(|line| !line.starts_with("error")).collect();
    match error.as_slice() {
        [] => text.trim().replace('\n', " "),
        lines => lines.join(" ").chars().take(600).collect(),
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// Where cargo put the crate's sources.
fn sources(metadata: &[u8]) -> Result<PathBuf, FetchError> {
    let metadata: Metadata = serde_json::from_slice(metadata).map_err(|error| FetchError::Metadata(Some(error)))?;
    let package = metadata.packages.into_iter().find(|package| package.name == CRATE);
    let package = package.ok_or(FetchError::Metadata(None))?;
    package.manifest_path.parent().map(Path::to_owned).ok_or(FetchError::Metadata(None))
}

/// Compares the crate with the one that was tested: the archive if cargo kept one, and what cargo checked it against.
fn check_pin(stub: &Path) -> Result<(), FetchError> {
    let lock_path = stub.join("Cargo.lock");
    let files = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Files { path, source }
    };
    let lock = fs::read_to_string(&lock_path).map_err(files(&lock_path))?;
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{CRATE}\"")));
    let locked = entry.and_then(|entry| entry.split("checksum = \"").nth(1)?.split('"').next()).unwrap_or("none");
    if locked != CRATE_SHA256 {
        return Err(FetchError::Pin { found: locked.to_owned() });
    }
    let archives = stub.join("home").join("registry").join("cache");
    let Ok(registries) = fs::read_dir(&archives) else {
        // A registry that is a folder of unpacked crates has no archives; cargo compared its checksums.
        return Ok(());
    };
    for registry in registries {
        let archive = registry.map_err(files(&archives))?.path().join(format!("{CRATE}-{CRATE_VERSION}.crate"));
        if archive.is_file() {
            let found = hex::encode(Sha256::digest(fs::read(&archive).map_err(files(&archive))?));
            if found != CRATE_SHA256 {
                return Err(FetchError::Pin { found });
            }
        }
    }
    Ok(())
}

/// The bytecode in the documentation of the contract's bindings.
fn extract(sources: &Path, contract: Contract) -> Result<Bytes, FetchError> {
    let path = sources.join("src").join("bindings").join("core").join(file_name(contract));
    let text = fs::read_to_string(&path).map_err(|source| FetchError::Files { path: path.clone(), source })?;
    bytecode(&text, contract.name()).ok_or_else(|| FetchError::Extract { path, contract: contract.name() })
}

fn bytecode(text: &str, name: &str) -> Option<Bytes> {
    // A file has the modules of its libraries as well; the bytecode follows on its module.
    let (_, module) = text.split_once(&format!("pub mod {name} {{"))?;
    let (_, documented) = module.split_once("The creation / init bytecode of the contract.")?;
    let (_, code) = documented.split_once("///0x")?;
    let end = code.find(|letter: char| !letter.is_ascii_hexdigit())?;
    let code = hex::decode(code.get(..end)?).ok()?;
    (!code.is_empty()).then(|| code.into())
}

const fn file_name(contract: Contract) -> &'static str {
    match contract {
        Contract::ProxyAdmin => "proxy_admin.rs",
        Contract::TransparentUpgradeableProxy => "transparent_upgradeable_proxy.rs",
        Contract::EmptyContract => "empty_contract.rs",
        Contract::PauserRegistry => "pauser_registry.rs",
        Contract::PermissionController => "permission_controller.rs",
        Contract::DelegationManager => "delegation_manager.rs",
        Contract::StrategyManager => "strategy_manager.rs",
        Contract::AllocationManager => "allocation_manager.rs",
        Contract::EigenPodManager => "eigen_pod_manager.rs",
        Contract::RewardsCoordinator => "rewards_coordinator.rs",
        Contract::AVSDirectory => "avs_directory.rs",
        Contract::StrategyBase => "strategy_base.rs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pub mod Types {\n}\npub mod Vault {\n    use x;\n    /// The creation / init bytecode of the contract.\n    \
                        ///\n    /// ```text\n    ///0x6001\n    /// ```\n    /// The runtime bytecode\n    ///0x6002\n";

    #[test]
    fn bytecode_is_taken_from_its_own_module() {
        assert_eq!(bytecode(TEXT, "Vault"), Some(Bytes::from_static(&[0x60, 0x01])));
        for name in ["Types2", "Vaul", "vault"] {
            assert_eq!(bytecode(TEXT, name), None, "{name}");
        }
        assert_eq!(bytecode(&TEXT.replace("0x6001", "0x600"), "Vault"), None, "half a byte");
        assert_eq!(bytecode(&TEXT.replace("0x6001", "0x"), "Vault"), None, "nothing");
        assert_eq!(bytecode("pub mod Vault {\n init bytecode", "Vault"), None);
    }

    #[test]
    fn a_reason_is_one_line_without_progress() {
        let stderr = b"    Updating index\nwarning: spurious\nerror: failed to get `x`\n\nCaused by:\n  no route\n";
        assert_eq!(reason(stderr), "error: failed to get `x` Caused by: no route");
        assert_eq!(reason(b"killed\nby signal\n"), "killed by signal");
    }
}
