//! What was reported and what was paid.

use std::{ops::Range, sync::LazyLock};

use alloy_primitives::B256;
use protocol::{
    counts::UsageTotals,
    ids::{ChannelId, Epoch, EpochCommitDigest, Lane, LeaseId, StatementDigest},
    merkle_sum::Leaf,
    messages::EpochCommit,
    units::{Amount, UnixSeconds},
};
use sqlx::any::AnyRow;

use super::{
    Books, BooksError,
    columns::{self, Columns, damaged, signed},
    insertion::{AnyQuery, Insertion},
};

/// A report as the books have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReport {
    /// What is sent.
    pub report: EpochCommit,
    /// Its place among the lease's reports on the chain, from 0.
    pub position: u64,
    /// What the next report names as the one before it.
    pub digest: EpochCommitDigest,
    /// The block that holds it, if it is known to be in one.
    pub block: Option<u64>,
}

/// What the chain has paid for a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedLane {
    /// The channel.
    pub channel: ChannelId,
    /// The lane.
    pub lane: Lane,
    /// Its lease.
    pub lease: LeaseId,
    /// Requests that were paid for.
    pub requests: u64,
    /// What the lane had cost then.
    pub cost: Amount,
    /// What the host got of it.
    pub host_share: Amount,
    /// What the creator's side got.
    pub royalty: Amount,
    /// What the validators got.
    pub validator_share: Amount,
    /// The newest claim's transaction.
    pub transaction: B256,
    /// Its block.
    pub block: u64,
    /// Its time.
    pub claimed_at: UnixSeconds,
}

impl Books {
    /// The statements of these epochs that are in no report yet: their digests with what they account for.
    pub async fn unreported(&self, lease: LeaseId, epochs: Range<Epoch>) -> Result<Vec<(Epoch, Leaf)>, BooksError> {
        let query = sqlx::query(UNREPORTED)
            .bind(signed(lease.get()))
            .bind(signed(epochs.start.get()))
            .bind(signed(epochs.end.get()));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read statements of"))?;
        rows.iter().map(|row| Ok((Columns(row).epoch("epoch")?, leaf(row)?))).collect()
    }

    /// The leaves of a report.
    pub async fn leaves(&self, lease: LeaseId, position: u64) -> Result<Vec<Leaf>, BooksError> {
        let query = sqlx::query(LEAVES).bind(signed(lease.get())).bind(signed(position));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read a report of"))?;
        rows.iter().map(leaf).collect()
    }

