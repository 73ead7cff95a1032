//! The creation bytecode of the released core: data that is fetched once and pinned.
//!
//! EigenLayer's core is licensed under BUSL-1.1 (MIT from 2027-02-06), which allows non-production use and passing it on
//! with its licence, but it is not ours to put under our own: so it is neither in this repository nor a dependency.
//! A crate that deploys the core in tests carries the bytecode in its sources. Cargo, which the user has and has
//! configured, fetches that one crate and nothing else; the bytecode is taken out of its text into one small file in the
//! user's cache, and everything after that is offline. A file from another machine can be named instead.
//!
//! Whatever way the bytecode comes, its SHA-256 is checked here: what is deployed is what was tested.

mod fetch;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use alloy::{hex, primitives::Bytes};
use sha2::{Digest as _, Sha256};
use tracing::info;

pub use self::fetch::{Cargo, FetchError};

/// Name of the file in the cache. The number is the version of the crate that it was taken from.
pub const CACHE_FILE: &str = "eigenlayer-core-0.4.0.json";

/// SHA-256 over `name:bytecode` and a line end for each contract, in the order of [`Contract::ALL`].
const CONTENT_SHA256: &str = "5248df257ca269c56b3c7468d20e2cff18616c2d08cfcd129ba2c2bda4a4a082";

/// Stands in the file beside the bytecode.
const NOTICE: &str = "Creation bytecode of EigenLayer's core contracts, v1.4, by Layr Labs, under BUSL-1.1 until 2027-02-06 and MIT \
from then on. Taken from the crate eigenlayer-contract-deployer 0.4.0.";

/// The contracts of the core that are deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contract {
    /// Owner of every proxy.
    ProxyAdmin,
    /// OpenZeppelin's proxy.
    TransparentUpgradeableProxy,
    /// Behind a proxy until its implementation is deployed.
    EmptyContract,
    /// Who may pause.
    PauserRegistry,
    /// Who may call for whom.
    PermissionController,
    /// Operators, delegations, withdrawals.
    DelegationManager,
    /// Deposits.
    StrategyManager,
    /// Operator sets, allocations, slashing.
    AllocationManager,
    /// Native restaking.
    EigenPodManager,
    /// Rewards.
    RewardsCoordinator,
    /// The older registry of services.
    AVSDirectory,
    /// A strategy over one ERC-20.
    StrategyBase,
}

impl Contract {
    /// Every contract.
    pub const ALL: [Self; 12] = [
        Self::ProxyAdmin,
        Self::TransparentUpgradeableProxy,
        Self::EmptyContract,
        Self::PauserRegistry,
        Self::PermissionController,
        Self::DelegationManager,
        Self::StrategyManager,
        Self::AllocationManager,
        Self::EigenPodManager,
        Self::RewardsCoordinator,
        Self::AVSDirectory,
        Self::StrategyBase,
    ];

    /// As in Solidity.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProxyAdmin => "ProxyAdmin",
            Self::TransparentUpgradeableProxy => "TransparentUpgradeableProxy",
            Self::EmptyContract => "EmptyContract",
            Self::PauserRegistry => "PauserRegistry",
            Self::PermissionController => "PermissionController",
            Self::DelegationManager => "DelegationManager",
            Self::StrategyManager => "StrategyManager",
            Self::AllocationManager => "AllocationManager",
            Self::EigenPodManager => "EigenPodManager",
            Self::RewardsCoordinator => "RewardsCoordinator",
            Self::AVSDirectory => "AVSDirectory",
            Self::StrategyBase => "StrategyBase",
        }
    }
}

/// There is no bytecode.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// A file cannot be read.
    #[error("failed to read EigenLayer's bytecode from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file named is not one that [`CoreBytecode::load`] wrote.
    #[error("{path} does not hold EigenLayer's bytecode as written to the cache ({CACHE_FILE})")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A contract is absent.
    #[error("{path} lacks the bytecode of {contract}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The contract.
        contract: &'static str,
    },
    /// Another version, or damaged.
    #[error("{path} holds other bytecode than EigenLayer's v1.4 as released (SHA-256 {found})")]
    Digest {
        /// The file.
        path: PathBuf,
        /// Of its content.
        found: String,
    },
    /// The cache cannot be written.
    #[error("failed to keep EigenLayer's bytecode in {path}")]
    Keep {
        /// File or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing in the cache, and fetching failed.
    #[error(
        "EigenLayer's bytecode is not in {cache} and could not be fetched; name a copy of that file from another machine"
    )]
    Fetch {
        /// The file that was looked for.
        cache: PathBuf,
        /// Why not.
        #[source]
        source: FetchError,
    },
}

