//! The books: what goes in comes out, once, in both databases.

use std::{env, time::Duration};

use protocol::{
    Address, B256,
    counts::{LaneStep, RequestUsage, UsageCounts},
    ids::{ChainId, ChannelId, Epoch, Lane, LeaseId, StatementDigest},
    merkle_sum::MerkleSumTree,
    messages::{Channel, Domain, EpochCommit, FinishReason, Message as _, Signed, Statement, Voucher},
    signature::SigningKey,
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use serving::books::{
    Books, BooksError, ClaimedLane, CustomerId, Entry, Journal, JournalError, KeptAnswer, Limit, NewCustomer,
    NewLimits, StoredReport,
};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(10);

/// A database of its own for a test.
struct Database {
    url: String,
    _folder: Option<TempDir>,
}

impl Database {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", folder.path().join("new/books.sqlite").display()), _folder: Some(folder) }
    }

    async fn postgres() -> Self {
        let server = env::var_os("HALLMARK_POSTGRES").expect("HALLMARK_POSTGRES names a server, as make test does");
        let server = server.into_string().unwrap();
        sqlx::any::install_default_drivers();
        let name = format!("books_{}_{:x}", std::process::id(), rand::random::<u64>());
        let mut connection = sqlx::AnyConnection::connect(&format!("{server}/postgres")).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        Self { url: format!("{server}/{name}"), _folder: None }
    }
}

fn channel() -> Channel {
    Channel {
        payer: Address::repeat_byte(1),
        host: Address::repeat_byte(2),
        token: Address::repeat_byte(3),
        withdraw_delay: Seconds::new(86_400),
        salt: B256::repeat_byte(4),
    }
}

fn escrow() -> Domain<protocol::messages::PaymentEscrow> {
    Domain::new(ChainId::new(1), Address::repeat_byte(9))
}

fn channel_id() -> ChannelId {
    channel().digest(&escrow())
}

/// The n-th statement of a lane, after another one.
fn entry(lane: u64, number: u64, previous: Option<StatementDigest>, epoch: u64) -> Entry {
    let key = SigningKey::from_bytes(&[7; 32]).unwrap();
    let domain = Domain::new(ChainId::new(1), Address::repeat_byte(8));
    let before = UsageCounts::new(number - 1, (number - 1) * 100, (number - 1) * 10, (number - 1) * 20).unwrap();
    let step = LaneStep::new(before, RequestUsage::new(100, 10, 20).unwrap()).unwrap();
    let statement = Statement {
        channel: Some(channel_id()),
        lease: LeaseId::new(1),
        lane: Lane::new(lane),
        step,
        charge: Amount::new(1 << 70),
        request_hash: B256::repeat_byte(5),
        response_hash: B256::repeat_byte(6),
        started: UnixMilliseconds::new(1_000),
        ended: UnixMilliseconds::new(2_000 + number),
        finish_reason: FinishReason::Length,
        execution: None,
        previous,
    };
    let voucher = Voucher {
        channel: channel_id(),
        lease: LeaseId::new(1),
        lane: Lane::new(lane),
        counts: before,
        ceiling: Amount::new(u128::MAX),
        statements_head: previous,
        expires_at: UnixSeconds::new(9_999_999),
    };
    let digest = statement.digest(&domain);
    Entry {
        digest,
        answer: format!("chatcmpl-{lane}-{number}"),
        epoch: Epoch::new(epoch),
        lane_cost: Amount::new(u128::from(number) << 70),
        customer: None,
        voucher: Some((Signed::sign(voucher, &escrow(), &key), Address::repeat_byte(1))),
        statement: Signed::sign(statement, &domain, &key),
    }
}

async fn journal(books: &Books) -> (Journal, TaskTracker) {
    let tasks = TaskTracker::new();
    (Journal::start(books, &tasks, PATIENCE).await.unwrap(), tasks)
}

async fn append(journal: &Journal, entry: Entry) -> Result<(), JournalError> {
    journal.append(entry, Some((channel_id(), channel())), None).unwrap().durable().await
}

