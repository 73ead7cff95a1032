//! Quantities with their units. Arithmetic is checked: a sum that does not fit is an answer, not a wrap.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// The whole.
    pub const WHOLE: Self = Self(10_000);

    /// Refuses more than the whole.
    pub const fn new(value: u16) -> Result<Self, UnitError> {
        if value <= Self::WHOLE.0 { Ok(Self(value)) } else { Err(UnitError::BasisPoints { value }) }
    }

    /// The number of ten-thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The share as a fraction from 0 to 1, for probabilities; never for money.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
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
    fn basis_points_as_a_fraction() {
        assert_eq!(BasisPoints::new(8_000).unwrap().fraction(), 0.8);
    }
}
