//! The ledger of burned leaves: a leaf is written down before its key leaves this machine, and is never asked again.
//!
//! Leaves are named by their position in the one order of their set, and the next run begins behind the greatest burned
//! one: positions only move forward, so a gap is wasted and never asked later.
//!
//! One JSON object a line, only ever appended to. A leaf is burned once its line is on the disk, which is before the
//! request is sent: a crash between the two wastes a leaf, and never asks one twice.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use protocol::{commitment::CommitmentParameters, ids::CommitmentRoot};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::clock::UnixMillis;
use crate::atomic::{folder_of, sync_folder};

/// What every entry begins with, up to the first digit.
const ENTRY_START: &[u8] = b"{\"commitment\":\"0x";

/// One burned leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BurnedLeaf {
    /// The set that the leaf belongs to. One ledger may serve several sets.
    pub commitment: CommitmentRoot,
    /// Position of the leaf in the order of its set.
    pub position: u32,
    /// Host and port that the key was sent to.
    pub host: String,
    /// When.
    pub burned_unix_ms: UnixMillis,
}

/// Why the ledger cannot be used, or refuses a leaf.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// No access.
    #[error("failed to open the ledger {}; check the folder and its permissions", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process proves with it.
    #[error("the ledger {} is in use by another proof; wait for it to end", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no entry. The file is left as it is.
    #[error("line {line} of {} is not an entry of a ledger; give the ledger of this set, or restore it from a copy, for burned leaves must not be asked again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An entry beyond the end of its set.
    #[error("the ledger {} names position {position} of a set of {leaves} leaves; restore it from a copy", .path.display())]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// As written.
        position: u32,
        /// Leaves of the set.
        leaves: u32,
    },
    /// The disk refused an entry, so the key was not sent.
    #[error("failed to write position {position} to the ledger {}; its key was not sent, free the disk and start again", .path.display())]
    Append {
        /// The file.
        path: PathBuf,
        /// The position.
        position: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The leaf was asked before, or one behind it was.
    #[error("position {position} is burned and is not asked again; the next one is {next}")]
    AlreadyBurned {
        /// The position.
        position: u32,
        /// The first that may be asked.
        next: u32,
    },
    /// An earlier write failed, so it is unknown what the file holds.
    #[error("the ledger {} could not be written before; open it again", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

/// The open ledger, locked for this process until it is dropped.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    entries: Vec<BurnedLeaf>,
    broken: bool,
}

impl Ledger {
    /// Opens the ledger at `path`, making an empty one where there is none, and locks it.
    ///
    /// # Errors
    ///
    /// [`LedgerError::InUse`] when another proof holds it, [`LedgerError::Damaged`] when a line is not an entry. A last
    /// line without its end was being written when a process was killed; its key was not sent, and it is cut off.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Open { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        // A new file exists for good only once its folder is written.
        if bytes.is_empty() {
            sync_folder(&folder_of(path)).map_err(failed)?;
        }
        let (entries, tail) = parse(&bytes).map_err(|line| LedgerError::Damaged { path: path.to_owned(), line })?;
        match tail {
            Tail::None => {}
            Tail::WithoutEnd => file.write_all(b"\n").and_then(|()| file.sync_all()).map_err(failed)?,
            Tail::CutOffAt(length) => {
                tracing::warn!("the last line of the ledger was not complete and is cut off");
                file.set_len(length).and_then(|()| file.sync_all()).map_err(failed)?;
            }
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, entries, broken: false })
    }

    /// The first position of a set of `leaves` that may be asked; `leaves` when there is none left.
    ///
    /// # Errors
    ///
    /// [`LedgerError::OutOfRange`] when the set has no such leaf as the last burned one.
    pub fn next_position(&self, commitment: &CommitmentRoot, leaves: u32) -> Result<u32, LedgerError> {
        match self.next(commitment) {
            next if next <= leaves => Ok(next),
            next => {
                let position = next.saturating_sub(1);
                Err(LedgerError::OutOfRange { path: self.path.clone(), position, leaves })
            }
        }
    }

    /// All entries, in the order in which they were written.
    pub fn entries(&self) -> &[BurnedLeaf] {
        &self.entries
    }

    /// Writes down that a leaf is about to be asked. When this returns, the entry is on the disk.
    ///
    /// # Errors
    ///
    /// [`LedgerError::AlreadyBurned`], or [`LedgerError::Append`] when the disk refuses; the key must not be sent then.
    pub fn burn(&mut self, entry: BurnedLeaf) -> Result<(), LedgerError> {
        if self.broken {
            return Err(LedgerError::Broken { path: self.path.clone() });
        }
        let next = self.next(&entry.commitment);
        if entry.position < next {
            return Err(LedgerError::AlreadyBurned { position: entry.position, next });
        }
        self.append(&entry).map_err(|source| {
            // Half a line may be in the file now; opening it again cuts that off.
            self.broken = true;
            LedgerError::Append { path: self.path.clone(), position: entry.position, source }
        })?;
        self.entries.push(entry);
        Ok(())
    }

    fn append(&mut self, entry: &BurnedLeaf) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_all()
    }

    /// One more than the greatest burned position, or 0.
    fn next(&self, commitment: &CommitmentRoot) -> u32 {
        let burned = self.entries.iter().filter(|entry| entry.commitment == *commitment);
        burned.map(|entry| entry.position.saturating_add(1)).max().unwrap_or(0)
    }
}