async fn keeps_everything(database: &Database) {
    let books = Books::open(&database.url).await.unwrap();
    let (journal, _tasks) = journal(&books).await;
    let mut last = std::collections::HashMap::new();
    let mut waits = Vec::new();
    for number in 1..=40_u64 {
        // Lanes are numbers of 64 bits without a sign.
        for lane in [0, 1, u64::MAX] {
            let entry = entry(lane, number, last.get(&lane).copied(), number / 10);
            last.insert(lane, entry.digest);
            waits.push((entry.clone(), journal.append(entry, Some((channel_id(), channel())), None).unwrap()));
        }
    }
    for (entry, written) in waits {
        written.durable().await.unwrap();
        assert_eq!(books.statement(entry.digest).await.unwrap().as_ref(), Some(&entry));
        assert_eq!(books.statement_of(&entry.answer).await.unwrap(), Some(entry));
    }
    let (entries, commits) = journal.written();
    assert!(entries == 120 && commits < 60, "many share a commit: {commits} for {entries}");
    assert_eq!(journal.pending(), 0);

    // Another process, and the same one later.
    let again = Books::open(&database.url).await.unwrap();
    assert_eq!(again.channel(channel_id()).await.unwrap(), Some(channel()));
    let mut heads = again.heads(channel_id()).await.unwrap();
    heads.sort_by_key(|head| head.lane);
    assert_eq!(heads.iter().map(|head| head.lane.get()).collect::<Vec<_>>(), [0, 1, u64::MAX]);
    assert!(heads.iter().all(|head| head.counts.requests() == 40 && head.cost == Amount::new(40 << 70)));
    assert_eq!(heads[2].head, last[&u64::MAX]);
    let lane = again.statements_of_lane(LeaseId::new(1), Some(channel_id()), Lane::new(1)).await.unwrap();
    assert_eq!(lane.len(), 40);
    assert!(lane.windows(2).all(|pair| pair[1].statement.message.previous == Some(pair[0].digest)));
    let totals = again.totals(LeaseId::new(1)).await.unwrap();
    assert_eq!((totals.requests, totals.prompt, totals.cached, totals.completion), (120, 12_000, 1_200, 2_400));
    let cost = again.lane_cost(LeaseId::new(1), channel_id(), Lane::new(1), 7).await.unwrap();
    assert_eq!(cost, Amount::new(7 << 70));
}

async fn refuses_a_second_statement(database: &Database) {
    let books = Books::open(&database.url).await.unwrap();
    let (journal, _tasks) = journal(&books).await;
    append(&journal, entry(5, 1, None, 0)).await.unwrap();
    // The same place, twice in a batch with others that are right.
    let mut other = entry(5, 1, None, 0);
    other.digest = B256::repeat_byte(0xee).into();
    other.answer = "chatcmpl-other".to_owned();
    let waits: Vec<_> = [entry(6, 1, None, 0), other.clone(), entry(7, 1, None, 0)]
        .map(|entry| journal.append(entry, None, None).unwrap())
        .into();
    let mut outcomes = Vec::new();
    for wait in waits {
        outcomes.push(wait.durable().await);
    }
    assert_eq!(outcomes, [Ok(()), Err(JournalError::Conflict), Ok(())]);
    assert!(books.statement(other.digest).await.unwrap().is_none());
    assert!(
        !journal.is_healthy(),
        "somebody else writes these books, or this program is wrong: nothing more is admitted"
    );
    // What was written already is not a second statement.
    assert_eq!(append(&journal, entry(6, 1, None, 0)).await, Ok(()));
    // Only one process at a time may write statements.
    let second = Journal::start(&Books::open(&database.url).await.unwrap(), &TaskTracker::new(), PATIENCE).await;
    assert!(matches!(second, Err(BooksError::InUse { .. })), "{second:?}");
}

