//! What the host must never forget: statements and the vouchers that pay for them, reports, claims, customers.
//!
//! The same SQL runs on SQLite, for a host by itself, and on PostgreSQL. Statements go through one [writer](Journal), which
//! commits many at a time; everything else is written when it happens, which is seldom.

mod columns;
mod customers;
mod insertion;
mod journal;
mod settlement;
mod statements;

use std::{
    fs::{File, TryLockError},
    path::PathBuf,
    time::Duration,
};

use sqlx::{
    AnyConnection, AnyPool, Connection as _, Executor as _,
    any::AnyPoolOptions,
    migrate::{MigrateError, Migrator},
};
use url::Url;

pub use self::{
    customers::{Customer, CustomerId, Limit, NewCustomer, NewLimits},
    journal::{Journal, JournalError, KeptAnswer, Written, owner_of},
    settlement::{ClaimedLane, StoredReport},
    statements::{Entry, LaneHead, Totals},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Readers beside the one writer.
const READERS: u32 = 8;
/// How long a reader waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the books cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The address names no database that is known here.
    #[error("{url:?} is no address of a database: give sqlite:FILE or postgres://USER@HOST/NAME")]
    Address {
        /// What was given, without a password.
        url: String,
    },
    /// The folder of the file could not be made.
    #[error("failed to make the folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database refused.
    #[error("failed to {attempted} the books")]
    Database {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The tables are not those of this version.
    #[error("failed to bring the tables of the books up to date")]
    Migrate(#[from] MigrateError),
    /// Another process serves with these books.
    #[error("another host uses the books {url}: every host needs its own, or two statements would claim one place")]
    InUse {
        /// Their address, without a password.
        url: String,
    },
    /// The file that says that somebody uses the books.
    #[error("failed to lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A row that this version cannot have written.
    #[error("the books hold {what} that makes no sense: {value}")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// What is there.
        value: String,
    },
}

impl BooksError {
    fn database(attempted: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { attempted, source }
    }
}

/// The host's books. Cloning is cheap; clones share the connections.
#[derive(Clone, Debug)]
pub struct Books {
    pool: AnyPool,
    url: Url,
    /// The file of SQLite's database.
    file: Option<PathBuf>,
}

impl Books {
    /// Opens the database and brings its tables up to date. `url` is `sqlite:FILE`, which is made if it is not there, or
    /// `postgres://…`.
    pub async fn open(url: &str) -> Result<Self, BooksError> {
        sqlx::any::install_default_drivers();
        let (url, file) = address(url)?;
        let options = AnyPoolOptions::new().max_connections(READERS).acquire_timeout(PATIENCE);
        let pool = options
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect(url.as_str())
            .await
            .map_err(BooksError::database("open"))?;
        MIGRATIONS.run(&pool).await?;
        Ok(Self { pool, url, file })
    }

    /// A connection for a writer alone.
    async fn connection(&self) -> Result<AnyConnection, sqlx::Error> {
        let mut connection = AnyConnection::connect(self.url.as_str()).await?;
        prepare(&mut connection).await?;
        Ok(connection)
    }

    /// A connection for the one writer of statements. While it lives, no other process gets one from PostgreSQL; SQLite's is
    /// kept by [`lock_file`](Self::lock_file).
    async fn writer(&self) -> Result<AnyConnection, BooksError> {
        let mut connection = self.connection().await.map_err(BooksError::database("open"))?;
        if self.file.is_none() {
            let locked = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LOCK);
            let locked: bool = locked.fetch_one(&mut connection).await.map_err(BooksError::database("lock"))?;
            if !locked {
                return Err(BooksError::InUse { url: shown(&self.url) });
            }
        }
        Ok(connection)
    }

    /// Keeps other processes from writing statements for as long as the file is open.
    fn lock_file(&self) -> Result<Option<File>, BooksError> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut path = file.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| BooksError::Lock { path: path.clone(), source };
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(BooksError::InUse { url: shown(&self.url) }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Names the lock of PostgreSQL that a host holds: "hallmark" in ASCII.
const LOCK: i64 = 0x6861_6c6c_6d61_726b;

/// An address without its password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.set_password(None).is_err() {
        tracing::debug!("an address without a host has no password");
    }
    url.to_string()
}

/// Every connection has these settings.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    if connection.backend_name() == "SQLite" {
        // A commit is on the disk when it returns: FULL syncs the write-ahead log at each of them.
        connection.execute("pragma journal_mode = wal").await?;
        connection.execute("pragma synchronous = full").await?;
    } else {
        connection.execute(BLOB_DOMAIN).await?;
    }
    Ok(())
}

/// Lets the same statements make tables in PostgreSQL.
const BLOB_DOMAIN: &str = "do $$ begin create domain blob as bytea; \
                           exception when duplicate_object or unique_violation then null; end $$";

/// The address as the drivers want it; a file's folder is made.
fn address(text: &str) -> Result<(Url, Option<PathBuf>), BooksError> {
    let wrong = || BooksError::Address { url: text.split('@').next_back().unwrap_or_default().to_owned() };
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = PathBuf::from(path.trim_start_matches("//"));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| BooksError::Folder { path: folder.to_owned(), source })?;
        }
        let path = std::path::absolute(&path).map_err(|source| BooksError::Folder { path, source })?;
        let mut url = Url::from_file_path(&path).map_err(|()| wrong())?;
        let text = format!("sqlite://{}?mode=rwc", url.path());
        url = Url::parse(&text).map_err(|_| wrong())?;
        return Ok((url, Some(path)));
    }
    let url = Url::parse(text).map_err(|_| wrong())?;
    if matches!(url.scheme(), "postgres" | "postgresql") { Ok((url, None)) } else { Err(wrong()) }
}
