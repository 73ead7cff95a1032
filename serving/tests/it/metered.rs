//! The metered host, on a development chain with the real contracts.

mod customers;
mod hostile;
mod killed;
mod operating;
mod paying;
mod refusing;
mod settling;
pub(crate) mod world;
