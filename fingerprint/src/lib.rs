#![doc = include_str!("../README.md")]

mod atomic;
pub mod bundle;
pub mod candidates;
pub mod check;
pub mod commitment;
pub mod embed;
pub mod export;
pub mod generate;
pub mod ordinary;
pub mod prove;
pub mod set;
pub mod show;
pub mod surface;
pub mod vault;
