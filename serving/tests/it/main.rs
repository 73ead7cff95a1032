//! The host over real HTTP. Engines are scripted only where a failure or an exact text is needed; the rest runs on real
//! models.

mod books;
mod concurrency;
mod faults;
mod generation;
mod hostile;
mod limits;
mod logs;
mod refusals;
mod shutdown;
mod support;
mod wire;
