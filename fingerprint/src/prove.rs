//! Proof of ownership against a URL: ask a server the keys of a set, one by one in an order that nobody chose, until the
//! evidence decides.
//!
//! ```no_run
//! # async fn example(set: &fingerprint::set::FingerprintSet) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use fingerprint::{
//!     bundle::Place,
//!     prove::{Client, ClientOptions, Ledger, ProofOptions, SystemClock, prove},
//! };
//!
//! let mut client = Client::new(ClientOptions::new("http://localhost:8080".parse()?), Arc::new(SystemClock))?;
//! let mut ledger = Ledger::open("set.ledger.jsonl".as_ref())?;
//! let options = ProofOptions::default();
//! let place = Place::reserve("proof.json".as_ref())?;
//! let interrupt = std::future::pending();
//! let mut progress = |at: &_| eprintln!("{at:?}");
//! let proof = prove(set, &mut client, &mut ledger, &options, interrupt, &mut progress).await?;
//! proof.bundle.write(place)?;
//! # Ok(())
//! # }
//! ```
//!
//! A host that wants to know a prover from a customer finds no name in the headers: the user agent is that of OpenAI's own
//! library. It can still look at the other headers, which are fewer than that library sends, and at the pattern of short
//! greedy questions, which the rate limit and the caller's other traffic are there to hide.
//!
//! What is on disk at any moment: the leaves in the [`Ledger`], each before its key was sent. A proof that is interrupted
//! or loses its server still gives the bundle of what was answered; a process that is killed leaves nothing half-written
//! but loses those answers. Either way the next proof goes on behind the last burned leaf.

mod client;
mod clock;
mod endpoint;
mod error;
mod ledger;
mod retry;
mod run;

pub use self::{
    client::{Client, ClientOptions, Confidentiality, Exchange},
    clock::{Clock, SystemClock, UnixMillis},
    endpoint::{EndpointKind, ReplyError, RequestShape},
    error::ClientError,
    ledger::{BurnedLeaf, Ledger, LedgerError},
    retry::RetryPolicy,
    run::{CutShort, Outcome, Progress, Proof, ProofOptions, ProveError, prove},
};