    /// Which report a statement is in.
    pub async fn report_of(&self, digest: StatementDigest) -> Result<Option<(LeaseId, u64)>, BooksError> {
        let query =
            sqlx::query("select lease_id, position from reported where digest = $1").bind(digest.as_bytes().to_vec());
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("read a report of"))?;
        row.map(|row| Ok((Columns(&row).lease("lease_id")?, Columns(&row).number("position")?))).transpose()
    }

    /// A lease's reports, oldest first.
    pub async fn reports(&self, lease: LeaseId) -> Result<Vec<StoredReport>, BooksError> {
        let query = sqlx::query("select * from report where lease_id = $1 order by position").bind(signed(lease.get()));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the reports of"))?;
        rows.iter().map(|row| parse_report(&Columns(row))).collect()
    }

    /// Writes a report down together with the statements that it is over, before it is sent.
    pub async fn add_report(&self, stored: &StoredReport, leaves: &[Leaf]) -> Result<(), BooksError> {
        let failed = || BooksError::database("write a report into");
        let StoredReport { report, position, digest, .. } = stored;
        let mut transaction = self.pool.begin().await.map_err(failed())?;
        sqlx::query(INSERT_REPORT)
            .bind(signed(report.lease.get()))
            .bind(signed(*position))
            .bind(signed(report.epoch.get()))
            .bind(digest.as_bytes().to_vec())
            .bind(report.root.map(|root| root.to_vec()))
            .bind(signed(report.totals.requests))
            .bind(signed(report.totals.prompt_tokens))
            .bind(signed(report.totals.cached_tokens))
            .bind(signed(report.totals.completion_tokens))
            .bind(columns::amount(report.totals.charge))
            .bind(report.previous.map(|digest| digest.as_bytes().to_vec()))
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        let rows = REPORTED.execute(&mut transaction, leaves, |query, leaf| {
            query.bind(leaf.digest.as_bytes().to_vec()).bind(signed(report.lease.get())).bind(signed(*position))
        });
        rows.await.map_err(failed())?;
        transaction.commit().await.map_err(failed())
    }

    /// Notes the block that holds a report.
    pub async fn report_mined(&self, lease: LeaseId, position: u64, block: u64) -> Result<(), BooksError> {
        let query = sqlx::query("update report set block = $3 where lease_id = $1 and position = $2")
            .bind(signed(lease.get()))
            .bind(signed(position))
            .bind(signed(block));
        query.execute(&self.pool).await.map_err(BooksError::database("note a report in"))?;
        Ok(())
    }

    /// What the chain has paid for the lanes of a lease.
    pub async fn claimed(&self, lease: LeaseId) -> Result<Vec<ClaimedLane>, BooksError> {
        let query = sqlx::query("select * from claimed where lease_id = $1").bind(signed(lease.get()));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the claims of"))?;
        rows.iter().map(|row| parse_claimed(&Columns(row))).collect()
    }

    /// What the chain has paid for the lanes of a lease whose newest claim is in this block or a later one.
    pub async fn claimed_since(&self, lease: LeaseId, block: u64) -> Result<Vec<ClaimedLane>, BooksError> {
        let query = sqlx::query("select * from claimed where lease_id = $1 and block >= $2")
            .bind(signed(lease.get()))
            .bind(signed(block));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the claims of"))?;
        rows.iter().map(|row| parse_claimed(&Columns(row))).collect()
    }

    /// What customers who are billed in money used, by the reports that are on the chain and whose royalty is not paid.
    pub async fn royalties_due(&self, lease: LeaseId) -> Result<Vec<(u64, UsageTotals)>, BooksError> {
        let query = sqlx::query(ROYALTIES_DUE).bind(signed(lease.get())).bind(columns::channel(None));
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("read the use of"))?;
        let mut due: Vec<(u64, UsageTotals)> = Vec::new();
        for row in &rows {
            let position = Columns(row).number("position")?;
            let sums = leaf(row)?.sums();
            match due.last_mut().filter(|(last, _)| *last == position) {
                Some((_, totals)) => {
                    *totals = totals.checked_add(sums).map_err(|error| damaged("sums", error))?;
                }
                None => due.push((position, sums)),
            }
        }
        Ok(due)
    }

    /// Notes the block in which the royalty on a report's use was paid.
    pub async fn royalty_paid(&self, lease: LeaseId, position: u64, block: u64) -> Result<(), BooksError> {
        let query = sqlx::query("update report set royalty_block = $3 where lease_id = $1 and position = $2")
            .bind(signed(lease.get()))
            .bind(signed(position))
            .bind(signed(block));
        query.execute(&self.pool).await.map_err(BooksError::database("note a royalty in"))?;
        Ok(())
    }

    /// Takes over what the chain says of the claims of these lanes, in the place of what was known of them. Lanes that are not in
    /// `claimed` were never claimed.
    pub async fn replace_claims(&self, lanes: &[(ChannelId, Lane)], claimed: &[ClaimedLane]) -> Result<(), BooksError> {
        let failed = || BooksError::database("note claims in");
        let mut transaction = self.pool.begin().await.map_err(failed())?;
        for (channel, lane) in lanes {
            let query = sqlx::query("delete from claimed where channel_id = $1 and lane = $2")
                .bind(columns::channel(Some(*channel)))
                .bind(signed(lane.get()));
            query.execute(&mut *transaction).await.map_err(failed())?;
        }
        for claimed in claimed {
            upsert(claimed).execute(&mut *transaction).await.map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())
    }

    /// Notes what a claim paid. An older claim of the same lane never replaces a newer one.
    pub async fn note_claim(&self, claimed: &ClaimedLane) -> Result<(), BooksError> {
        upsert(claimed).execute(&self.pool).await.map_err(BooksError::database("note a claim in"))?;
        Ok(())
    }
}

