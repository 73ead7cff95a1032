//! Which transactions were signed: written before they are sent, so that a process that dies in between finds them again.
//!
//! One file for one account on one chain, JSON lines, appended and synced. A transaction's nonce is its identity: whatever is
//! sent with it, one version at most is mined.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256, Bytes, ChainId};
use serde::{Deserialize, Serialize};

/// Why the journal cannot be used. Nothing is sent then.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("failed to {attempted} the journal of transactions at {path}")]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a journal, or a damaged one.
    #[error(
        "line {line} of the journal of transactions at {path} is damaged; move the file away if nothing that it names is still on its way"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
    /// Two processes must not number transactions of one account side by side.
    #[error("another process is sending transactions of this account ({path} is locked); wait for it to end")]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// Signed, and from now on perhaps sent.
    Signed {
        nonce: u64,
        intent: B256,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<B256>,
        what: String,
        hash: B256,
        raw: Bytes,
        max_fee: u128,
        tip: u128,
        block: u64,
    },
    /// One version of the nonce is mined; the work that it belongs to goes on.
    Settled { nonce: u64, hash: B256 },
    /// Whoever asked for it knows what became of it: which version was mined, or that something else took the nonce.
    Closed { nonce: u64, hash: Option<B256> },
}

/// A file that holds nothing open is emptied beyond this.
const LARGE_BYTES: u64 = 1 << 20;

/// A version of a transaction: the same nonce at a higher fee.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) hash: B256,
    pub(super) raw: Bytes,
    pub(super) max_fee: u128,
    pub(super) tip: u128,
}

/// A transaction that may still be on its way, or whose work is not finished.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) nonce: u64,
    /// Digest of what was asked for: the same again means the same transaction.
    pub(super) intent: B256,
    /// The work of several transactions that it belongs to.
    pub(super) work: Option<B256>,
    pub(super) what: String,
    /// The newest block when it was first signed: it is in a later one.
    pub(super) block: u64,
    /// In the order in which they were signed; never empty.
    pub(super) versions: Vec<Version>,
    /// The version that was mined.
    pub(super) settled: Option<B256>,
}

/// What the lines of a journal amount to.
#[derive(Debug, Default)]
struct Contents {
    open: BTreeMap<u64, Open>,
    /// Nonce of the newest transaction that was mined.
    mined: Option<u64>,
}

/// The journal of one account, locked for this process.
#[derive(Debug)]
pub struct TransactionJournal {
    file: File,
    path: PathBuf,
    contents: Contents,
    /// Bytes of whole lines.
    length: u64,
    /// Whether the file may end in a part of a line.
    is_torn: bool,
}

impl TransactionJournal {
    /// Opens, or makes, the journal of an account on a chain inside a folder.
    pub fn open(folder: &Path, chain: ChainId, account: Address) -> Result<Self, JournalError> {
        let path = folder.join(format!("transactions-{chain}-{account:#x}.jsonl"));
        let failed = |attempted| {
            let path = path.clone();
            move |source| JournalError::Io { attempted, path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed("make a folder for"))?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        // The name must survive a power failure as well as the lines do. Not every system can sync a folder.
        #[cfg(unix)]
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("make a folder for"))?;
        let (contents, mut length) = replay(&mut file, &path)?;
        if contents.open.is_empty() && length > LARGE_BYTES {
            length = 0;
        }
        // A line that was being written when the process died was never acted upon.
        file.set_len(length).map_err(failed("repair"))?;
        Ok(Self { file, path, contents, length, is_torn: false })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Transactions that may be on their way or whose work is not finished, by nonce.
    pub(super) fn open_transactions(&self) -> impl Iterator<Item = &Open> {
        self.contents.open.values()
    }

    /// The first nonce that no open transaction has.
    pub(super) fn next_nonce(&self) -> Option<u64> {
        self.contents.open.keys().next_back().map(|last| last.saturating_add(1))
    }

    /// Nonce of the newest transaction that was mined.
    pub(super) const fn mined_nonce(&self) -> Option<u64> {
        self.contents.mined
    }

    /// Notes a newly signed version of a transaction; it may be sent once this returns.
    pub(super) fn signed(&mut self, open: &Open, version: &Version) -> Result<(), JournalError> {
        let Version { hash, raw, max_fee, tip } = version.clone();
        self.append(Line::Signed {
            nonce: open.nonce,
            intent: open.intent,
            work: open.work,
            what: open.what.clone(),
            hash,
            raw,
            max_fee,
            tip,
            block: open.block,
        })
    }

    /// Notes which version was mined.
    pub(super) fn settled(&mut self, nonce: u64, hash: B256) -> Result<(), JournalError> {
        self.append(Line::Settled { nonce, hash })
    }

    /// Notes that whoever asked knows which version was mined, or that none was.
    pub(super) fn closed(&mut self, nonce: u64, hash: Option<B256>) -> Result<(), JournalError> {
        self.append(Line::Closed { nonce, hash })
    }

    fn append(&mut self, line: Line) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { attempted: "write", path: self.path.clone(), source };
        let mut text = serde_json::to_string(&line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        if self.is_torn {
            self.file.set_len(self.length).map_err(failed)?;
        }
        // A full disk can take a part of the line, and the next one must not be joined to it.
        self.is_torn = true;
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.is_torn = false;
        self.length = self.length.saturating_add(size(text.len()));
        self.contents.apply(line);
        Ok(())
    }
}

/// What the lines say, and how many bytes of them are whole.
fn replay(file: &mut File, path: &Path) -> Result<(Contents, u64), JournalError> {
    let failed = |source| JournalError::Io { attempted: "read", path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut reader = BufReader::new(file);
    let mut contents = Contents::default();
    let (mut whole, mut number) = (0_u64, 0_usize);
    let mut text = Vec::new();
    while reader.read_until(b'\n', &mut text).map_err(failed)? > 0 {
        number = number.saturating_add(1);
        if !text.ends_with(b"\n") {
            break;
        }
        let line =
            serde_json::from_slice(&text).map_err(|_| JournalError::Damaged { path: path.to_owned(), line: number })?;
        contents.apply(line);
        whole = whole.saturating_add(size(text.len()));
        text.clear();
    }
    Ok((contents, whole))
}

fn size(length: usize) -> u64 {
    length.try_into().unwrap_or(u64::MAX)
}

impl Contents {
    fn apply(&mut self, line: Line) {
        match line {
            Line::Signed { nonce, intent, work, what, hash, raw, max_fee, tip, block } => {
                let new = || Open { nonce, intent, work, what, block, versions: Vec::new(), settled: None };
                let entry = self.open.entry(nonce).or_insert_with(new);
                entry.versions.push(Version { hash, raw, max_fee, tip });
            }
            Line::Settled { nonce, hash } => {
                self.mined = Some(nonce);
                if let Some(entry) = self.open.get_mut(&nonce) {
                    entry.settled = Some(hash);
                }
            }
            Line::Closed { nonce, hash } => {
                if hash.is_some() {
                    self.mined = Some(nonce);
                }
                self.open.remove(&nonce);
            }
        }
    }
}

#[cfg(test)]
mod tests;
