//! The chain client against nodes that fail, chains that change, and processes that die.

mod events;
mod hostile;
mod killed;
mod nodes;
mod refusals;
mod sending;
mod unseen;
mod works;
mod world;
