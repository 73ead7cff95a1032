//! Proofs against real HTTP servers, well-behaved and not, and bundles against forgers.

mod bundles;
mod client;
mod forgeries;
mod proofs;
mod server;
mod sets;
