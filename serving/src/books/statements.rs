//! Statements: what was served, for how much, and under which voucher.

use std::{collections::HashMap, sync::LazyLock};

use alloy_primitives::Address;
use protocol::{
    counts::{LaneStep, RequestUsage, UsageCounts},
    ids::{ChannelId, Epoch, Lane, LeaseId, StatementDigest},
    messages::{Channel, FinishReason, Signed, Statement, Voucher},
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use sqlx::{AnyConnection, any::AnyRow};

use super::{
    Books, BooksError, CustomerId,
    columns::{self, Columns, damaged, signed},
    insertion::{AnyQuery, Insertion},
};

/// One request as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the lease key signed.
    pub statement: Signed<Statement>,
    /// Its digest.
    pub digest: StatementDigest,
    /// Name of the answer in the API.
    pub answer: String,
    /// The epoch in which the request ended.
    pub epoch: Epoch,
    /// What the lane has cost, this request included.
    pub lane_cost: Amount,
    /// Who pays in money; none where a voucher does.
    pub customer: Option<CustomerId>,
    /// The voucher that the request was served under, and whose key signed it.
    pub voucher: Option<(Signed<Voucher>, Address)>,
}

/// Where a lane stands: its newest statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneHead {
    /// The lease that it belongs to.
    pub lease: LeaseId,
    /// The lane.
    pub lane: Lane,
    /// Everything used on it.
    pub counts: UsageCounts,
    /// Its newest statement.
    pub head: StatementDigest,
    /// What it has cost.
    pub cost: Amount,
    /// Whose key signs its vouchers.
    pub signer: Option<Address>,
}

/// Sums over statements, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens, the cached ones included.
    pub prompt: u64,
    /// Prompt tokens that were cached.
    pub cached: u64,
    /// Completion tokens.
    pub completion: u64,
}

const COLUMNS: [&str; 28] = [
    "digest",
    "answer_id",
    "lease_id",
    "channel_id",
    "customer_id",
    "lane",
    "sequence",
    "prompt_before",
    "cached_before",
    "completion_before",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "charge",
    "lane_cost",
    "request_hash",
    "response_hash",
    "started_ms",
    "ended_ms",
    "finish_reason",
    "execution",
    "previous",
    "signature",
    "epoch",
    "voucher_ceiling",
    "voucher_expires_at",
    "voucher_signature",
    "voucher_signer",
];

static STATEMENT: LazyLock<Insertion> = LazyLock::new(|| Insertion::new("statement", &COLUMNS, ""));
// A commit that failed halfway is tried again: an older statement never takes a newer one's place.
static LANE_HEAD: LazyLock<Insertion> = LazyLock::new(|| {
    let columns = ["channel_id", "lease_id", "lane", "customer_id", "sequence"];
    let newest = "on conflict (channel_id, lease_id, lane) do update set sequence = excluded.sequence \
         where lane_head.sequence < excluded.sequence";
    Insertion::new("lane_head", &columns, newest)
});

/// Inserts all entries, and notes which is the newest of its lane.
pub(super) async fn insert(connection: &mut AnyConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
    STATEMENT.execute(connection, entries, bind).await?;
    let mut newest: HashMap<(Option<ChannelId>, LeaseId, Lane), &Entry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let statement = &entry.statement.message;
        let head = newest.entry((statement.channel, statement.lease, statement.lane)).or_insert(entry);
        if sequence(head) < sequence(entry) {
            *head = entry;
        }
    }
    let newest: Vec<&Entry> = newest.into_values().collect();
    LANE_HEAD.execute(connection, &newest, |query, entry| bind_head(query, entry)).await
}

/// Number of the request on its lane, from 1.
const fn sequence(entry: &Entry) -> u64 {
    entry.statement.message.step.after().requests()
}

fn bind_head<'q>(query: AnyQuery<'q>, entry: &Entry) -> AnyQuery<'q> {
    let statement = &entry.statement.message;
    query
        .bind(columns::channel(statement.channel))
        .bind(signed(statement.lease.get()))
        .bind(signed(statement.lane.get()))
        .bind(entry.customer.as_ref().map(|customer| customer.as_str().to_owned()))
        .bind(signed(sequence(entry)))
}

