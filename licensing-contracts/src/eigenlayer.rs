//! EigenLayer's core, version 1.4: where its bytecode comes from, how it is deployed on a chain that does not have it, and
//! the calls that the protocol makes.
//!
//! On a public chain the core is there already and its addresses are configuration. On a development chain its released
//! contracts are deployed as they are: nothing of EigenLayer is imitated.

pub mod core;
pub mod deploy;
pub mod interfaces;
