//! The metered host, on a development chain with the real contracts.

mod customers;
mod killed;
mod operating;
mod paying;
mod refusing;
mod settling;
mod world;
