mod commitment;
mod export;
mod set;
mod show;
mod support;
mod vault;
