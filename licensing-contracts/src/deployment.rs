//! Where the contracts of a chain are: one JSON file, name → address.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, ChainId};
use serde::{Deserialize, Serialize};

/// Why a deployment file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// The file system refused.
    #[error("failed to {attempted} the deployment file {path}")]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not JSON, or without one of the names.
    #[error("{path} is not a deployment file: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Addresses of Hallmark's contracts and of what they stand on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The chain.
    pub chain_id: ChainId,
    /// Block in which the first of them was made: events begin here.
    pub block: u64,
    /// `ModelRegistry`.
    pub model_registry: Address,
    /// `LeaseManager`.
    pub lease_manager: Address,
    /// `PaymentEscrow`.
    pub payment_escrow: Address,
    /// `UsageLog`.
    pub usage_log: Address,
    /// `AuditServiceManager`: the AVS.
    pub audit_service_manager: Address,
    /// `EvidenceCourt`.
    pub evidence_court: Address,
    /// EigenLayer's core.
    pub eigenlayer: EigenLayerAddresses,
    /// A token for trying things out; on development chains only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_token: Option<Address>,
}

/// The contracts of EigenLayer's core that Hallmark calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EigenLayerAddresses {
    /// Operators, and who delegated to them.
    pub delegation_manager: Address,
    /// Deposits.
    pub strategy_manager: Address,
    /// Operator sets, allocations and slashing.
    pub allocation_manager: Address,
    /// Rewards.
    pub rewards_coordinator: Address,
    /// Strategies whose stake the audit counts.
    pub strategies: Vec<Address>,
}

impl Deployment {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, DeploymentError> {
        let text = std::fs::read_to_string(path).map_err(|source| DeploymentError::Io {
            attempted: "read",
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_str(&text)
            .map_err(|error| DeploymentError::Form { path: path.to_owned(), reason: error.to_string() })
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), DeploymentError> {
        let failed = |source| DeploymentError::Io { attempted: "write", path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        writeln!(file, "{text}").map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // A temporary file is private; addresses are for everybody.
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
        }
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_round_trips_and_a_damaged_one_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deployment.json");
        let address = Address::repeat_byte;
        let deployment = Deployment {
            chain_id: 31_337,
            block: 3,
            model_registry: address(1),
            lease_manager: address(2),
            payment_escrow: address(3),
            usage_log: address(4),
            audit_service_manager: address(5),
            evidence_court: address(6),
            eigenlayer: EigenLayerAddresses {
                delegation_manager: address(7),
                strategy_manager: address(8),
                allocation_manager: address(9),
                rewards_coordinator: address(10),
                strategies: vec![address(11)],
            },
            test_token: None,
        };
        deployment.write(&path).unwrap();
        assert_eq!(Deployment::read(&path).unwrap(), deployment);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("usage_log", "usagelog")).unwrap();
        let error = Deployment::read(&path).unwrap_err().to_string();
        assert!(error.contains("usagelog") && error.contains("deployment.json"), "{error}");
        assert!(matches!(Deployment::read(&folder.path().join("none")), Err(DeploymentError::Io { .. })));
    }
}
