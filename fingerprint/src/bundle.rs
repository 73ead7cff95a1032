//! The bundle: one proof of ownership as a file that anyone checks offline against the published commitment.
//!
//! A bundle holds, for every query, the opened leaf with its paths to both roots, the request and the answer as they
//! went over the wire, and what the reply did to the evidence. [`verify_bundle`] computes everything again.
//!
//! # Warnings
//!
//! - A bundle shows that *if* the recorded server gave the recorded answers, the verdict follows. Who saw the answers is
//!   the prover's word, unless the server signs them or a second prover repeats the proof with other leaves.
//! - The order of leaves is fixed by root and beacon, and queries follow it without a gap. A prover who asked keys in
//!   private can still choose where his bundle begins; the level that a run is tested at is divided so that this gains him
//!   nothing ([`protocol::e_process::share_of_alpha`]).
//! - An undecided bundle may end anywhere: the run was interrupted, its budget was spent, or the server stopped answering.
//! - An answer without a reply (an error status, a web page, nothing) counts for nothing, so that a host cannot prevent a
//!   proof by refusing now and then. That it failed is the prover's word like everything else on the wire.
//! - The digest protects what nothing else in the file can: it must be kept, signed or published to mean anything against
//!   whoever can write a whole new file.
//!
//! # Form
//!
//! JSON in the order of the fields in `format.rs`, without white space. The digest is keccak256 of that form without the
//! field `digest`. Fractions are text. Opened leaves are burned, so the keys in a bundle are secret no more.

mod format;
mod number;
mod record;
mod report;
mod tally;
mod verify;

use std::{fmt, io, io::Write as _, path::Path};

use alloy_primitives::keccak256;
use protocol::{
    commitment::CommitmentError,
    e_process::EProcessError,
    ids::{BundleDigest, LeafIndex},
};
use thiserror::Error;

pub(crate) use self::{
    format::{EndpointRecord, TestRecord},
    number::Exact,
    record::Recorder,
    tally::FAILURES_IN_A_ROW,
};
pub use self::{
    report::Report,
    verify::{QueryFault, verify_bundle},
};
use crate::{
    atomic::{Access, Reserved},
    prove::Outcome,
};

/// Why a bundle is refused.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Another kind of file.
    #[error("this is not a Hallmark proof bundle")]
    NotABundle {
        /// What the JSON reader objected to, if it did.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Written by another version of Hallmark.
    #[error(
        "the bundle has version {found}, this program reads version {}; use the release that wrote it",
        format::VERSION
    )]
    OtherVersion {
        /// The file's version.
        found: u32,
    },
    /// A field is missing, unknown or malformed.
    #[error("the bundle is damaged")]
    Malformed {
        /// What the JSON reader objected to.
        #[source]
        source: serde_json::Error,
    },
    /// The same content in another form, as an editor or a formatter leaves it.
    #[error("the bundle was changed: it leaves the canonical form at byte {offset}")]
    NotCanonical {
        /// Where.
        offset: usize,
    },
    /// A commitment before the draw says nothing about responses.
    #[error("the commitment has no draw yet; give the commitment.json that was published after the draw")]
    NotDrawn,
    /// A bundle for another set.
    #[error("the bundle belongs to another commitment: its {what} is not the published one")]
    OtherCommitment {
        /// What differs.
        what: &'static str,
    },
    /// The published parameters are not under the published root.
    #[error("the commitment's parameters do not lead to its root")]
    Parameters {
        /// Why.
        #[source]
        source: CommitmentError,
    },
    /// The published draw is not under the published root of the drawn set.
    #[error("the commitment's draw does not lead to the root of the drawn set")]
    DrawnParameters {
        /// Why.
        #[source]
        source: CommitmentError,
    },
    /// The stated endpoint contradicts itself.
    #[error("the bundle's endpoint is not valid: {what}")]
    Endpoint {
        /// What is wrong.
        what: &'static str,
    },
    /// The stated test is not one.
    #[error("the bundle's test is not valid")]
    Test {
        /// Why.
        #[source]
        source: EProcessError,
    },
    /// The run begins after the last leaf.
    #[error("the bundle begins at position {start} of an order of {leaves}")]
    Start {
        /// As written.
        start: u32,
        /// Leaves of the set.
        leaves: u32,
    },
    /// One query is wrong.
    #[error("query {query} (leaf {leaf}) is refused: {fault}")]
    Query {
        /// Counted from 0.
        query: u32,
        /// The leaf that it claims to ask.
        leaf: LeafIndex,
        /// What is wrong with it.
        fault: QueryFault,
    },
    /// A proof without evidence.
    #[error("the bundle holds no query")]
    NoQueries,
    /// More queries than the budget that was fixed before.
    #[error("the bundle holds {found} queries, its budget is {max}")]
    TooManyQueries {
        /// The budget.
        max: u32,
        /// As counted.
        found: u32,
    },
    /// The verdict does not follow.
    #[error("the bundle says {found}, its queries say {expected}")]
    Outcome {
        /// By its queries.
        expected: Outcome,
        /// As written.
        found: Outcome,
    },
    /// The figures of the verdict do not follow.
    #[error("the bundle's verdict has other figures than its queries give")]
    Verdict,
    /// No digest.
    #[error("the bundle has no digest")]
    NoDigest,
    /// Something changed that nothing else would have shown.
    #[error("the bundle was changed: its digest is {expected}, it says {found}")]
    Digest {
        /// As computed.
        expected: BundleDigest,
        /// As written.
        found: BundleDigest,
    },
}

/// Where a bundle will be: a name that nothing has, and the file beside it that will take it.
///
/// Reserved before the first key is spent, so that the folder is known to be there and writable. Dropped without use it
/// leaves nothing.
#[derive(Debug)]
pub struct Place(Reserved);

impl Place {
    /// Makes sure of a place.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`], for an older bundle is evidence too, or what the disk says.
    pub fn reserve(path: &Path) -> io::Result<Self> {
        Reserved::new(path, Access::Public).map(Self)
    }
}

/// A proof as a file, finished or cut short, and what it says.
pub struct Bundle {
    bytes: Vec<u8>,
    report: Report,
}

impl Bundle {
    /// The file's content.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the bundle says; the same that [`verify_bundle`] returns for it.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Writes the file, completely or not at all.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when another file took the place meanwhile, or what the disk says.
    pub fn write(&self, place: Place) -> io::Result<()> {
        place.0.fill(|writer| writer.write_all(&self.bytes))
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bundle").field("digest", &self.report.digest).finish_non_exhaustive()
    }
}

impl format::BundleFile {
    /// The bytes that a bundle with this content must have.
    fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("serialising to memory fails only for maps with keys that are not strings, and there are none")
    }

    fn computed_digest(&self) -> BundleDigest {
        let undigested = Self { digest: None, ..self.clone() };
        BundleDigest::from_bytes(keccak256(undigested.canonical()).0)
    }
}
