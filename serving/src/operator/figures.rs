//! The host's figures, as of now.

use protocol::{
    ids::LeaseId,
    units::{Amount, UnixSeconds},
};

use crate::{
    books::{BooksError, ClaimedLane, StoredReport, Totals},
    state::AppState,
};

/// Claims that are shown.
const CLAIMS: usize = 10;

/// What the host is doing and what it is owed.
pub(super) struct Figures {
    pub(super) now: UnixSeconds,
    pub(super) open_requests: usize,
    pub(super) models: Vec<ModelFigures>,
    pub(super) metered: Option<MeteredFigures>,
}

/// A model that is served.
pub(super) struct ModelFigures {
    pub(super) id: String,
    pub(super) lease: Option<LeaseId>,
}

/// What only a metered host has.
pub(super) struct MeteredFigures {
    pub(super) block: u64,
    pub(super) chain_age_s: u64,
    pub(super) is_fresh: bool,
    pub(super) journal_is_healthy: bool,
    pub(super) journal_pending: u64,
    pub(super) journal_entries: u64,
    pub(super) journal_commits: u64,
    pub(super) leases: Vec<LeaseFigures>,
}

/// A lease. Amounts are in the smallest unit of its token.
pub(super) struct LeaseFigures {
    pub(super) id: LeaseId,
    pub(super) is_active: bool,
    pub(super) to: UnixSeconds,
    pub(super) totals: Totals,
    /// By vouchers.
    pub(super) charged: Amount,
    pub(super) claimed: Amount,
    pub(super) host_share: Amount,
    pub(super) royalty: Amount,
    pub(super) validator_share: Amount,
    /// To customers who are billed in money.
    pub(super) billed: Amount,
    pub(super) reports: Vec<StoredReport>,
    /// The newest ones first.
    pub(super) claims: Vec<ClaimedLane>,
}

impl LeaseFigures {
    /// Charged and not claimed yet.
    pub(super) fn owed(&self) -> Amount {
        self.charged.saturating_sub(self.claimed)
    }
}

impl Figures {
    pub(super) async fn read(state: &AppState) -> Result<Self, BooksError> {
        let model = |model: &std::sync::Arc<crate::ServedModel>| ModelFigures {
            id: model.id.clone(),
            lease: model.lease.as_ref().map(|lease| lease.id),
        };
        Ok(Self {
            now: UnixSeconds::new(state.now().0),
            open_requests: state.open_requests(),
            models: state.models().iter().map(model).collect(),
            metered: match state.metering() {
                Some(metering) => Some(MeteredFigures::read(metering).await?),
                None => None,
            },
        })
    }
}

impl MeteredFigures {
    async fn read(metering: &crate::metering::Metering) -> Result<Self, BooksError> {
        let (chain, journal) = (metering.chain(), metering.journal());
        let head = chain.head();
        let observed_s = head.observed_at.as_secs();
        let (entries, commits) = journal.written();
        let mut leases = Vec::new();
        for lease in metering.leases() {
            leases.push(LeaseFigures::read(metering, lease.id).await?);
        }
        leases.sort_by_key(|lease| lease.id);
        Ok(Self {
            block: head.block.number,
            chain_age_s: metering.now().second_down().get().saturating_sub(observed_s),
            is_fresh: chain.check_fresh().is_ok(),
            journal_is_healthy: journal.is_healthy(),
            journal_pending: journal.pending(),
            journal_entries: entries,
            journal_commits: commits,
            leases,
        })
    }
}

impl LeaseFigures {
    async fn read(metering: &crate::metering::Metering, id: LeaseId) -> Result<Self, BooksError> {
        let books = metering.books();
        let facts = metering.chain().lease(id);
        let mut claims = books.claimed(id).await?;
        claims.sort_by_key(|claim| std::cmp::Reverse((claim.block, claim.cost)));
        let sum = |part: fn(&ClaimedLane) -> Amount| {
            Amount::new(claims.iter().fold(0, |sum, claim| part(claim).get().saturating_add(sum)))
        };
        let (charged, billed) = books.charged_under(id).await?;
        Ok(Self {
            id,
            is_active: facts.is_some_and(|facts| facts.is_active),
            to: facts.map_or(UnixSeconds::new(0), |facts| facts.to),
            totals: books.totals(id).await?,
            charged,
            claimed: sum(|claim| claim.cost),
            host_share: sum(|claim| claim.host_share),
            royalty: sum(|claim| claim.royalty),
            validator_share: sum(|claim| claim.validator_share),
            billed,
            reports: books.reports(id).await?,
            claims: {
                claims.truncate(CLAIMS);
                claims
            },
        })
    }
}
