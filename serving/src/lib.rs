#![doc = include_str!("../README.md")]

mod admission;
pub mod books;
mod causes;
pub mod chain;
pub mod engine;
pub mod host;
pub mod metering;
mod metrics;
mod openai;
mod operator;
pub mod server;
pub mod settlement;
pub mod state;
pub mod tls;
pub mod usage;

pub use openai::replay;
pub use server::{serve, serve_tls};
pub use state::{AppState, Limits, ServedModel};
