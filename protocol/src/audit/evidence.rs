//! What a signed statement shows by itself.

use alloy_primitives::{B256, U256, aliases::U48};

use super::{AuditDomains, AuditError, AuditRules, AuditedLease, after};
use crate::{
    counts::UsageTotals,
    ids::{ChannelId, Epoch, Lane, LeaseId, StatementDigest},
    merkle_sum::Leaf,
    messages::{Message as _, wire},
    money::Prices,
    signature::Signature,
    units::{Amount, Seconds, UnixSeconds},
};

/// By how much an honest host's clock may be ahead of the chain's.
const CLOCK_TOLERANCE: Seconds = Seconds::new(15 * 60);

/// A statement as it was signed, also one that makes no sense: then it is evidence of that.
#[derive(Clone, Debug)]
pub struct StatementEvidence {
    /// The statement.
    pub statement: wire::Statement,
    /// Of the lease key.
    pub signature: Vec<u8>,
}

/// One thing that a host is punished for at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A statement that is missing, whether proven or not shown.
    Omission(StatementDigest),
    /// A statement with a wrong charge.
    Misprice(StatementDigest),
    /// A request of which there is more than one account, or none that follows the one before it.
    Equivocation(Request),
    /// A request for which a verdict convicted the host.
    Bill(Request),
}

/// A request, of which there can be several accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// The lease that it was served under.
    pub lease: LeaseId,
    /// Its channel; zero for a customer billed in money.
    pub channel: ChannelId,
    /// Its lane.
    pub lane: Lane,
    /// Its number on the lane.
    pub sequence: u64,
}

impl StatementEvidence {
    /// The lease that it was served under, as the statement says.
    pub const fn lease(&self) -> LeaseId {
        LeaseId::new(self.statement.leaseId)
    }

    /// Checks that the lease key signed, and gives the statement's digest.
    pub(super) fn verify(&self, domains: &AuditDomains, lease: &AuditedLease) -> Result<StatementDigest, AuditError> {
        let digest = self.statement.digest(&domains.statements);
        Signature::from_slice(&self.signature)?.verify(digest.into(), lease.lease_key)?;
        Ok(digest)
    }

    /// The epoch to which it belongs, once it can be demanded.
    pub(super) fn challengeable(&self, rules: &AuditRules, now: UnixSeconds) -> Result<Epoch, AuditError> {
        let ended_s = self.statement.endedMs / 1_000;
        // An epoch has a length.
        let epoch = ended_s.checked_div(rules.epoch.get()).unwrap_or_default();
        let end = UnixSeconds::new(epoch.saturating_add(1).saturating_mul(rules.epoch.get()));
        let from = after(end, rules.commit_grace);
        if now < from { Err(AuditError::NotChallengeable { from }) } else { Ok(Epoch::new(epoch)) }
    }

    /// Checks that it says that it ended later than it can have, whatever the host's clock.
    pub(super) fn postdated(&self, now: UnixSeconds) -> Result<(), AuditError> {
        let ended = UnixSeconds::new(self.statement.endedMs / 1_000);
        if ended > after(now, CLOCK_TOLERANCE) { Ok(()) } else { Err(AuditError::NotPostdated { ended }) }
    }

    /// What the tree of its epoch must hold.
    pub(super) fn leaf(&self, digest: StatementDigest) -> Leaf {
        let statement = &self.statement;
        Leaf {
            digest,
            prompt_tokens: statement.promptTokens.saturating_to(),
            cached_tokens: statement.cachedTokens.saturating_to(),
            completion_tokens: statement.completionTokens.saturating_to(),
            charge: Amount::new(statement.charge),
        }
    }

    /// The royalty that is due on it. A statement that is no account of a request owes none.
    pub(super) fn royalty(&self, lease: &AuditedLease) -> Amount {
        let statement = &self.statement;
        if statement.cachedTokens > statement.promptTokens {
            return Amount::ZERO;
        }
        let used = UsageTotals {
            requests: 1,
            prompt_tokens: statement.promptTokens.saturating_to(),
            cached_tokens: statement.cachedTokens.saturating_to(),
            completion_tokens: statement.completionTokens.saturating_to(),
            charge: Amount::new(statement.charge),
        };
        // It fails only where the floors give more than any payment.
        lease.shares.royalty_on_down(&used).unwrap_or(Amount::MAX)
    }

    /// What it should have charged; `None` for one that is no account of a request: these are numbered from 1, and cached
    /// tokens are prompt tokens.
    pub(super) fn right_charge(&self, prices: &Prices) -> Option<U256> {
        let statement = &self.statement;
        let count = |count: U48| count.saturating_to::<u64>();
        let before = [statement.promptTokensBefore, statement.cachedTokensBefore, statement.completionTokensBefore];
        let used = [statement.promptTokens, statement.cachedTokens, statement.completionTokens];
        let ([prompt, cached, completion], used) = (before.map(count), used.map(count));
        if cached > prompt || used[1] > used[0] {
            return None;
        }
        let requests = count(statement.seq);
        let cost_before = prices.cost_of_any_up(requests.checked_sub(1)?, [prompt, cached, completion]);
        let [prompt, cached, completion] = self.ends();
        let cost_after = prices.cost_of_any_up(requests, [prompt, cached, completion]);
        // Costs grow with the counts.
        Some(cost_after.saturating_sub(cost_before))
    }

    /// Prompt, cached and completion tokens of the lane after the request.
    fn ends(&self) -> [u64; 3] {
        let statement = &self.statement;
        // Two counts of 48 bits each.
        let sum = |before: U48, used: U48| before.saturating_to::<u64>().saturating_add(used.saturating_to());
        [
            sum(statement.promptTokensBefore, statement.promptTokens),
            sum(statement.cachedTokensBefore, statement.cachedTokens),
            sum(statement.completionTokensBefore, statement.completionTokens),
        ]
    }

    /// Whether both cannot be true: two accounts of one request, or one that does not go on where the one before it ended.
    pub(super) fn contradicts(&self, digests: [StatementDigest; 2], second: &Self) -> bool {
        let (a, b) = (&self.statement, &second.statement);
        let [first_digest, second_digest] = digests;
        let same_lane = (a.leaseId, a.channelId, a.lane) == (b.leaseId, b.channelId, b.lane);
        if !same_lane || first_digest == second_digest {
            return false;
        }
        let [before, next] = [a.seq, b.seq].map(|number: U48| number.saturating_to::<u64>());
        if before == next {
            return true;
        }
        let first_ends = self.ends();
        let begins = [b.promptTokensBefore, b.cachedTokensBefore, b.completionTokensBefore];
        let follows = b.previous == B256::from(first_digest)
            && first_ends == begins.map(|count: U48| count.saturating_to::<u64>());
        before.checked_add(1) == Some(next) && !follows
    }

    /// The request that this is an account of.
    pub(super) fn request(&self) -> Request {
        Request {
            lease: self.lease(),
            channel: self.statement.channelId.into(),
            lane: Lane::new(self.statement.lane),
            sequence: self.statement.seq.saturating_to(),
        }
    }
}
