//! Answers that were made for a payer who did not take them.
//!
//! What is not delivered is on no bill, so whoever hangs up before an answer arrives has the host's work for nothing. Connections
//! break, and people change their minds, so some of it is forgiven; beyond that, nobody gets faster for nothing than for money.

use protocol::units::{Amount, UnixMilliseconds};

/// Answers that anybody may leave behind.
const FORGIVEN: u64 = 8;
/// Between two requests of a payer who left more behind than he paid for.
const PAUSE_MS: u64 = 60_000;

/// What a payer left behind since his account was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Untaken {
    answers: u64,
    /// What they would have cost.
    cost: Amount,
    /// The newest request that was admitted although there was too much of it.
    admitted: Option<UnixMilliseconds>,
}

/// Too much was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyUntaken {
    /// Answers that were not taken.
    pub(crate) answers: u64,
    /// Until the next request is admitted.
    pub(crate) retry_after_s: u64,
}

impl Untaken {
    /// One more, which would have cost so much.
    pub(crate) fn note(&mut self, cost: Amount) {
        self.answers = self.answers.saturating_add(1);
        self.cost = self.cost.checked_add(cost).unwrap_or(Amount::MAX);
    }

    /// Admits a request of a payer who was charged so much in all: at any time if that is as much as he left behind, else now and
    /// then.
    pub(crate) fn admit(&mut self, charged: Amount, now: UnixMilliseconds) -> Result<(), TooManyUntaken> {
        if self.answers < FORGIVEN || self.cost <= charged {
            return Ok(());
        }
        // A clock that was set back makes nobody wait longer than the pause.
        let waited = self.admitted.map_or(PAUSE_MS, |admitted| now.get().abs_diff(admitted.get()));
        if let Some(left) = PAUSE_MS.checked_sub(waited).filter(|left| *left > 0) {
            return Err(TooManyUntaken { answers: self.answers, retry_after_s: left.div_ceil(1_000) });
        }
        self.admitted = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> UnixMilliseconds {
        UnixMilliseconds::new(1_000_000 + seconds * 1_000)
    }

    fn left_behind(answers: u64) -> Untaken {
        let mut untaken = Untaken::default();
        for _ in 0..answers {
            untaken.note(Amount::new(10));
        }
        untaken
    }

    #[test]
    fn a_few_are_forgiven() {
        let mut untaken = left_behind(FORGIVEN - 1);
        for second in 0..100 {
            assert_eq!(untaken.admit(Amount::ZERO, at(second)), Ok(()));
        }
    }

    #[test]
    fn beyond_that_requests_come_seldom_until_they_are_paid_for() {
        let mut untaken = left_behind(FORGIVEN);
        assert_eq!(untaken.admit(Amount::new(79), at(0)), Ok(()));
        let refused = |seconds| Err(TooManyUntaken { answers: FORGIVEN, retry_after_s: seconds });
        assert_eq!(untaken.admit(Amount::new(79), at(0)), refused(60));
        assert_eq!(untaken.admit(Amount::new(79), at(59)), refused(1));
        assert_eq!(untaken.admit(Amount::new(79), at(60)), Ok(()));
        assert_eq!(untaken.admit(Amount::new(79), at(61)), refused(59));
        assert_eq!(untaken.admit(Amount::new(80), at(61)), Ok(()));
        assert_eq!(untaken.admit(Amount::new(80), at(61)), Ok(()));
        untaken.note(Amount::new(1));
        assert!(untaken.admit(Amount::new(80), at(62)).is_err());
    }

    #[test]
    fn nobody_waits_for_a_clock_that_was_set_back() {
        let mut untaken = left_behind(FORGIVEN);
        assert_eq!(untaken.admit(Amount::ZERO, at(100_000)), Ok(()));
        assert_eq!(untaken.admit(Amount::ZERO, at(0)), Ok(()));
    }

    #[test]
    fn what_costs_nothing_is_nobody_s_loss() {
        let mut untaken = Untaken::default();
        for _ in 0..100 {
            untaken.note(Amount::ZERO);
        }
        assert_eq!(untaken.admit(Amount::ZERO, at(0)), Ok(()));
        assert_eq!(untaken.admit(Amount::ZERO, at(0)), Ok(()));
    }

    #[test]
    fn sums_that_do_not_fit_are_as_good_as_the_largest() {
        let mut untaken = left_behind(FORGIVEN);
        untaken.note(Amount::MAX);
        untaken.note(Amount::MAX);
        assert_eq!(untaken.admit(Amount::ZERO, at(0)), Ok(()));
        assert!(untaken.admit(Amount::ZERO, at(0)).is_err());
    }
}
