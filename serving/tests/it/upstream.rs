//! The host in front of another server: a scripted one that does everything wrong, and llama.cpp's own.

mod answers;
mod faults;
mod llama_server;
mod readiness;
pub(crate) mod scripted;
mod starting;
