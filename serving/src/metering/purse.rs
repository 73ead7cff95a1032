//! Money under one limit: a channel's deposit, a session key's cap, a customer's budget.

use protocol::units::Amount;

/// What may still be spent. Everything that was promised and not yet settled is set aside, so that no number of requests at
/// once can spend more than there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purse {
    /// The most that may be spent in all; none: no limit.
    limit: Option<Amount>,
    /// Spent by others than this host's books know.
    elsewhere: Amount,
    /// Charged by statements.
    charged: Amount,
    /// Set aside for requests that run.
    reserved: Amount,
}

/// There is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short {
    /// What the request may cost.
    pub(crate) required: Amount,
    /// What is left.
    pub(crate) available: Amount,
}

impl Purse {
    /// A purse of which `charged` is spent.
    pub(crate) fn new(limit: Option<Amount>, charged: Amount) -> Self {
        Self { limit, charged, ..Self::default() }
    }

    /// Takes over what is known now of the limit and of what others spent.
    pub(crate) fn set_limit(&mut self, limit: Option<Amount>, elsewhere: Amount) {
        (self.limit, self.elsewhere) = (limit, elsewhere);
    }

    /// What may be spent by a request that comes now; none: anything.
    pub(crate) fn available(&self) -> Option<Amount> {
        let taken = [self.elsewhere, self.charged, self.reserved];
        self.limit.map(|limit| taken.into_iter().fold(limit, Amount::saturating_sub))
    }

    /// What was charged by statements.
    pub(crate) fn charged(&self) -> Amount {
        self.charged
    }

    /// Sets an amount aside.
    pub(crate) fn reserve(&mut self, required: Amount) -> Result<(), Short> {
        match self.available() {
            Some(available) if required > available => Err(Short { required, available }),
            _ => {
                // Below the limit, which is an amount; without a limit a sum that does not fit is as good as the largest.
                self.reserved = self.reserved.checked_add(required).unwrap_or(Amount::MAX);
                Ok(())
            }
        }
    }

    /// Gives back what was set aside, less the charge.
    pub(crate) fn settle(&mut self, reserved: Amount, charge: Amount) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.charged = self.charged.checked_add(charge).unwrap_or(Amount::MAX);
    }

    /// Whether a request runs on it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.reserved != Amount::ZERO
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(u64),
        /// Settles the n-th open reservation at a share of it, in 256ths.
        Settle(usize, u8),
        Limit(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..1_000_u64).prop_map(Step::Reserve),
            4 => (any::<usize>(), any::<u8>()).prop_map(|(n, share)| Step::Settle(n, share)),
            1 => (0..20_000_u64, 0..2_000_u64).prop_map(|(limit, elsewhere)| Step::Limit(limit, elsewhere)),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn what_is_spent_and_set_aside_never_passes_the_limit_at_which_it_was_admitted(steps in steps()) {
            let (mut limit, mut elsewhere) = (10_000, 0);
            let mut purse = Purse::new(Some(Amount::new(limit.into())), Amount::ZERO);
            let (mut open, mut charged) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Reserve(amount) => {
                        let admitted = purse.reserve(Amount::new(amount.into())).is_ok();
                        let held: u64 = open.iter().sum();
                        // Nothing can always be set aside, also where a lowered limit is passed already.
                        prop_assert_eq!(admitted, amount == 0 || elsewhere + charged + held + amount <= limit);
                        if admitted {
                            open.push(amount);
                        }
                    }
                    Step::Settle(n, share) if !open.is_empty() => {
                        let reserved = open.swap_remove(n % open.len());
                        let charge = reserved * u64::from(share) / 256;
                        charged += charge;
                        purse.settle(Amount::new(reserved.into()), Amount::new(charge.into()));
                    }
                    Step::Settle(..) => {}
                    Step::Limit(new, others) => {
                        (limit, elsewhere) = (new, others);
                        purse.set_limit(Some(Amount::new(new.into())), Amount::new(others.into()));
                    }
                }
                prop_assert_eq!(purse.charged.get(), u128::from(charged));
                prop_assert_eq!(purse.is_in_use(), open.iter().any(|amount| *amount > 0));
            }
        }
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let mut purse = Purse::new(None, Amount::ZERO);
        assert_eq!(purse.reserve(Amount::MAX), Ok(()));
        assert_eq!((purse.reserve(Amount::MAX), purse.available()), (Ok(()), None));
    }
}
