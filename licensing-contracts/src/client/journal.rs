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
    Signed { nonce: u64, intent: B256, what: String, hash: B256, raw: Bytes, max_fee: u128, tip: u128 },
    /// One version of the nonce is final, or something else took it.
    Closed { nonce: u64, hash: Option<B256> },
}

/// A version of a transaction: the same nonce at a higher fee.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) hash: B256,
    pub(super) raw: Bytes,
    pub(super) max_fee: u128,
    pub(super) tip: u128,
}

/// A transaction that may still be on its way.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) nonce: u64,
    /// Digest of what was asked for: the same command again means the same transaction.
    pub(super) intent: B256,
    pub(super) what: String,
    /// In the order in which they were signed; never empty.
    pub(super) versions: Vec<Version>,
}

/// The journal of one account, locked for this process.
#[derive(Debug)]
pub struct TransactionJournal {
    file: File,
    path: PathBuf,
    open: BTreeMap<u64, Open>,
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
        let (open, whole) = Self::replay(&mut file, &path)?;
        // A line that was being written when the process died was never acted upon.
        file.set_len(whole).map_err(failed("repair"))?;
        Ok(Self { file, path, open })
    }

    /// What the lines leave open, and how many bytes of them are whole.
    fn replay(file: &mut File, path: &Path) -> Result<(BTreeMap<u64, Open>, u64), JournalError> {
        let failed = |source| JournalError::Io { attempted: "read", path: path.to_owned(), source };
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut reader = BufReader::new(file);
        let mut open = BTreeMap::new();
        let (mut whole, mut number) = (0_u64, 0_usize);
        let mut text = String::new();
        while reader.read_line(&mut text).map_err(failed)? > 0 {
            number = number.saturating_add(1);
            if !text.ends_with('\n') {
                break;
            }
            let line = serde_json::from_str(&text)
                .map_err(|_| JournalError::Damaged { path: path.to_owned(), line: number })?;
            apply(&mut open, line);
            whole = whole.saturating_add(text.len().try_into().unwrap_or(u64::MAX));
            text.clear();
        }
        Ok((open, whole))
    }

    /// Transactions that may be on their way, by nonce.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    /// The first nonce that no transaction of the journal has.
    pub(super) fn next_nonce(&self) -> Option<u64> {
        self.open.keys().next_back().map(|last| last.saturating_add(1))
    }

    /// Notes a signed transaction; it may be sent once this returns.
    pub(super) fn signed(
        &mut self,
        nonce: u64,
        intent: B256,
        what: &str,
        version: &Version,
    ) -> Result<(), JournalError> {
        let Version { hash, raw, max_fee, tip } = version.clone();
        self.append(Line::Signed { nonce, intent, what: what.to_owned(), hash, raw, max_fee, tip })
    }

    /// Notes which version was mined for good, or that none was.
    pub(super) fn closed(&mut self, nonce: u64, hash: Option<B256>) -> Result<(), JournalError> {
        self.append(Line::Closed { nonce, hash })
    }

    fn append(&mut self, line: Line) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { attempted: "write", path: self.path.clone(), source };
        let mut text = serde_json::to_string(&line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
        apply(&mut self.open, line);
        Ok(())
    }
}

fn apply(open: &mut BTreeMap<u64, Open>, line: Line) {
    match line {
        Line::Signed { nonce, intent, what, hash, raw, max_fee, tip } => {
            let entry = open.entry(nonce).or_insert_with(|| Open { nonce, intent, what, versions: Vec::new() });
            entry.versions.push(Version { hash, raw, max_fee, tip });
        }
        Line::Closed { nonce, .. } => {
            open.remove(&nonce);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(byte: u8) -> Version {
        Version { hash: B256::repeat_byte(byte), raw: vec![byte; 9].into(), max_fee: 10, tip: 1 }
    }

    #[test]
    fn open_transactions_survive_and_closed_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let account = Address::repeat_byte(1);
        let mut journal = TransactionJournal::open(folder.path(), 31_337, account).unwrap();
        journal.signed(4, B256::ZERO, "a", &version(1)).unwrap();
        journal.signed(5, B256::ZERO, "b", &version(2)).unwrap();
        journal.signed(5, B256::ZERO, "b", &version(3)).unwrap();
        journal.closed(4, Some(B256::repeat_byte(1))).unwrap();
        drop(journal);

        let journal = TransactionJournal::open(folder.path(), 31_337, account).unwrap();
        let open: Vec<&Open> = journal.pending().collect();
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].nonce, open[0].what.as_str()), (5, "b"));
        assert_eq!(open[0].versions.iter().map(|version| version.hash[0]).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(journal.next_nonce(), Some(6));
    }

    #[test]
    fn a_half_written_line_is_dropped_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let account = Address::repeat_byte(1);
        let mut journal = TransactionJournal::open(folder.path(), 1, account).unwrap();
        journal.signed(0, B256::ZERO, "a", &version(1)).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in [1, 20, whole.len() - 1] {
            let mut text = whole.clone();
            text.extend_from_slice(&whole[..cut]);
            std::fs::write(&path, &text).unwrap();
            let mut journal = TransactionJournal::open(folder.path(), 1, account).unwrap();
            assert_eq!(journal.pending().count(), 1, "{cut}");
            journal.closed(0, None).unwrap();
            drop(journal);
            assert_eq!(TransactionJournal::open(folder.path(), 1, account).unwrap().pending().count(), 0, "{cut}");
        }
        std::fs::write(&path, b"{\"signed\":1}\n").unwrap();
        let error = TransactionJournal::open(folder.path(), 1, account).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { line: 1, .. }), "{error}");
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = TransactionJournal::open(folder.path(), 1, Address::ZERO).unwrap();
        let error = TransactionJournal::open(folder.path(), 1, Address::ZERO).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }), "{error}");
        drop(first);
        TransactionJournal::open(folder.path(), 1, Address::ZERO).unwrap();
    }
}