async fn reports_every_statement_once(database: &Database) {
    let books = Books::open(&database.url).await.unwrap();
    let (journal, _tasks) = journal(&books).await;
    let lease = LeaseId::new(1);
    let mut previous = None;
    for number in 1..=6 {
        let entry = entry(1, number, previous, number / 3);
        previous = Some(entry.digest);
        append(&journal, entry).await.unwrap();
    }
    let unreported = books.unreported(lease, Epoch::new(0)..Epoch::new(2)).await.unwrap();
    assert_eq!(unreported.iter().map(|(epoch, _)| epoch.get()).collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
    assert!(books.claimable(lease).await.unwrap().is_empty(), "nothing is reported yet");
    let leaves: Vec<_> = unreported.iter().filter(|(epoch, _)| epoch.get() == 0).map(|(_, leaf)| *leaf).collect();
    let commitment = MerkleSumTree::new(leaves.clone()).unwrap().commitment();
    let report =
        EpochCommit { lease, epoch: Epoch::new(0), root: commitment.root, totals: commitment.totals, previous: None };
    let stored = StoredReport { report, position: 0, digest: B256::repeat_byte(1).into(), block: None };
    books.add_report(&stored, &leaves).await.unwrap();
    assert!(books.add_report(&stored, &leaves).await.is_err(), "a place is taken once");
    assert_eq!(books.unreported(lease, Epoch::new(0)..Epoch::new(2)).await.unwrap().len(), 3);
    assert!(books.unreported(lease, Epoch::new(0)..Epoch::new(1)).await.unwrap().is_empty());
    assert_eq!(books.reports(lease).await.unwrap(), std::slice::from_ref(&stored));
    let mut kept = books.leaves(lease, 0).await.unwrap();
    kept.sort_by_key(|leaf| leaf.digest);
    assert_eq!(kept, MerkleSumTree::new(leaves.clone()).unwrap().leaves());
    assert_eq!(books.report_of(leaves[0].digest).await.unwrap(), Some((lease, 0)));
    assert!(books.claimable(lease).await.unwrap().is_empty(), "the report is on no chain yet");
    books.report_mined(lease, 0, 77).await.unwrap();
    let claimable = books.claimable(lease).await.unwrap();
    assert_eq!(claimable.len(), 1);
    assert_eq!(claimable[0].0.statement.message.step.after().requests(), 2, "the newest that is reported");
    assert_eq!(claimable[0].1, UnixMilliseconds::new(2_001), "when the first one ended");
}

async fn takes_claims_back(database: &Database) {
    let books = Books::open(&database.url).await.unwrap();
    let lease = LeaseId::new(1);
    let claimed = |lane, requests| ClaimedLane {
        channel: channel_id(),
        lane: Lane::new(lane),
        lease,
        requests,
        cost: Amount::new(u128::from(requests) * 10),
        host_share: Amount::new(8),
        royalty: Amount::new(1),
        validator_share: Amount::new(1),
        transaction: B256::repeat_byte(5),
        block: requests,
        claimed_at: UnixSeconds::new(7),
    };
    for (lane, requests) in [(1, 4), (2, 9), (u64::MAX, 6)] {
        books.note_claim(&claimed(lane, requests)).await.unwrap();
    }
    books.note_claim(&claimed(2, 3)).await.unwrap();
    let all = async || {
        let mut all = books.claimed(lease).await.unwrap();
        all.sort_by_key(|claimed| claimed.lane.get());
        all
    };
    assert_eq!(all().await, [claimed(1, 4), claimed(2, 9), claimed(u64::MAX, 6)], "an older one replaces none");
    let lanes = [(channel_id(), Lane::new(2)), (channel_id(), Lane::new(u64::MAX)), (channel_id(), Lane::new(3))];
    let mut recent = books.claimed_since(lease, 6).await.unwrap();
    recent.sort_by_key(|claimed| claimed.lane.get());
    assert_eq!(recent, [claimed(2, 9), claimed(u64::MAX, 6)]);
    books.replace_claims(&lanes, &[claimed(2, 3)]).await.unwrap();
    assert_eq!(all().await, [claimed(1, 4), claimed(2, 3)]);
}

async fn knows_customers_and_answers(database: &Database) {
    let books = Books::open(&database.url).await.unwrap();
    let id = CustomerId::new("acme.inc").unwrap();
    let new = NewCustomer {
        id: id.clone(),
        key_digest: Books::key_digest("hmk-secret"),
        budget: Some(Amount::new(u128::MAX)),
        requests_per_minute: Some(60),
        created_at: UnixSeconds::new(5),
    };
    assert!(books.add_customer(&new).await.unwrap());
    assert!(!books.add_customer(&new).await.unwrap(), "names are taken once");
    let other = NewCustomer {
        id: CustomerId::new("other").unwrap(),
        key_digest: Books::key_digest("hmk-other"),
        budget: None,
        requests_per_minute: None,
        ..new.clone()
    };
    assert!(books.add_customer(&other).await.unwrap());
    let found = books.customer_of(Books::key_digest("hmk-secret")).await.unwrap().unwrap();
    assert_eq!((found.id.clone(), found.budget, found.requests_per_minute), (id.clone(), new.budget, Some(60)));
    assert_eq!(books.customer_of(Books::key_digest("hmk-wrong")).await.unwrap(), None);
    let all = books.customers().await.unwrap();
    assert_eq!(all.iter().map(|customer| customer.lane.get()).collect::<Vec<_>>(), [1, 2]);
    let both = NewLimits { budget: Some(Limit::Most(Amount::new(7))), requests_per_minute: Some(Limit::Lifted) };
    let changed = books.limit_customer(&id, &both).await.unwrap().unwrap();
    assert_eq!((changed.budget, changed.requests_per_minute), (Some(Amount::new(7)), None));
    let lifted = NewLimits { budget: Some(Limit::Lifted), requests_per_minute: None };
    let changed = books.limit_customer(&id, &lifted).await.unwrap().unwrap();
    assert_eq!((changed.budget, changed.requests_per_minute), (None, None));
    let rate = NewLimits { budget: None, requests_per_minute: Some(Limit::Most(3)) };
    let changed = books.limit_customer(&id, &rate).await.unwrap().unwrap();
    assert_eq!((changed.budget, changed.requests_per_minute), (None, Some(3)));
    assert_eq!(books.customers().await.unwrap()[1].budget, None, "of the other one nothing changed");
    assert_eq!(books.limit_customer(&CustomerId::new("nobody").unwrap(), &both).await.unwrap(), None);
    assert!(books.revoke_customer(&id, UnixSeconds::new(9)).await.unwrap());
    assert_eq!(books.limit_customer(&id, &both).await.unwrap(), None, "a key that is refused has no limits");
    assert!(!books.revoke_customer(&id, UnixSeconds::new(10)).await.unwrap());
    let found = books.customer_of(new.key_digest).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, Some(UnixSeconds::new(9)));

    let (journal, _tasks) = journal(&books).await;
    let kept = KeptAnswer {
        owner: B256::repeat_byte(1),
        key: "try-1".to_owned(),
        body_hash: B256::repeat_byte(2),
        answer: "{\"id\":1}".to_owned(),
        created_at: UnixSeconds::new(100),
    };
    let mut billed = entry(1, 1, None, 0);
    (billed.statement.message.channel, billed.voucher, billed.customer) = (None, None, Some(id.clone()));
    journal.append(billed.clone(), None, Some(kept.clone())).unwrap().durable().await.unwrap();
    assert_eq!(books.statement(billed.digest).await.unwrap(), Some(billed.clone()));
    assert_eq!(books.charged(&id).await.unwrap(), billed.lane_cost);
    let head = books.customer_head(LeaseId::new(1), Lane::new(1)).await.unwrap().unwrap();
    assert_eq!((head.counts.requests(), head.signer), (1, None));
    assert_eq!(books.kept_answer(kept.owner, "try-1").await.unwrap(), Some(kept.clone()));
    assert_eq!(books.kept_answer(B256::ZERO, "try-1").await.unwrap(), None, "a key is its owner's");
    assert_eq!(books.forget_answers(UnixSeconds::new(100)).await.unwrap(), 0);
    assert_eq!(books.forget_answers(UnixSeconds::new(101)).await.unwrap(), 1);
}

