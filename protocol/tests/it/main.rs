//! Tests of the package from outside.

mod architecture;
mod binomial;
mod commitment;
mod draw;
mod e_process;
mod golden;
mod merkle;
mod random;
