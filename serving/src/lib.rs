#![doc = include_str!("../README.md")]

pub mod engine;
mod openai;
pub mod server;
pub mod state;
pub mod usage;

pub use server::serve;
pub use state::{AppState, Limits, ServedModel};
