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

pub mod binomial;
pub mod commitment;
pub mod draw;
pub mod e_process;
pub mod ids;
pub mod matching;
pub mod merkle;
pub mod units;

/// A 32-byte word as the chain has it; hashes of leaves and nodes are such words.
pub use alloy_primitives::B256;
