//! The contracts' interfaces and creation code, from the committed artifacts.
//!
//! Calls, events and errors have alloy's types. Each contract has its own copy of the signed messages' structs; [`same`] turns
//! those of `protocol::messages::wire` into them.

#![expect(clippy::too_many_arguments, reason = "generated from the contracts' ABI")]

use alloy::sol_types::{Error, SolType, SolValue};

/// Models, terms, fingerprint commitments.
pub mod registry {
    alloy::sol!(ModelRegistry, "artifacts/ModelRegistry.json");
}

/// Leases and bonds.
pub mod leases {
    use protocol::messages::wire::Prices;

    alloy::sol!(LeaseManager, "artifacts/LeaseManager.json");
}

/// Deposits, vouchers, claims.
pub mod escrow {
    use protocol::messages::wire::{Channel, Split, Statement, Voucher};

    alloy::sol!(PaymentEscrow, "artifacts/PaymentEscrow.json");
}

/// Reports of usage.
pub mod usage {
    alloy::sol!(UsageLog, "artifacts/UsageLog.json");
}

/// Operator sets, tasks, verdicts.
pub mod audit {
    alloy::sol!(AuditServiceManager, "artifacts/AuditServiceManager.json");
}

/// Objective evidence.
pub mod court {
    alloy::sol!(EvidenceCourt, "artifacts/EvidenceCourt.json");
}

/// A token for development chains.
pub mod token {
    alloy::sol!(TestToken, "artifacts/TestToken.json");
}

pub use self::{
    audit::AuditServiceManager, court::EvidenceCourt, escrow::PaymentEscrow, leases::LeaseManager,
    registry::ModelRegistry, token::TestToken, usage::UsageLog,
};

/// Every artifact by its contract's name.
pub const ARTIFACTS: &[(&str, &str)] = &[
    ("AuditServiceManager", include_str!("../artifacts/AuditServiceManager.json")),
    ("DepositForwarder", include_str!("../artifacts/DepositForwarder.json")),
    ("EvidenceCourt", include_str!("../artifacts/EvidenceCourt.json")),
    ("LeaseManager", include_str!("../artifacts/LeaseManager.json")),
    ("ModelRegistry", include_str!("../artifacts/ModelRegistry.json")),
    ("PaymentEscrow", include_str!("../artifacts/PaymentEscrow.json")),
    ("TestToken", include_str!("../artifacts/TestToken.json")),
    ("UsageLog", include_str!("../artifacts/UsageLog.json")),
];

/// The same struct in another module's type: two Rust types of one Solidity type have one encoding.
pub fn same<A: SolValue, B: SolValue + From<<B::SolType as SolType>::RustType>>(value: &A) -> Result<B, Error> {
    B::abi_decode(&value.abi_encode())
}
