//! Proof of ownership against a URL: ask a server the keys of a set, one by one in an order that nobody chose, until the
//! evidence decides.
//!
//! ```no_run
//! # async fn example(set: &fingerprint::set::FingerprintSet) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use fingerprint::prove::{Client, ClientOptions, Ledger, ProofOptions, SystemClock, prove};
//!
//! let mut client = Client::new(ClientOptions::new("http://localhost:8080".parse()?), Arc::new(SystemClock))?;
//! let mut ledger = Ledger::open("set.ledger.jsonl".as_ref())?;
//! let options = ProofOptions::default();
//! let bundle = prove(set, &mut client, &mut ledger, &options, &mut |progress| eprintln!("{progress:?}")).await?;
//! bundle.write("proof.json".as_ref())?;
//! # Ok(())
//! # }
//! ```
//!
//! A host that wants to know a prover from a customer finds nothing in the headers; it can still look at the pattern of
//! short greedy questions, which the rate limit and the caller's other traffic are there to hide.
//!
//! What is on disk at any moment: the leaves in the [`Ledger`], each before its key was sent. Dropping the future of
//! [`prove`] (ctrl-c) leaves nothing half-written; the next proof goes on with the leaves that are left.

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
    run::{Outcome, Progress, ProofOptions, ProveError, prove},
};
