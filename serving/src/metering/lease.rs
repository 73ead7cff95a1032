//! A lease that this host serves under.

use protocol::{
    Address,
    counts::{CountError, LaneStep, RequestUsage, UsageCounts},
    ids::{LeaseId, StatementDigest},
    messages::{Domain, LeaseManager, Message as _, Signed, Statement},
    money::{MoneyError, Prices},
    signature::SigningKey,
    units::Amount,
};

/// What never changes about a lease, and the key that signs its statements.
pub struct ServedLease {
    /// The lease.
    pub id: LeaseId,
    /// Whose it is.
    pub host: Address,
    /// What is paid in.
    pub token: Address,
    /// What is charged.
    pub prices: Prices,
    /// Signs statements.
    pub key: SigningKey,
    /// Under which statements are signed.
    pub domain: Domain<LeaseManager>,
}

impl std::fmt::Debug for ServedLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedLease").field("id", &self.id).field("host", &self.host).finish_non_exhaustive()
    }
}

/// Counts or costs that do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PricingError {
    /// A lane has no room for the request.
    #[error(transparent)]
    Counts(#[from] CountError),
    /// The cost has more than 128 bits.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl ServedLease {
    /// What a request may cost beyond `before` at most: every completion token that it asks for, nothing cached.
    pub(crate) fn worst_case(&self, before: UsageCounts, prompt: u64, completion: u64) -> Result<Amount, PricingError> {
        let step = LaneStep::new(before, RequestUsage::new(prompt, 0, completion)?)?;
        Ok(self.prices.charge(step.before(), step.after())?)
    }

    /// The most completion tokens, up to `wanted`, that an amount pays for on top of the prompt; `None` if not even one.
    pub(crate) fn affordable(&self, before: UsageCounts, prompt: u64, wanted: u64, amount: Amount) -> Option<u64> {
        let fits = |completion| self.worst_case(before, prompt, completion).is_ok_and(|cost| cost <= amount);
        if fits(wanted) {
            return Some(wanted);
        }
        let (mut fitting, mut too_many) = (1, wanted);
        if !fits(fitting) {
            return None;
        }
        while too_many.saturating_sub(fitting) > 1 {
            let middle = fitting.midpoint(too_many);
            if fits(middle) { fitting = middle } else { too_many = middle }
        }
        Some(fitting)
    }

    /// Signs a statement.
    pub(crate) fn sign(&self, statement: Statement) -> (StatementDigest, Signed<Statement>) {
        let digest = statement.digest(&self.domain);
        (digest, Signed::sign(statement, &self.domain, &self.key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{ids::ChainId, units::PricePerMillion};

    use super::*;

    fn lease(request: u128, prompt: u128, completion: u128) -> ServedLease {
        let price = PricePerMillion::new;
        ServedLease {
            id: LeaseId::new(1),
            host: Address::ZERO,
            token: Address::ZERO,
            prices: Prices {
                request: price(request),
                prompt: price(prompt),
                cached: price(prompt / 2),
                completion: price(completion),
            },
            key: SigningKey::from_bytes(&[1; 32]).unwrap(),
            domain: Domain::new(ChainId::new(1), Address::ZERO),
        }
    }

    proptest! {
        #[test]
        fn affordable_is_the_most_that_fits(
            request in 0..10_000_000_u128, prompt in 0..100_000_000_u128, completion in 0..100_000_000_u128,
            used in 0..1_000_u64, tokens in 1..500_u64, wanted in 1..5_000_u64, amount in 0..200_000_u128,
        ) {
            let lease = lease(request, prompt, completion);
            let before = UsageCounts::new(used, used * 3, used, used * 2).unwrap();
            let cost = |completion| lease.worst_case(before, tokens, completion).unwrap().get();
            match lease.affordable(before, tokens, wanted, Amount::new(amount)) {
                Some(most) => {
                    prop_assert!((1..=wanted).contains(&most) && cost(most) <= amount);
                    prop_assert!(most == wanted || cost(most + 1) > amount);
                }
                None => prop_assert!(cost(1) > amount),
            }
        }

        #[test]
        fn nothing_that_is_delivered_costs_more_than_the_worst_case(
            prices in [0..u128::MAX >> 64, 0..u128::MAX >> 64, 0..u128::MAX >> 64],
            used in 0..1_000_u64, prompt in 1..500_u64, most in 1..500_u64, cached: u64, completion: u64,
        ) {
            let lease = lease(prices[0], prices[1], prices[2]);
            let before = UsageCounts::new(used, used * 3, used, used * 2).unwrap();
            let usage = RequestUsage::new(prompt, cached % (prompt + 1), completion % (most + 1)).unwrap();
            let step = LaneStep::new(before, usage).unwrap();
            let charge = lease.prices.charge(step.before(), step.after()).unwrap();
            prop_assert!(charge <= lease.worst_case(before, prompt, most).unwrap());
        }
    }
}
