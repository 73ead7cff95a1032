//! The Rust side of the contracts on the embedded chain, and that chain itself.

mod audit_model;
mod bls_precompiles;
mod client;
mod devchain;
mod differential;
mod eigenlayer;
mod escrow_model;
mod life;
mod support;
