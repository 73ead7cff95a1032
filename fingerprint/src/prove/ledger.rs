//! The ledger of burned leaves: a leaf is written down before its key leaves this machine, and is never asked again.
//!
//! One JSON object a line, only ever appended to. A leaf is burned once its line is on the disk, which is before the
//! request is sent: a crash between the two wastes a leaf, and never asks one twice.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use protocol::ids::{Beacon, CommitmentRoot, LeafIndex};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::clock::UnixMillis;

/// One burned leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BurnedLeaf {
    /// The set that the leaf belongs to. One ledger may serve several sets.
    pub commitment: CommitmentRoot,
    /// Position of the leaf in its set.
    pub leaf: LeafIndex,
    /// The order beacon of the run that burned it: it names the run.
    pub order: Beacon,
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
    /// A line that is no entry.
    #[error("line {line} of the ledger {} is not an entry; restore the file from a copy, for burned leaves must not be asked again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The disk refused an entry, so the key was not sent.
    #[error("failed to write leaf {leaf} to the ledger {}; nothing was sent, free the disk and start again", .path.display())]
    Append {
        /// The file.
        path: PathBuf,
        /// The leaf.
        leaf: LeafIndex,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The leaf was asked before.
    #[error("leaf {leaf} is already burned and is not asked again")]
    AlreadyBurned {
        /// The leaf.
        leaf: LeafIndex,
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
            sync_parent(path).map_err(failed)?;
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            tracing::warn!("the last line of the ledger was not complete and is cut off");
            file.set_len(u64::try_from(whole).map_err(|error| failed(io::Error::other(error)))?).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            bytes.truncate(whole);
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let entries = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_slice(line)
                    .map_err(|_| LedgerError::Damaged { path: path.to_owned(), line: index + 1 })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), file, entries, broken: false })
    }

    /// The burned leaves of one set.
    pub fn burned(&self, commitment: &CommitmentRoot) -> BTreeSet<LeafIndex> {
        self.of(commitment).map(|entry| entry.leaf).collect()
    }

    /// How many runs have burned leaves of one set. Each was a test, and a bound over several tests is divided by them.
    pub fn runs(&self, commitment: &CommitmentRoot) -> usize {
        self.of(commitment).map(|entry| entry.order).collect::<BTreeSet<_>>().len()
    }

    /// Leaves of a set of `leaves` that were never asked.
    pub fn left(&self, commitment: &CommitmentRoot, leaves: u32) -> u32 {
        leaves.saturating_sub(u32::try_from(self.burned(commitment).len()).unwrap_or(u32::MAX))
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
        if self.of(&entry.commitment).any(|burned| burned.leaf == entry.leaf) {
            return Err(LedgerError::AlreadyBurned { leaf: entry.leaf });
        }
        self.append(&entry).map_err(|source| {
            // Half a line may be in the file now; opening it again cuts that off.
            self.broken = true;
            LedgerError::Append { path: self.path.clone(), leaf: entry.leaf, source }
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

    fn of(&self, commitment: &CommitmentRoot) -> impl Iterator<Item = &BurnedLeaf> {
        self.entries.iter().filter(move |entry| entry.commitment == *commitment)
    }
}

/// Makes a new directory entry durable, where the system can.
fn sync_parent(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entry(leaf: u32) -> BurnedLeaf {
        BurnedLeaf {
            commitment: CommitmentRoot::from_bytes([1; 32]),
            leaf: LeafIndex::new(leaf),
            order: Beacon::from_bytes([2; 32]),
            host: "localhost:80".into(),
            burned_unix_ms: UnixMillis::new(5),
        }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn burned_leaves_are_refused_after_reopening() {
        let folder = folder();
        let path = folder.path().join("ledger.jsonl");
        let root = entry(0).commitment;
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.burn(entry(3)).unwrap();
        assert!(matches!(ledger.burn(entry(3)), Err(LedgerError::AlreadyBurned { .. })));
        drop(ledger);
        let mut ledger = Ledger::open(&path).unwrap();
        assert!(matches!(ledger.burn(entry(3)), Err(LedgerError::AlreadyBurned { .. })));
        ledger.burn(BurnedLeaf { commitment: CommitmentRoot::from_bytes([9; 32]), ..entry(3) }).unwrap();
        ledger.burn(BurnedLeaf { order: Beacon::from_bytes([3; 32]), ..entry(4) }).unwrap();
        assert_eq!((ledger.left(&root, 8), ledger.runs(&root)), (6, 2));
        assert_eq!(ledger.burned(&root).into_iter().collect::<Vec<_>>(), [LeafIndex::new(3), LeafIndex::new(4)]);
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
            assert_eq!(ledger.entries().len(), usize::from(length >= first) + usize::from(length == whole.len()));
            ledger.burn(entry(7)).unwrap();
            drop(ledger);
            assert_eq!(Ledger::open(&path).unwrap().entries().last(), Some(&entry(7)));
        }
    }

    #[test]
    fn damaged_line_is_named() {
        let folder = folder();
        let path = folder.path().join("ledger.jsonl");
        Ledger::open(&path).unwrap().burn(entry(1)).unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{}\n");
        fs::write(&path, text).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::Damaged { line: 2, .. })));
        assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Open { .. })));
    }
}
