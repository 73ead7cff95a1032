//! The Rust side of the contracts on the embedded chain, and that chain itself.

mod bls_precompiles;
mod devchain;
mod eigenlayer;
mod life;
mod support;
