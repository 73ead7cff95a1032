//! What a transaction may cost.

use alloy::providers::{
    Provider,
    utils::{Eip1559Estimation, Eip1559Estimator, eip1559_default_estimator},
};

use super::{ChainClient, ChainError, rpc};

/// The gas policy.
#[derive(Clone, Debug)]
pub struct FeePolicy {
    /// Most wei for a unit of gas, tip included.
    pub max_fee_per_gas: u128,
    /// Gas above the estimate, in percent: the state may have changed when the transaction is mined.
    pub gas_margin_percent: u64,
}

impl Default for FeePolicy {
    fn default() -> Self {
        Self { max_fee_per_gas: 500_000_000_000, gas_margin_percent: 20 }
    }
}

/// The usual offer (EIP-1559): a tip as others paid it, and room for a base fee that doubles.
fn estimator() -> Eip1559Estimator {
    Eip1559Estimator::new(|base_fee: u128, rewards: &[Vec<u128>]| {
        let tip = eip1559_default_estimator(0, rewards).max_priority_fee_per_gas;
        Eip1559Estimation {
            max_fee_per_gas: base_fee.saturating_mul(2).saturating_add(tip),
            max_priority_fee_per_gas: tip,
        }
    })
}

impl FeePolicy {
    /// What to offer now, or an error if less would have to be offered than is paid now.
    pub(super) async fn offer(&self, chain: &ChainClient) -> Result<Eip1559Estimation, ChainError> {
        let fees = chain.provider().estimate_eip1559_fees_with(estimator()).await.map_err(rpc("estimate fees"))?;
        self.capped(fees)
    }

    fn capped(&self, fees: Eip1559Estimation) -> Result<Eip1559Estimation, ChainError> {
        let tip = fees.max_priority_fee_per_gas;
        let base_fee = fees.max_fee_per_gas.saturating_sub(tip) / 2;
        // The room for a doubled base fee is given up first; what would be paid now is not.
        self.check(base_fee.saturating_add(tip))?;
        Ok(Eip1559Estimation { max_fee_per_gas: fees.max_fee_per_gas.min(self.max_fee_per_gas), ..fees })
    }

    /// A better offer for a transaction that is not mined. Nodes want a tenth more of both fees; an eighth leaves room for
    /// rounding.
    pub(super) fn raise(
        &self,
        last: Eip1559Estimation,
        now: Eip1559Estimation,
    ) -> Result<Eip1559Estimation, ChainError> {
        let more = |fee: u128| fee.saturating_add((fee / 8).max(1));
        let raised = Eip1559Estimation {
            max_fee_per_gas: more(last.max_fee_per_gas).max(now.max_fee_per_gas),
            max_priority_fee_per_gas: more(last.max_priority_fee_per_gas).max(now.max_priority_fee_per_gas),
        };
        self.check(raised.max_fee_per_gas)?;
        Ok(raised)
    }

    /// Gas to allow for an estimate.
    pub(super) const fn gas_limit(&self, estimate: u64) -> u64 {
        estimate.saturating_add(estimate.saturating_mul(self.gas_margin_percent) / 100)
    }

    const fn check(&self, asked: u128) -> Result<(), ChainError> {
        if asked <= self.max_fee_per_gas {
            Ok(())
        } else {
            Err(ChainError::FeeTooHigh { asked, limit: self.max_fee_per_gas })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fees(max: u128, tip: u128) -> Eip1559Estimation {
        Eip1559Estimation { max_fee_per_gas: max, max_priority_fee_per_gas: tip }
    }

    #[test]
    fn a_raised_offer_is_accepted_as_a_replacement_by_nodes() {
        let policy = FeePolicy { max_fee_per_gas: 1_000_000, ..FeePolicy::default() };
        for (max, tip) in [(1, 1), (7, 0), (100, 10), (800_000, 3)] {
            let raised = policy.raise(fees(max, tip), fees(0, 0)).unwrap();
            assert!(raised.max_fee_per_gas * 10 >= max * 11, "{raised:?}");
            assert!(raised.max_priority_fee_per_gas * 10 >= tip * 11, "{raised:?}");
        }
        assert_eq!(policy.raise(fees(100, 10), fees(5_000, 70)).unwrap().max_fee_per_gas, 5_000);
        assert!(matches!(policy.raise(fees(999_999, 1), fees(0, 0)), Err(ChainError::FeeTooHigh { .. })));
    }

    #[test]
    fn an_offer_below_what_is_paid_now_is_refused_and_one_above_is_capped() {
        let policy = FeePolicy { max_fee_per_gas: 100, ..FeePolicy::default() };
        // Base fee 97 and tip 3 are the limit; the usual offer would be 197.
        assert_eq!(policy.capped(fees(197, 3)).unwrap(), fees(100, 3));
        assert_eq!(policy.capped(fees(23, 3)).unwrap(), fees(23, 3));
        let error = policy.capped(fees(199, 3)).unwrap_err();
        assert!(matches!(error, ChainError::FeeTooHigh { asked: 101, limit: 100 }), "{error}");
        assert!(policy.capped(fees(u128::MAX, 101)).is_err());
    }
}
