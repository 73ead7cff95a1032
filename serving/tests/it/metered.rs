//! The metered host, on a development chain with the real contracts.

mod paying;
mod refusing;
mod settling;
mod upstream;
mod world;
