//! The released core on the embedded chain, through the whole life of an operator.

mod bytecode;
mod life;

pub(crate) use bytecode::core;