/// Creation bytecode of every contract of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreBytecode(BTreeMap<Contract, Bytes>);

impl CoreBytecode {
    /// Reads the bytecode from the folder `cache`. The first time it is fetched by `cargo`, which takes seconds and needs
    /// the registry that cargo is configured for. Blocks; of two processes that come at once one fetches and one waits.
    pub fn load(cache: &Path, cargo: &Cargo) -> Result<Self, CoreError> {
        let path = cache.join(CACHE_FILE);
        if let Some(found) = Self::cached(&path)? {
            return Ok(found);
        }
        let keep = |source| CoreError::Keep { path: cache.to_owned(), source };
        fs::create_dir_all(cache).map_err(keep)?;
        let lock = File::create(cache.join(format!("{CACHE_FILE}.lock"))).map_err(keep)?;
        lock.lock().map_err(keep)?;
        // Whoever had the lock before may have fetched it.
        if let Some(found) = Self::cached(&path)? {
            return Ok(found);
        }
        info!("fetching EigenLayer's bytecode through cargo, once");
        let fetched = fetch::fetch(cache, cargo)
            .map_err(|source| CoreError::Fetch { cache: path.clone(), source })
            .and_then(|codes| Self::checked(codes, &path))?;
        fetched.keep(&path)?;
        Ok(fetched)
    }

    /// Reads the bytecode from a file that [`CoreBytecode::load`] wrote, for machines without cargo.
    pub fn read(path: &Path) -> Result<Self, CoreError> {
        let text = fs::read_to_string(path).map_err(|source| CoreError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// What the cache has. A file that is not whole, or not ours, counts as absent: it will be replaced.
    fn cached(path: &Path) -> Result<Option<Self>, CoreError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text, path).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CoreError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, CoreError> {
        let mut entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|source| CoreError::Format { path: path.to_owned(), source })?;
        let mut codes = BTreeMap::new();
        for contract in Contract::ALL {
            let name = contract.name();
            let value =
                entries.remove(name).ok_or_else(|| CoreError::Missing { path: path.to_owned(), contract: name })?;
            let code =
                serde_json::from_value(value).map_err(|source| CoreError::Format { path: path.to_owned(), source })?;
            codes.insert(contract, code);
        }
        Self::checked(codes, path)
    }

    fn checked(codes: BTreeMap<Contract, Bytes>, path: &Path) -> Result<Self, CoreError> {
        let mut hasher = Sha256::new();
        for (contract, code) in &codes {
            hasher.update(contract.name());
            hasher.update(":");
            hasher.update(code);
            hasher.update("\n");
        }
        let found = hex::encode(hasher.finalize());
        if codes.len() != Contract::ALL.len() || found != CONTENT_SHA256 {
            return Err(CoreError::Digest { path: path.to_owned(), found });
        }
        Ok(Self(codes))
    }

    fn keep(&self, path: &Path) -> Result<(), CoreError> {
        let mut entries = serde_json::Map::new();
        entries.insert("notice".to_owned(), NOTICE.into());
        for (contract, code) in &self.0 {
            entries.insert(contract.name().to_owned(), code.to_string().into());
        }
        let text = format!("{:#}\n", serde_json::Value::Object(entries));
        let write = || {
            let folder = path.parent().unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)
        };
        write().map(drop).map_err(|source| CoreError::Keep { path: path.to_owned(), source })
    }

    /// Bytecode that creates the contract; arguments of its constructor go behind it.
    #[expect(clippy::expect_used, reason = "`checked` is the only constructor and counts the contracts")]
    pub fn creation(&self, contract: Contract) -> &Bytes {
        self.0.get(&contract).expect("every contract has its bytecode")
    }
}
