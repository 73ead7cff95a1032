//! The metered host, on a development chain with the real contracts.

pub(crate) mod customers;
mod hostile;
mod killed;
mod operating;
mod paying;
mod refusing;
mod settling;
mod untaken;
mod upstream;
pub(crate) mod world;
