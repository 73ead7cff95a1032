//! Who shares a royalty with the creator: owners of parent models, contributors.

use std::slice;

use alloy_primitives::{Address, keccak256};
use alloy_sol_types::SolValue;
use serde::{Deserialize, Serialize};

use crate::{
    ids::SplitRoot,
    messages::wire,
    units::{Amount, BasisPoints},
};

/// Why a list of recipients is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Each recipient is paid in every claim.
    #[error("a royalty is shared by {} recipients at most, not {found}", Splits::MAX)]
    TooMany {
        /// Recipients given.
        found: usize,
    },
    /// Money to nobody would be lost.
    #[error("a share of {share} goes to the zero address")]
    NoRecipient {
        /// The share.
        share: BasisPoints,
    },
    /// A recipient of nothing.
    #[error("{recipient} gets a share of nothing")]
    NoShare {
        /// The recipient.
        recipient: Address,
    },
    /// More than the royalty.
    #[error("the shares of the recipients are more than the whole royalty")]
    ExceedWhole,
}

/// One recipient of a part of the royalty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Who is paid.
    pub recipient: Address,
    /// Which share of the royalty.
    #[serde(rename = "bps")]
    pub share: BasisPoints,
}

/// The recipients of a royalty in their order, as `ModelRegistry` accepts them; the creator takes what they leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Split>", into = "Vec<Split>")]
pub struct Splits(Vec<Split>);

impl Splits {
    /// Most recipients of one royalty.
    pub const MAX: usize = 8;

    /// Refuses more than [`Self::MAX`] recipients, the zero address, shares of nothing, and more than the whole.
    pub fn new(splits: Vec<Split>) -> Result<Self, SplitError> {
        if splits.len() > Self::MAX {
            return Err(SplitError::TooMany { found: splits.len() });
        }
        let mut whole = BasisPoints::NOTHING;
        for &Split { recipient, share } in &splits {
            if recipient.is_zero() {
                return Err(SplitError::NoRecipient { share });
            }
            if share == BasisPoints::NOTHING {
                return Err(SplitError::NoShare { recipient });
            }
            whole = whole.checked_add(share).ok_or(SplitError::ExceedWhole)?;
        }
        Ok(Self(splits))
    }

    /// What the terms commit to: `keccak256(abi.encode(splits))`, or `None`, which is 0 there, for the creator alone.
    pub fn root(&self) -> Option<SplitRoot> {
        if self.0.is_empty() {
            return None;
        }
        let encoded: Vec<wire::Split> =
            self.iter().map(|split| wire::Split { recipient: split.recipient, bps: split.share.get() }).collect();
        Some(keccak256(encoded.abi_encode()).into())
    }

    /// What each recipient gets of a royalty, rounded down, in their order; and what is left for the creator. Together
    /// they are the royalty exactly.
    pub fn divide_down(&self, royalty: Amount) -> (Vec<(Address, Amount)>, Amount) {
        let mut left = royalty;
        let parts = self.iter().map(|split| {
            let part = split.share.share_down(royalty);
            // The shares are at most the whole, so there is always enough left.
            left = left.saturating_sub(part);
            (split.recipient, part)
        });
        let parts = parts.collect();
        (parts, left)
    }

    /// The recipients.
    pub fn iter(&self) -> slice::Iter<'_, Split> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Splits {
    type Item = &'a Split;
    type IntoIter = slice::Iter<'a, Split>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl TryFrom<Vec<Split>> for Splits {
    type Error = SplitError;

    fn try_from(splits: Vec<Split>) -> Result<Self, SplitError> {
        Self::new(splits)
    }
}

impl From<Splits> for Vec<Split> {
    fn from(splits: Splits) -> Self {
        splits.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split() -> impl Strategy<Value = Split> {
        (0_u8..4, prop_oneof![0_u16..4, 0_u16..=10_000]).prop_map(|(recipient, share)| Split {
            recipient: Address::repeat_byte(recipient),
            share: BasisPoints::new(share).unwrap(),
        })
    }

    proptest! {
        #[test]
        fn a_list_is_accepted_exactly_when_every_rule_holds(splits in prop::collection::vec(split(), 0..10)) {
            let whole: u32 = splits.iter().map(|split| u32::from(split.share.get())).sum();
            let good = splits.len() <= 8 && whole <= 10_000
                && splits.iter().all(|split| !split.recipient.is_zero() && split.share.get() != 0);
            prop_assert_eq!(Splits::new(splits.clone()).is_ok(), good);
            let json = serde_json::to_string(&splits).unwrap();
            prop_assert_eq!(serde_json::from_str::<Splits>(&json).is_ok(), good);
        }

        #[test]
        fn parts_and_the_creators_rest_are_the_royalty(shares in prop::collection::vec(1_u16..=1_250, 0..8), royalty: u128) {
            let splits = shares.into_iter().zip(1_u8..).map(|(share, recipient)| Split {
                recipient: Address::repeat_byte(recipient),
                share: BasisPoints::new(share).unwrap(),
            });
            let splits = Splits::new(splits.collect()).unwrap();
            let (parts, creator) = splits.divide_down(Amount::new(royalty));
            let paid: u128 = parts.iter().map(|(_, part)| part.get()).sum();
            prop_assert_eq!(paid + creator.get(), royalty);
            for (split, (recipient, part)) in splits.iter().zip(&parts) {
                prop_assert_eq!((split.recipient, split.share.share_down(Amount::new(royalty))), (*recipient, *part));
            }
        }
    }

    #[test]
    fn each_rule_has_its_own_error() {
        let bps = |value| BasisPoints::new(value).unwrap();
        let split = |byte, share| Split { recipient: Address::repeat_byte(byte), share: bps(share) };
        assert_eq!(Splits::new(vec![split(1, 1); 9]), Err(SplitError::TooMany { found: 9 }));
        assert_eq!(Splits::new(vec![split(1, 1), split(0, 5)]), Err(SplitError::NoRecipient { share: bps(5) }));
        assert_eq!(Splits::new(vec![split(1, 0)]), Err(SplitError::NoShare { recipient: Address::repeat_byte(1) }));
        assert_eq!(Splits::new(vec![split(1, 9_999), split(2, 2)]), Err(SplitError::ExceedWhole));
        assert!(Splits::new(vec![split(1, 1_250); 8]).is_ok());
    }

    #[test]
    fn the_order_of_recipients_changes_the_root_and_none_have_none() {
        let split = |byte| Split { recipient: Address::repeat_byte(byte), share: BasisPoints::new(100).unwrap() };
        let one = Splits::new(vec![split(1), split(2)]).unwrap();
        let other = Splits::new(vec![split(2), split(1)]).unwrap();
        assert_ne!(one.root(), other.root());
        assert_eq!(Splits::default().root(), None);
    }
}