fn bind<'q>(query: AnyQuery<'q>, entry: &Entry) -> AnyQuery<'q> {
    let Entry { statement: Signed { message: statement, signature }, .. } = entry;
    let (before, used) = (statement.step.before(), statement.step.usage().counts());
    let voucher = entry.voucher.as_ref();
    query
        .bind(entry.digest.as_bytes().to_vec())
        .bind(entry.answer.clone())
        .bind(signed(statement.lease.get()))
        .bind(columns::channel(statement.channel))
        .bind(entry.customer.as_ref().map(|customer| customer.as_str().to_owned()))
        .bind(signed(statement.lane.get()))
        .bind(signed(sequence(entry)))
        .bind(signed(before.prompt().get()))
        .bind(signed(before.cached().get()))
        .bind(signed(before.completion().get()))
        .bind(signed(used.prompt().get()))
        .bind(signed(used.cached().get()))
        .bind(signed(used.completion().get()))
        .bind(columns::amount(statement.charge))
        .bind(columns::amount(entry.lane_cost))
        .bind(statement.request_hash.to_vec())
        .bind(statement.response_hash.to_vec())
        .bind(signed(statement.started.get()))
        .bind(signed(statement.ended.get()))
        .bind(i16::from(statement.finish_reason.code()))
        .bind(statement.execution.map(|word| word.to_vec()))
        .bind(statement.previous.map(|digest| digest.as_bytes().to_vec()))
        .bind(signature.as_bytes().to_vec())
        .bind(signed(entry.epoch.get()))
        .bind(voucher.map(|(voucher, _)| columns::amount(voucher.message.ceiling)))
        .bind(voucher.map(|(voucher, _)| signed(voucher.message.expires_at.get())))
        .bind(voucher.map(|(voucher, _)| voucher.signature.as_bytes().to_vec()))
        .bind(voucher.map(|(_, signer)| signer.to_vec()))
}

fn parse(row: &AnyRow) -> Result<Entry, BooksError> {
    let row = Columns(row);
    let counts = |requests, prompt, cached, completion| {
        UsageCounts::new(requests, prompt, cached, completion).map_err(|error| damaged("counts", error))
    };
    let sequence = row.number("sequence")?;
    let before = counts(
        sequence.checked_sub(1).ok_or_else(|| damaged("sequence", sequence))?,
        row.number("prompt_before")?,
        row.number("cached_before")?,
        row.number("completion_before")?,
    )?;
    let used =
        RequestUsage::new(row.number("prompt_tokens")?, row.number("cached_tokens")?, row.number("completion_tokens")?)
            .map_err(|error| damaged("counts", error))?;
    let statement = Statement {
        channel: row.channel("channel_id")?,
        lease: row.lease("lease_id")?,
        lane: row.lane("lane")?,
        step: LaneStep::new(before, used).map_err(|error| damaged("counts", error))?,
        charge: row.amount("charge")?,
        request_hash: row.word("request_hash")?,
        response_hash: row.word("response_hash")?,
        started: UnixMilliseconds::new(row.number("started_ms")?),
        ended: UnixMilliseconds::new(row.number("ended_ms")?),
        finish_reason: FinishReason::try_from(row.small("finish_reason")?)
            .map_err(|error| damaged("finish_reason", error))?,
        execution: row.optional_word("execution")?,
        previous: row.optional_word("previous")?.map(StatementDigest::from),
    };
    Ok(Entry {
        voucher: voucher(&row, &statement)?,
        digest: row.word("digest")?.into(),
        answer: row.text("answer_id")?,
        epoch: row.epoch("epoch")?,
        lane_cost: row.amount("lane_cost")?,
        customer: row.optional_text("customer_id")?.map(CustomerId::from_row),
        statement: Signed { message: statement, signature: row.signature("signature")? },
    })
}

/// The voucher that a request was served under: its counts are the lane's before the request.
fn voucher(row: &Columns<'_>, statement: &Statement) -> Result<Option<(Signed<Voucher>, Address)>, BooksError> {
    let Some(channel) = statement.channel else { return Ok(None) };
    let missing = || damaged("voucher", "a statement of a channel without one");
    let voucher = Voucher {
        channel,
        lease: statement.lease,
        lane: statement.lane,
        counts: statement.step.before(),
        ceiling: row.optional_amount("voucher_ceiling")?.ok_or_else(missing)?,
        statements_head: statement.previous,
        expires_at: UnixSeconds::new(row.optional_number("voucher_expires_at")?.ok_or_else(missing)?),
    };
    let signature = row.optional_signature("voucher_signature")?.ok_or_else(missing)?;
    let signer = row.optional_address("voucher_signer")?.ok_or_else(missing)?;
    Ok(Some((Signed { message: voucher, signature }, signer)))
}

