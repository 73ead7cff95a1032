//! The one writer of statements. Requests hand it their entries and wait until these are on the disk; meanwhile it collects
//! more, so that many share one sync (group commit).
//!
//! When the disk is full or the database gone, what it has is kept and tried again; nothing new is admitted meanwhile
//! ([`Journal::is_healthy`]), and who waits is told that the statement is not durable yet.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use protocol::{ids::ChannelId, messages::Channel, units::UnixSeconds};
use sqlx::{AnyConnection, Connection as _, error::DatabaseError};
use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::task::TaskTracker;

use super::{
    Books, BooksError,
    columns::{self, Columns, signed},
    statements::{self, Entry},
};

/// Entries of one commit at most.
const BATCH: usize = 512;
/// Entries that wait; admission ends long before, because every open request has one entry at most.
const WAITING: usize = 1 << 16;
/// Channels that are remembered.
const KNOWN_CHANNELS: usize = 1 << 16;
/// Between two looks at what is written.
const LOOK: Duration = Duration::from_millis(10);
/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Why an entry is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It is kept in memory and written when that is possible again.
    #[error("the journal could not be written within {waited_s} s; the statement is kept and written when it can be")]
    NotYet {
        /// How long was waited.
        waited_s: u64,
    },
    /// The journal is closed, or has more to write than it can keep.
    #[error("the journal takes no more entries")]
    Closed,
    /// The books have another statement in its place: somebody else writes them too.
    #[error("the books already have a statement in the place of this one")]
    Conflict,
}

/// An answer that is kept for whoever asks again with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Digest of the channel, or of the customer's name.
    pub owner: B256,
    /// The client's key.
    pub key: String,
    /// Digest of the request's body.
    pub body_hash: B256,
    /// The answer as it was made.
    pub answer: String,
    /// When.
    pub created_at: UnixSeconds,
}

struct Write {
    entry: Entry,
    channel: Option<(ChannelId, Channel)>,
    kept: Option<KeptAnswer>,
    written: oneshot::Sender<Result<(), JournalError>>,
}

/// The way to the writer. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: mpsc::Sender<Write>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    is_healthy: AtomicBool,
    /// Two statements for one place: nothing is believed any more until the process starts again.
    is_poisoned: AtomicBool,
    /// Entries that were handed over, and those of them whose fate is known.
    appended: AtomicU64,
    decided: AtomicU64,
    entries: AtomicU64,
    commits: AtomicU64,
    patience: Duration,
    begun: Instant,
    /// Milliseconds after `begun` at which the running commit began; 0: none runs.
    committing: AtomicU64,
}

impl Journal {
    /// Starts the writer on a connection of its own. It ends when the journal and its clones are dropped and everything is
    /// written. `patience` is how long a request waits for the disk.
    pub async fn start(books: &Books, tasks: &TaskTracker, patience: Duration) -> Result<Self, BooksError> {
        let (lock, connection) = (books.lock_file()?, books.writer().await?);
        let (queue, entries) = mpsc::channel(WAITING);
        let state = Arc::new(State {
            is_healthy: AtomicBool::new(true),
            is_poisoned: AtomicBool::new(false),
            appended: AtomicU64::new(0),
            decided: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            patience,
            begun: Instant::now(),
            committing: AtomicU64::new(0),
        });
        let connection = Some(connection);
        let writer = Writer {
            books: books.clone(),
            connection,
            _lock: lock,
            channels: HashSet::new(),
            entries,
            state: state.clone(),
        };
        tasks.spawn(writer.run());
        Ok(Self { queue, state })
    }

    /// Queues an entry. It is written in the order of these calls, whether or not anybody waits for it.
    pub fn append(
        &self,
        entry: Entry,
        channel: Option<(ChannelId, Channel)>,
        kept: Option<KeptAnswer>,
    ) -> Result<Written, JournalError> {
        let (written, receiver) = oneshot::channel();
        let write = Write { entry, channel, kept, written };
        // Before: whoever compares the two numbers must not miss it.
        self.state.appended.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(write).is_err() {
            self.state.decided.fetch_add(1, Ordering::AcqRel);
            return Err(JournalError::Closed);
        }
        Ok(Written { receiver, patience: self.state.patience })
    }

