#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions
    )
)]

pub mod audit;
pub mod binomial;
pub mod bls;
pub mod commitment;
pub mod counts;
pub mod draw;
pub mod e_process;
pub mod escrow;
pub mod ids;
pub mod matching;
pub mod merkle;
pub mod merkle_sum;
pub mod messages;
pub mod money;
pub mod signature;
pub mod splits;
pub mod transcript;
pub mod units;

/// An account as the chain has it.
pub use alloy_primitives::Address;
/// A 32-byte word as the chain has it; hashes of leaves and nodes are such words.
pub use alloy_primitives::B256;