impl Books {
    /// A statement by its digest.
    pub async fn statement(&self, digest: StatementDigest) -> Result<Option<Entry>, BooksError> {
        let query = sqlx::query("select * from statement where digest = $1").bind(digest.as_bytes().to_vec());
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("read a statement of"))?;
        row.as_ref().map(parse).transpose()
    }

    /// The statement of an answer by the answer's name.
    pub async fn statement_of(&self, answer: &str) -> Result<Option<Entry>, BooksError> {
        let query = sqlx::query("select * from statement where answer_id = $1").bind(answer.to_owned());
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("read a statement of"))?;
        row.as_ref().map(parse).transpose()
    }

    /// A channel's members, if anything was ever served on it.
    pub async fn channel(&self, id: ChannelId) -> Result<Option<Channel>, BooksError> {
        let query = sqlx::query("select * from channel where channel_id = $1").bind(id.as_bytes().to_vec());
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("read a channel of"))?;
        let Some(row) = row else { return Ok(None) };
        let row = Columns(&row);
        Ok(Some(Channel {
            payer: row.address("payer")?,
            host: row.address("host")?,
            token: row.address("token")?,
            withdraw_delay: Seconds::new(row.number("withdraw_delay")?),
            salt: row.word("salt")?,
        }))
    }

    /// The newest statement of each of a channel's lanes; of channel none, of the lane of one lease.
    pub async fn heads(&self, channel: ChannelId) -> Result<Vec<LaneHead>, BooksError> {
        let query = sqlx::query(HEADS_OF_CHANNEL).bind(columns::channel(Some(channel)));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the lanes of"))?;
        rows.iter().map(head).collect()
    }

    /// Where a customer's lane stands under a lease.
    pub async fn customer_head(&self, lease: LeaseId, lane: Lane) -> Result<Option<LaneHead>, BooksError> {
        let query = sqlx::query(HEAD_OF_CUSTOMER)
            .bind(columns::channel(None))
            .bind(signed(lease.get()))
            .bind(signed(lane.get()));
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("read a lane of"))?;
        row.as_ref().map(head).transpose()
    }

    /// What was charged under a lease: by vouchers, and to customers who pay in money.
    pub async fn charged_under(&self, lease: LeaseId) -> Result<(Amount, Amount), BooksError> {
        let query = sqlx::query(HEADS_OF_LEASE).bind(signed(lease.get()));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the lanes of"))?;
        let (mut charged, mut billed) = (0_u128, 0_u128);
        for row in &rows {
            let row = Columns(row);
            let sum = if row.channel("channel_id")?.is_some() { &mut charged } else { &mut billed };
            *sum = sum.saturating_add(row.amount("lane_cost")?.get());
        }
        Ok((Amount::new(charged), Amount::new(billed)))
    }

    /// What a customer was charged in all, over all leases.
    pub async fn charged(&self, customer: &CustomerId) -> Result<Amount, BooksError> {
        let query = sqlx::query(HEADS_OF_CUSTOMER).bind(customer.as_str().to_owned());
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the use of"))?;
        let costs = rows.iter().map(|row| Columns(row).amount("lane_cost"));
        costs.sum::<Result<SaturatingSum, _>>().map(|sum| sum.0)
    }

    /// What can be claimed under a lease: of every lane with vouchers and unpaid requests the newest statement that is in a report
    /// which is on the chain, and when the lane's first request ended.
    pub async fn claimable(&self, lease: LeaseId) -> Result<Vec<(Entry, UnixMilliseconds)>, BooksError> {
        let query = sqlx::query(CLAIMABLE).bind(signed(lease.get())).bind(columns::channel(None));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the lanes of"))?;
        let first = |row| Columns(row).number("first_ended_ms").map(UnixMilliseconds::new);
        rows.iter().map(|row| Ok((parse(row)?, first(row)?))).collect()
    }

    /// What a lane had cost after so many requests; nothing if the books do not know of them.
    pub async fn lane_cost(
        &self,
        lease: LeaseId,
        channel: ChannelId,
        lane: Lane,
        requests: u64,
    ) -> Result<Amount, BooksError> {
        let query = sqlx::query(LANE_COST)
            .bind(signed(lease.get()))
            .bind(columns::channel(Some(channel)))
            .bind(signed(lane.get()))
            .bind(signed(requests));
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("read a lane of"))?;
        row.map_or(Ok(Amount::ZERO), |row| Columns(&row).amount("lane_cost"))
    }

    /// All statements of a lane, oldest first.
    pub async fn statements_of_lane(
        &self,
        lease: LeaseId,
        channel: Option<ChannelId>,
        lane: Lane,
    ) -> Result<Vec<Entry>, BooksError> {
        let query = sqlx::query(STATEMENTS_OF_LANE)
            .bind(signed(lease.get()))
            .bind(columns::channel(channel))
            .bind(signed(lane.get()));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read a lane of"))?;
        rows.iter().map(parse).collect()
    }

    /// Sums over all statements of a lease.
    pub async fn totals(&self, lease: LeaseId) -> Result<Totals, BooksError> {
        let query = sqlx::query(TOTALS).bind(signed(lease.get()));
        let row = query.fetch_one(&self.pool).await.map_err(BooksError::database("sum up"))?;
        let row = Columns(&row);
        Ok(Totals {
            requests: row.number("requests")?,
            prompt: row.number("prompt")?,
            cached: row.number("cached")?,
            completion: row.number("completion")?,
        })
    }
}