    /// Whether the last commit succeeded, and none is waiting for the disk for longer than requests do.
    pub fn is_healthy(&self) -> bool {
        let State { is_healthy, is_poisoned, committing, begun, patience, .. } = &*self.state;
        let since = Duration::from_millis(committing.load(Ordering::Acquire));
        let is_stuck = !since.is_zero() && begun.elapsed().saturating_sub(since) > *patience;
        is_healthy.load(Ordering::Acquire) && !is_poisoned.load(Ordering::Acquire) && !is_stuck
    }

    /// Entries written, and commits that it took, since the start.
    pub fn written(&self) -> (u64, u64) {
        (self.state.entries.load(Ordering::Relaxed), self.state.commits.load(Ordering::Relaxed))
    }

    /// Entries that were handed over and are not yet durable.
    pub fn pending(&self) -> u64 {
        let decided = self.state.decided.load(Ordering::Acquire);
        self.state.appended.load(Ordering::Acquire).saturating_sub(decided)
    }

    /// Waits until everything that was handed over before this call is durable; `false` if that takes too long.
    pub async fn flushed(&self) -> bool {
        let appended = self.state.appended.load(Ordering::Acquire);
        let written = async {
            while self.state.decided.load(Ordering::Acquire) < appended {
                time::sleep(LOOK).await;
            }
        };
        time::timeout(self.state.patience, written).await.is_ok()
    }
}

/// An entry on its way to the disk.
#[derive(Debug)]
pub struct Written {
    receiver: oneshot::Receiver<Result<(), JournalError>>,
    patience: Duration,
}

impl Written {
    /// Waits until the entry is durable.
    pub async fn durable(self) -> Result<(), JournalError> {
        match time::timeout(self.patience, self.receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(JournalError::Closed),
            Err(_) => Err(JournalError::NotYet { waited_s: self.patience.as_secs() }),
        }
    }
}