/// What follows the last line end.
enum Tail {
    None,
    /// A whole entry, as an editor leaves it. It counts as burned.
    WithoutEnd,
    /// An entry that was being written when the process was killed, and where the whole lines end.
    CutOffAt(u64),
}

/// The entries of a ledger; the number of the first line, from 1, that is none. Nothing is changed before the whole file
/// is known to be a ledger: another file that was given by mistake must survive.
fn parse(bytes: &[u8]) -> Result<(Vec<BurnedLeaf>, Tail), usize> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (lines, tail) = bytes.split_at(whole);
    let mut entries = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        entries.push(entry(line).ok_or(entries.len() + 1)?);
    }
    if tail.is_empty() {
        return Ok((entries, Tail::None));
    }
    if let Some(last) = entry(tail) {
        entries.push(last);
        return Ok((entries, Tail::WithoutEnd));
    }
    let shared = tail.len().min(ENTRY_START.len());
    if tail[..shared] != ENTRY_START[..shared] {
        return Err(entries.len() + 1);
    }
    // A file has no more bytes than 64 bits count.
    Ok((entries, Tail::CutOffAt(u64::try_from(whole).unwrap_or(u64::MAX))))
}

/// One entry, at a position that some set could have.
fn entry(line: &[u8]) -> Option<BurnedLeaf> {
    serde_json::from_slice(line)
        .ok()
        .filter(|entry: &BurnedLeaf| entry.position < CommitmentParameters::MAX_FINGERPRINTS)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ROOT: CommitmentRoot = CommitmentRoot::from_bytes([1; 32]);

    fn entry(position: u32) -> BurnedLeaf {
        BurnedLeaf { commitment: ROOT, position, host: "localhost:80".into(), burned_unix_ms: UnixMillis::new(5) }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn burned_positions_are_refused_after_reopening_and_gaps_only_move_forward() {
        let folder = folder();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.next_position(&ROOT, 8).unwrap(), 0);
        ledger.burn(entry(3)).unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(&path).unwrap();
        for burned in [3, 2, 0] {
            let error = ledger.burn(entry(burned)).unwrap_err();
            assert!(matches!(error, LedgerError::AlreadyBurned { next: 4, .. }), "{burned}: {error:?}");
        }
        let other = CommitmentRoot::from_bytes([9; 32]);
        ledger.burn(BurnedLeaf { commitment: other, ..entry(0) }).unwrap();
        assert_eq!((ledger.next_position(&ROOT, 8).unwrap(), ledger.next_position(&other, 8).unwrap()), (4, 1));
        ledger.burn(entry(7)).unwrap();
        assert_eq!(ledger.next_position(&ROOT, 8).unwrap(), 8);
        assert!(matches!(ledger.next_position(&ROOT, 7), Err(LedgerError::OutOfRange { position: 7, leaves: 7, .. })));
    }

    #[test]
    fn second_prover_is_refused_until_the_first_ends() {
        let folder = folder();
        let path = folder.path().join("ledger.jsonl");
        let first = Ledger::open(&path).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::InUse { .. })));
        drop(first);
        Ledger::open(&path).unwrap();
    }

    #[test]
    fn half_a_last_line_is_cut_off_at_every_length() {
        let folder = folder();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.burn(entry(1)).unwrap();
        let first = fs::metadata(&path).unwrap().len() as usize;
        ledger.burn(entry(2)).unwrap();
        drop(ledger);
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut ledger = Ledger::open(&path).unwrap();
            // A line that lacks nothing but its end counts: asking its leaf again would be worse than wasting one.
            let complete = usize::from(length >= first - 1) + usize::from(length >= whole.len() - 1);
            assert_eq!(ledger.entries().len(), complete, "{length}");
            ledger.burn(entry(7)).unwrap();
            drop(ledger);
            assert_eq!(Ledger::open(&path).unwrap().entries().last(), Some(&entry(7)), "{length}");
        }
    }

    #[test]
    fn damaged_line_is_named_and_the_file_is_kept() {
        let folder = folder();
        let path = folder.path().join("ledger.jsonl");
        Ledger::open(&path).unwrap().burn(entry(1)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let beyond = good.replace("\"position\":1", "\"position\":1048576");
        for bad in ["{}\n", "{}", "\n", "not an entry", "{\"commitment\":\"1", &beyond] {
            let text = format!("{good}{bad}");
            fs::write(&path, &text).unwrap();
            let error = Ledger::open(&path).unwrap_err();
            assert!(matches!(error, LedgerError::Damaged { line: 2, .. }), "{bad:?}: {error:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Open { .. })));
    }

    #[test]
    fn another_file_given_by_mistake_survives() {
        let folder = folder();
        let path = folder.path().join("set.age");
        let identity = age::x25519::Identity::generate();
        let set = age::encrypt(&identity.to_public(), &[7; 3_000]).unwrap();
        let bundle = br#"{"format":"hallmark proof bundle","version":1,"commitment":{"parameters":{}}}"#.to_vec();
        let commitment = b"{\n  \"format\": \"hallmark commitment\"\n}\n".to_vec();
        for bytes in [set, bundle, commitment, vec![0; 64], b"text without end".to_vec()] {
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(Ledger::open(&path), Err(LedgerError::Damaged { line: 1, .. })));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
