//! Quantities with their units. Arithmetic is checked: a sum that does not fit is an answer, not a wrap.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::{
    amount::{Amount, PricePerMillion, StakeWeight},
    time::{Seconds, UnixMilliseconds, UnixSeconds},
};

mod amount;
mod time;

/// Why a number is not the quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// More than the whole.
    #[error("{value} basis points are more than 10000")]
    BasisPoints {
        /// What was given.
        value: u16,
    },
    /// Other counts would bias the draw, or make it worthless.
    #[error("{value} candidates are not a power of two from 2 to 1024")]
    CandidateCount {
        /// What was given.
        value: u16,
    },
    /// Not a decimal number below 2^128 in its shortest form.
    #[error("{text:?} is not a whole number from 0 to 2^128 - 1 in decimal digits")]
    Quantity {
        /// The first characters of what was given.
        text: String,
    },
}

/// A number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenCount(u64);

impl TokenCount {
    /// No token.
    pub const ZERO: Self = Self(0);

    /// Wraps the number.
    pub const fn new(tokens: u64) -> Self {
        Self(tokens)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or `None` when it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(tokens) => Some(Self(tokens)),
            None => None,
        }
    }

    /// The difference, or `None` when `other` is larger.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(tokens) => Some(Self(tokens)),
            None => None,
        }
    }
}

impl fmt::Display for TokenCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A share of one whole in ten-thousandths, at most the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// No share.
    pub const NOTHING: Self = Self(0);
    /// The whole.
    pub const WHOLE: Self = Self(10_000);

    /// Refuses more than the whole.
    pub const fn new(value: u16) -> Result<Self, UnitError> {
        if value <= Self::WHOLE.0 { Ok(Self(value)) } else { Err(UnitError::BasisPoints { value }) }
    }

    /// A share that is known when this is compiled. More than the whole does not compile.
    pub(crate) const fn constant<const VALUE: u16>() -> Self {
        const { assert!(VALUE <= Self::WHOLE.0, "a share is at most the whole") };
        Self(VALUE)
    }

    /// The number of ten-thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The share as a fraction from 0 to 1, for probabilities; never for money.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }

    /// This share of an amount, rounded down.
    pub fn share_down(self, amount: Amount) -> Amount {
        let share = u128::from(self.0);
        // The quotient's part and the remainder's part by themselves, so that nothing passes 128 bits: a share is at
        // most the whole, therefore the sum is at most the amount, and nothing saturates.
        let (quotient, remainder) = (amount.get() / 10_000, amount.get() % 10_000);
        Amount::new(quotient.saturating_mul(share).saturating_add(remainder.saturating_mul(share) / 10_000))
    }

    /// The sum, or `None` when it is more than the whole.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(value) if value <= Self::WHOLE.0 => Some(Self(value)),
            _ => None,
        }
    }
}

impl TryFrom<u16> for BasisPoints {
    type Error = UnitError;

    fn try_from(value: u16) -> Result<Self, UnitError> {
        Self::new(value)
    }
}

impl From<BasisPoints> for u16 {
    fn from(share: BasisPoints) -> Self {
        share.0
    }
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bp", self.0)
    }
}

/// Candidates of one key, `k` in the papers: a power of two from 2 to 1024, so that a digest modulo `k` is uniform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct CandidateCount(u16);

impl CandidateCount {
    /// The usual number.
    pub const DEFAULT: Self = Self(16);
    /// The largest number.
    pub const MAX: Self = Self(1024);

    /// Refuses what is not a power of two from 2 to 1024.
    pub const fn new(value: u16) -> Result<Self, UnitError> {
        if value.is_power_of_two() && value >= 2 && value <= Self::MAX.0 {
            Ok(Self(value))
        } else {
            Err(UnitError::CandidateCount { value })
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// For comparing with the length of a list.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }

    /// The low bits that number the candidates: `k - 1`.
    pub const fn mask(self) -> u16 {
        // At least 2, so this does not wrap.
        self.0.wrapping_sub(1)
    }
}

impl TryFrom<u16> for CandidateCount {
    type Error = UnitError;

    fn try_from(value: u16) -> Result<Self, UnitError> {
        Self::new(value)
    }
}

impl From<CandidateCount> for u16 {
    fn from(count: CandidateCount) -> Self {
        count.0
    }
}

impl fmt::Display for CandidateCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn token_counts_add_and_subtract_or_say_that_they_cannot(a: u64, b: u64) {
            let (left, right) = (TokenCount::new(a), TokenCount::new(b));
            prop_assert_eq!(left.checked_add(right).map(TokenCount::get), a.checked_add(b));
            prop_assert_eq!(left.checked_sub(right).map(TokenCount::get), a.checked_sub(b));
        }

        #[test]
        fn basis_points_end_at_the_whole(value: u16) {
            prop_assert_eq!(BasisPoints::new(value).is_ok(), value <= 10_000);
            prop_assert_eq!(serde_json::from_str::<BasisPoints>(&value.to_string()).is_ok(), value <= 10_000);
        }

        #[test]
        fn a_share_is_the_product_rounded_down(amount: u128, share in 0_u16..=10_000) {
            let exact = alloy_primitives::U256::from(amount) * alloy_primitives::U256::from(share)
                / alloy_primitives::U256::from(10_000);
            let found = BasisPoints::new(share).unwrap().share_down(Amount::new(amount));
            prop_assert_eq!(alloy_primitives::U256::from(found.get()), exact);
        }

        #[test]
        fn shares_add_up_to_the_whole_at_most(a in 0_u16..=10_000, b in 0_u16..=10_000) {
            let sum = BasisPoints::new(a).unwrap().checked_add(BasisPoints::new(b).unwrap());
            prop_assert_eq!(sum.map(BasisPoints::get), (a + b <= 10_000).then_some(a + b));
        }
    }

    #[test]
    fn candidate_counts_are_powers_of_two() {
        let accepted: Vec<u16> = (0..=u16::MAX).filter(|&value| CandidateCount::new(value).is_ok()).collect();
        assert_eq!(accepted, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]);
        assert_eq!(CandidateCount::DEFAULT.mask(), 0b1111);
        assert!(serde_json::from_str::<CandidateCount>("12").is_err());
        assert_eq!(serde_json::to_string(&CandidateCount::DEFAULT).unwrap(), "16");
    }

    #[test]
    fn the_whole_share_is_all_of_it() {
        for amount in [0, 1, 9_999, 10_000, u128::MAX] {
            assert_eq!(BasisPoints::WHOLE.share_down(Amount::new(amount)).get(), amount);
            assert_eq!(BasisPoints::new(0).unwrap().share_down(Amount::new(amount)).get(), 0);
        }
    }

    #[test]
    fn basis_points_as_a_fraction() {
        assert_eq!(BasisPoints::new(8_000).unwrap().fraction(), 0.8);
    }
}