struct Writer {
    books: Books,
    connection: Option<AnyConnection>,
    _lock: Option<File>,
    /// Channels that are in the books, as far as is remembered.
    channels: HashSet<ChannelId>,
    entries: mpsc::Receiver<Write>,
    state: Arc<State>,
}

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.entries.recv_many(&mut batch, BATCH).await > 0 {
            let mut outcomes = vec![Ok(()); batch.len()];
            while let Err(error) = self.commit(&batch).await {
                if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) {
                    outcomes = self.commit_each(&batch).await;
                    break;
                }
                if self.state.is_healthy.swap(false, Ordering::AcqRel) {
                    tracing::error!(%error, "the journal cannot be written; nothing new is admitted: {error}");
                }
                // A connection whose transaction failed is not trusted again.
                self.connection = None;
                time::sleep(RETRY).await;
            }
            if !self.state.is_healthy.swap(true, Ordering::AcqRel) {
                tracing::info!("the journal is written again");
            }
            self.state.commits.fetch_add(1, Ordering::Relaxed);
            let written = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            self.state.entries.fetch_add(written, Ordering::Relaxed);
            self.state.decided.fetch_add(written, Ordering::AcqRel);
            for (write, outcome) in batch.drain(..).zip(outcomes) {
                // Who no longer waits needs no answer.
                write.written.send(outcome).ok();
            }
        }
    }

    /// One by one, so that an entry whose place is taken does not take the others along.
    async fn commit_each(&mut self, batch: &[Write]) -> Vec<Result<(), JournalError>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for write in batch {
            let outcome = loop {
                match self.commit(slice::from_ref(write)).await {
                    Ok(()) => break Ok(()),
                    Err(error) if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) => {
                        // A commit of which nobody heard that it succeeded.
                        if self.books.statement(write.entry.digest).await.is_ok_and(|found| found.is_some()) {
                            break Ok(());
                        }
                        tracing::error!(
                            %error,
                            "two statements for one place: nothing more is admitted. Make sure that no other process writes these \
                             books, and start the host again"
                        );
                        self.state.is_poisoned.store(true, Ordering::Release);
                        break Err(JournalError::Conflict);
                    }
                    Err(_) => {
                        self.state.is_healthy.store(false, Ordering::Release);
                        self.connection = None;
                        time::sleep(RETRY).await;
                    }
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn commit(&mut self, batch: &[Write]) -> Result<(), sqlx::Error> {
        let since = u64::try_from(self.state.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        // The first try counts: one that fails is followed by others.
        self.state.committing.compare_exchange(0, since, Ordering::AcqRel, Ordering::Acquire).ok();
        self.try_commit(batch).await?;
        self.state.committing.store(0, Ordering::Release);
        Ok(())
    }

    async fn try_commit(&mut self, batch: &[Write]) -> Result<(), sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            // Somebody else may have the lock by now: then nothing is written any more.
            empty => empty.insert(self.books.writer().await.map_err(|error| sqlx::Error::Configuration(error.into()))?),
        };
        let mut transaction = connection.begin().await?;
        let channels = batch.iter().filter_map(|write| write.channel.as_ref());
        let new: HashMap<ChannelId, &Channel> =
            channels.filter(|(id, _)| !self.channels.contains(id)).map(|(id, channel)| (*id, channel)).collect();
        for (id, channel) in &new {
            sqlx::query(INSERT_CHANNEL)
                .bind(id.as_bytes().to_vec())
                .bind(channel.payer.to_vec())
                .bind(channel.host.to_vec())
                .bind(channel.token.to_vec())
                .bind(signed(channel.withdraw_delay.get()))
                .bind(channel.salt.to_vec())
                .execute(&mut *transaction)
                .await?;
        }
        let entries: Vec<Entry> = batch.iter().map(|write| write.entry.clone()).collect();
        statements::insert(&mut transaction, &entries).await?;
        for kept in batch.iter().filter_map(|write| write.kept.as_ref()) {
            sqlx::query(INSERT_ANSWER)
                .bind(kept.owner.to_vec())
                .bind(kept.key.clone())
                .bind(kept.body_hash.to_vec())
                .bind(kept.answer.clone())
                .bind(signed(kept.created_at.get()))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        if self.channels.len() > KNOWN_CHANNELS {
            self.channels.clear();
        }
        self.channels.extend(new.into_keys());
        Ok(())
    }
}

const INSERT_CHANNEL: &str = "insert into channel (channel_id, payer, host, token, withdraw_delay, salt) \
     values ($1, $2, $3, $4, $5, $6) on conflict (channel_id) do nothing";
// The first answer stays: two requests with one key at once are told apart before they are admitted.
const INSERT_ANSWER: &str = "insert into kept_answer (owner, key, body_hash, answer, created_at_s) \
     values ($1, $2, $3, $4, $5) on conflict (owner, key) do nothing";

impl Books {
    /// The answer that was kept for an owner's key.
    pub async fn kept_answer(&self, owner: B256, key: &str) -> Result<Option<KeptAnswer>, BooksError> {
        let query = sqlx::query("select * from kept_answer where owner = $1 and key = $2")
            .bind(owner.to_vec())
            .bind(key.to_owned());
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("look up an answer in"))?;
        let Some(row) = row else { return Ok(None) };
        let row = Columns(&row);
        Ok(Some(KeptAnswer {
            owner,
            key: key.to_owned(),
            body_hash: row.word("body_hash")?,
            answer: row.text("answer")?,
            created_at: UnixSeconds::new(row.number("created_at_s")?),
        }))
    }

    /// Forgets answers that were kept before a time.
    pub async fn forget_answers(&self, before: UnixSeconds) -> Result<u64, BooksError> {
        let query = sqlx::query("delete from kept_answer where created_at_s < $1").bind(signed(before.get()));
        let done = query.execute(&self.pool).await.map_err(BooksError::database("forget old answers of"))?;
        Ok(done.rows_affected())
    }
}

/// Who owns a kept answer.
pub fn owner_of(channel: Option<ChannelId>, customer: Option<&super::CustomerId>) -> B256 {
    match customer {
        Some(customer) => alloy_primitives::keccak256(customer.as_str()),
        None => B256::from_slice(&columns::channel(channel)),
    }
}
