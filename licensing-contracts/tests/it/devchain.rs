//! The development chain, as its clients see it.

mod http;
mod pool;
mod reorganisation;
mod state_file;
mod suite;
mod view;
