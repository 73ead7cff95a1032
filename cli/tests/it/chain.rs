//! A real development chain in a process of its own, and the commands that act on it.

mod devnet;
mod hosting;
mod keys;
mod life;
mod running;
mod wrong;
