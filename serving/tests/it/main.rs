//! The host over real HTTP. Engines are scripted only where a failure or an exact text is needed; the rest runs on real
//! models.

mod books;
mod choices;
mod determinism;
mod device;
mod faults;
mod generation;
mod hostile;
mod https;
mod limits;
mod logprobs;
mod logs;
mod metered;
mod openai_client;
mod penalties;
mod refusals;
mod shutdown;
mod support;
mod text_engines;
mod upstream;
mod wire;
