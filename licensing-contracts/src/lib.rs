#![doc = include_str!("../README.md")]

#[cfg(feature = "devnet")]
pub mod devchain;
#[cfg(feature = "devnet")]
pub mod devnet;
pub mod eigenlayer;

pub mod actions;
mod advice;
pub mod bindings;
pub mod client;
pub mod deploy;
pub mod deployment;
