//! Runs the real binary as a user would.

mod bad_input;
mod chain;
mod command_line;
mod demo;
mod host;
mod life;
mod servers;
mod support;