macro_rules! in_both {
    ($($name:ident, $sqlite:ident, $postgres:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $sqlite() {
            $name(&Database::sqlite()).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs PostgreSQL: set HALLMARK_POSTGRES to the address of a server without a database's name"]
        async fn $postgres() {
            $name(&Database::postgres().await).await;
        }
    )*};
}

in_both! {
    keeps_everything, sqlite_keeps_everything, postgres_keeps_everything;
    refuses_a_second_statement, sqlite_refuses_a_second_statement, postgres_refuses_a_second_statement;
    reports_every_statement_once, sqlite_reports_every_statement_once, postgres_reports_every_statement_once;
    takes_claims_back, sqlite_takes_claims_back, postgres_takes_claims_back;
    knows_customers_and_answers, sqlite_knows_customers_and_answers, postgres_knows_customers_and_answers;
}

#[tokio::test]
async fn addresses_that_are_none_say_what_one_looks_like() {
    for wrong in ["books.sqlite", "mysql://host/name", "postgres", ""] {
        let error = Books::open(wrong).await.unwrap_err();
        assert!(error.to_string().contains("give sqlite:FILE or postgres://"), "{wrong}: {error}");
    }
    let error = Books::open("mysql://user:secret@host/name").await.unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

/// A disk that is full stops admission and loses nothing. SQLite's own limit on pages stands for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_admission_and_loses_nothing() {
    let database = Database::sqlite();
    let books = Books::open(&database.url).await.unwrap();
    let tasks = TaskTracker::new();
    let journal = Journal::start(&books, &tasks, Duration::from_millis(200)).await.unwrap();
    append(&journal, entry(1, 1, None, 0)).await.unwrap();
    // A reader that holds the write lock keeps the writer out as a full disk would.
    let file = database.url.strip_prefix("sqlite:").unwrap().to_owned();
    let mut blocker = sqlx::AnyConnection::connect(&format!("sqlite://{file}")).await.unwrap();
    blocker.execute("begin immediate").await.unwrap();
    let stuck = entry(2, 1, None, 0);
    let outcome = append(&journal, stuck.clone()).await;
    assert_eq!(outcome, Err(JournalError::NotYet { waited_s: 0 }));
    while journal.is_healthy() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(journal.pending(), 1);
    blocker.execute("rollback").await.unwrap();
    while !journal.is_healthy() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(books.statement(stuck.digest).await.unwrap(), Some(stuck));
    assert_eq!(journal.pending(), 0);
}