fn upsert<'q>(claimed: &ClaimedLane) -> AnyQuery<'q> {
    sqlx::query(UPSERT_CLAIMED)
        .bind(columns::channel(Some(claimed.channel)))
        .bind(signed(claimed.lane.get()))
        .bind(signed(claimed.lease.get()))
        .bind(signed(claimed.requests))
        .bind(columns::amount(claimed.cost))
        .bind(columns::amount(claimed.host_share))
        .bind(columns::amount(claimed.royalty))
        .bind(columns::amount(claimed.validator_share))
        .bind(claimed.transaction.to_vec())
        .bind(signed(claimed.block))
        .bind(signed(claimed.claimed_at.get()))
}

static REPORTED: LazyLock<Insertion> =
    LazyLock::new(|| Insertion::new("reported", &["digest", "lease_id", "position"], ""));

const UNREPORTED: &str = "select s.epoch, s.digest, s.prompt_tokens, s.cached_tokens, s.completion_tokens, s.charge \
     from statement s left join reported r on r.digest = s.digest \
     where s.lease_id = $1 and s.epoch >= $2 and s.epoch < $3 and r.digest is null order by s.epoch";
const LEAVES: &str = "select s.digest, s.prompt_tokens, s.cached_tokens, s.completion_tokens, s.charge \
     from reported r join statement s on s.digest = r.digest where r.lease_id = $1 and r.position = $2";
const ROYALTIES_DUE: &str = "select r.position, s.digest, s.prompt_tokens, s.cached_tokens, s.completion_tokens, \
     s.charge from report p join reported r on r.lease_id = p.lease_id and r.position = p.position \
     join statement s on s.digest = r.digest where p.lease_id = $1 and p.block is not null \
     and p.royalty_block is null and s.channel_id = $2 order by r.position";
const INSERT_REPORT: &str = "insert into report (lease_id, position, epoch, digest, root, requests, prompt_tokens, \
     cached_tokens, completion_tokens, charge, previous) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const UPSERT_CLAIMED: &str = "insert into claimed (channel_id, lane, lease_id, requests, cost, host_share, royalty, \
     validator_share, transaction_id, block, claimed_at_s) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
     on conflict (channel_id, lane) do update set requests = excluded.requests, cost = excluded.cost, \
     host_share = excluded.host_share, royalty = excluded.royalty, validator_share = excluded.validator_share, \
     transaction_id = excluded.transaction_id, block = excluded.block, claimed_at_s = excluded.claimed_at_s \
     where claimed.requests < excluded.requests";

fn leaf(row: &AnyRow) -> Result<Leaf, BooksError> {
    let row = Columns(row);
    let usage = protocol::counts::RequestUsage::new(
        row.number("prompt_tokens")?,
        row.number("cached_tokens")?,
        row.number("completion_tokens")?,
    )
    .map_err(|error| damaged("counts", error))?;
    Ok(Leaf::new(row.word("digest")?.into(), usage, row.amount("charge")?))
}

fn parse_report(row: &Columns<'_>) -> Result<StoredReport, BooksError> {
    Ok(StoredReport {
        report: EpochCommit {
            lease: row.lease("lease_id")?,
            epoch: row.epoch("epoch")?,
            root: row.optional_word("root")?,
            totals: UsageTotals {
                requests: row.number("requests")?,
                prompt_tokens: row.number("prompt_tokens")?,
                cached_tokens: row.number("cached_tokens")?,
                completion_tokens: row.number("completion_tokens")?,
                charge: row.amount("charge")?,
            },
            previous: row.optional_word("previous")?.map(EpochCommitDigest::from),
        },
        position: row.number("position")?,
        digest: row.word("digest")?.into(),
        block: row.optional_number("block")?,
    })
}

fn parse_claimed(row: &Columns<'_>) -> Result<ClaimedLane, BooksError> {
    Ok(ClaimedLane {
        channel: row.word("channel_id")?.into(),
        lane: row.lane("lane")?,
        lease: row.lease("lease_id")?,
        requests: row.number("requests")?,
        cost: row.amount("cost")?,
        host_share: row.amount("host_share")?,
        royalty: row.amount("royalty")?,
        validator_share: row.amount("validator_share")?,
        transaction: row.word("transaction_id")?,
        block: row.number("block")?,
        claimed_at: UnixSeconds::new(row.number("claimed_at_s")?),
    })
}
