//! Where the core's bytecode comes from, and what is not taken for it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Instant,
};

use licensing_contracts::eigenlayer::core::{CACHE_FILE, Cargo, Contract, CoreBytecode, CoreError};

/// The cargo that runs these tests, with its user's configuration.
fn cargo() -> Cargo {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    Cargo { program: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), home }
}

/// Where the user's programs keep what they fetched.
pub(crate) fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache").join("hallmark")
}

/// The bytecode; the first test that needs it fetches it if this machine does not have it.
pub(crate) fn core() -> &'static CoreBytecode {
    static CORE: OnceLock<CoreBytecode> = OnceLock::new();
    CORE.get_or_init(|| CoreBytecode::load(&cache(), &cargo()).unwrap_or_else(|error| panic!("{}", chained(&error))))
}

fn chained(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chained(source)),
        None => error.to_string(),
    }
}

fn no_cargo() -> Cargo {
    Cargo { program: OsString::from("/nowhere/cargo"), home: None }
}

/// A folder whose cache holds the bytecode.
fn filled() -> tempfile::TempDir {
    core();
    let folder = tempfile::tempdir().unwrap();
    fs::copy(cache().join(CACHE_FILE), folder.path().join(CACHE_FILE)).unwrap();
    folder
}

#[test]
fn every_contract_has_code_that_a_chain_accepts() {
    for contract in Contract::ALL {
        let size = core().creation(contract).len();
        // The limit of creation bytecode (EIP-3860).
        assert!((100..=49_152).contains(&size), "{}: {size}", contract.name());
    }
}

#[test]
fn the_second_time_needs_no_cargo() {
    let folder = filled();
    assert_eq!(&CoreBytecode::load(folder.path(), &no_cargo()).unwrap(), core());
    assert_eq!(&CoreBytecode::read(&folder.path().join(CACHE_FILE)).unwrap(), core());
}

#[test]
fn without_bytecode_and_cargo_the_error_says_what_to_do_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let error = chained(&CoreBytecode::load(folder.path(), &no_cargo()).unwrap_err());
    assert!(error.contains("name a copy of that file from another machine"), "{error}");
    assert!(error.contains("/nowhere/cargo") && !error.contains('\n'), "{error}");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [OsString::from(format!("{CACHE_FILE}.lock"))]);
}

#[cfg(unix)]
#[test]
fn what_cargo_complains_about_is_told_on_one_line() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("cargo");
    fs::write(
        &program,
        "#!/bin/sh\necho '    Updating index' >&2\necho 'error: no route' >&2\necho 'to host' >&2\nexit 101\n",
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let failing = Cargo { program: program.into_os_string(), home: None };
    let error = chained(&CoreBytecode::load(&folder.path().join("cache"), &failing).unwrap_err());
    assert!(error.ends_with("cargo failed: error: no route to host"), "{error}");
}

#[cfg(unix)]
#[test]
fn another_crate_than_the_pinned_one_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    // A cargo that delivers a crate of the right name and version with other content.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("cargo");
    let script = r#"#!/bin/sh
printf '[[package]]\nname = "eigenlayer-contract-deployer"\nversion = "0.4.0"\nchecksum = "00ff"\n' > Cargo.lock
printf '{"packages":[{"name":"eigenlayer-contract-deployer","manifest_path":"%s/Cargo.toml"}]}' "$PWD"
"#;
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let other = Cargo { program: program.into_os_string(), home: None };
    let cache = folder.path().join("cache");
    let error = chained(&CoreBytecode::load(&cache, &other).unwrap_err());
    assert!(error.contains("has the SHA-256 00ff"), "{error}");
    assert!(!cache.join(CACHE_FILE).exists());
}

fn named(path: &Path, text: &str) -> CoreError {
    fs::write(path, text).unwrap();
    CoreBytecode::read(path).expect_err("accepted")
}

#[test]
fn a_named_file_is_taken_only_if_it_is_the_released_core() {
    let folder = filled();
    let path = folder.path().join(CACHE_FILE);
    let whole = fs::read_to_string(&path).unwrap();
    assert!(whole.contains("BUSL-1.1"), "the file names the licence of what is in it");
    assert!(matches!(named(&path, &whole[..whole.len() / 2]), CoreError::Format { .. }));
    assert!(matches!(named(&path, "{}"), CoreError::Missing { contract: "ProxyAdmin", .. }));
    assert!(matches!(named(&path, &whole.replace("\"0x6080", "\"6080x")), CoreError::Format { .. }));
    let changed = whole.replacen("0x60806040", "0x60806041", 1);
    assert!(changed != whole && matches!(named(&path, &changed), CoreError::Digest { .. }));
    assert!(matches!(CoreBytecode::read(&folder.path().join("absent")), Err(CoreError::Read { .. })));
}

#[test]
#[ignore = "needs the package registry that cargo is configured for"]
fn a_damaged_cache_is_fetched_again_and_two_at_once_fetch_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CACHE_FILE), "{ \"ProxyAdmin\": \"0x60").unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let loads = [0, 1].map(|_| scope.spawn(|| CoreBytecode::load(folder.path(), &cargo())));
        for load in loads {
            let loaded = load.join().unwrap().unwrap_or_else(|error| panic!("{}", chained(&error)));
            assert_eq!(&loaded, core());
        }
    });
    eprintln!("fetching the core's bytecode: {:?}", start.elapsed());
    assert_eq!(&CoreBytecode::load(folder.path(), &no_cargo()).unwrap(), core());
    // The crate itself, 12 MB, does not stay.
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [OsString::from(CACHE_FILE), OsString::from(format!("{CACHE_FILE}.lock"))]);
}
