//! Tests of the package from outside.

mod architecture;
mod audit;
mod binomial;
mod bls;
mod commitment;
mod draw;
mod e_process;
mod escrow;
mod golden;
mod merkle;
mod merkle_sum;
mod messages;
mod random;
mod signature;
mod vectors;