/// Amounts added up; a sum that does not fit is as good as all the money there is.
struct SaturatingSum(Amount);

impl std::iter::Sum<Amount> for SaturatingSum {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Self {
        Self(Amount::new(amounts.fold(0_u128, |sum, amount| sum.saturating_add(amount.get()))))
    }
}

// The heads lead: these must not grow slower with every request that was ever served.
const HEADS_OF_CHANNEL: &str = "select s.* from lane_head h join statement s \
     on s.lease_id = h.lease_id and s.channel_id = h.channel_id and s.lane = h.lane and s.sequence = h.sequence \
     where h.channel_id = $1";
const HEAD_OF_CUSTOMER: &str =
    "select * from statement where channel_id = $1 and lease_id = $2 and lane = $3 order by sequence desc limit 1";
const HEADS_OF_CUSTOMER: &str = "select s.lane_cost from lane_head h join statement s \
     on s.lease_id = h.lease_id and s.channel_id = h.channel_id and s.lane = h.lane and s.sequence = h.sequence \
     where h.customer_id = $1";
const HEADS_OF_LEASE: &str = "select s.channel_id, s.lane_cost from lane_head h join statement s \
     on s.lease_id = h.lease_id and s.channel_id = h.channel_id and s.lane = h.lane and s.sequence = h.sequence \
     where h.lease_id = $1";
// Of each lane that has grown since it was claimed, from the newest statement back to one that is reported.
const CLAIMABLE: &str = "select s.*, f.ended_ms as first_ended_ms from lane_head h \
     left join claimed c on c.channel_id = h.channel_id and c.lane = h.lane \
     join statement f \
     on f.lease_id = h.lease_id and f.channel_id = h.channel_id and f.lane = h.lane and f.sequence = 1 \
     join statement s on s.lease_id = h.lease_id and s.channel_id = h.channel_id and s.lane = h.lane \
     and s.sequence = (select t.sequence from statement t join reported r on r.digest = t.digest \
     join report p on p.lease_id = r.lease_id and p.position = r.position \
     where t.lease_id = h.lease_id and t.channel_id = h.channel_id and t.lane = h.lane and p.block is not null \
     order by t.sequence desc limit 1) \
     where h.lease_id = $1 and h.channel_id <> $2 and (c.requests is null or c.requests < h.sequence)";
const LANE_COST: &str = "select lane_cost from statement \
     where lease_id = $1 and channel_id = $2 and lane = $3 and sequence = $4";
const STATEMENTS_OF_LANE: &str =
    "select * from statement where lease_id = $1 and channel_id = $2 and lane = $3 order by sequence";
const TOTALS: &str = "select cast(coalesce(sum(s.sequence), 0) as bigint) as requests, \
     cast(coalesce(sum(s.prompt_before + s.prompt_tokens), 0) as bigint) as prompt, \
     cast(coalesce(sum(s.cached_before + s.cached_tokens), 0) as bigint) as cached, \
     cast(coalesce(sum(s.completion_before + s.completion_tokens), 0) as bigint) as completion \
     from lane_head h join statement s \
     on s.lease_id = h.lease_id and s.channel_id = h.channel_id and s.lane = h.lane and s.sequence = h.sequence \
     where h.lease_id = $1";

fn head(row: &AnyRow) -> Result<LaneHead, BooksError> {
    let entry = parse(row)?;
    let statement = &entry.statement.message;
    Ok(LaneHead {
        lease: statement.lease,
        lane: statement.lane,
        counts: statement.step.after(),
        head: entry.digest,
        cost: entry.lane_cost,
        signer: entry.voucher.as_ref().map(|(_, signer)| *signer),
    })
}
