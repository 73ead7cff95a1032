//! Money, prices and stake: 128-bit integers, of which no two kinds can be mixed up.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::UnitError;

macro_rules! quantity {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// As text and in JSON it is a string of decimal digits: JSON numbers lose digits above 2^53 in many readers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);
            /// The largest that there is.
            pub const MAX: Self = Self(u128::MAX);

            /// Wraps the number.
            pub const fn new(value: u128) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> u128 {
                self.0
            }

            /// The sum, or `None` when it does not fit.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The difference, or `None` when `other` is larger.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The difference, or nothing when `other` is larger.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

quantity! {
    /// Money, in the smallest unit of its token.
    Amount;
    /// Money for a million tokens or requests, in the smallest unit of its token.
    PricePerMillion;
    /// What an operator's vote weighs: restaked shares.
    StakeWeight;
}

/// Keeps error messages readable.
const SHOWN_CHARACTERS: usize = 80;

/// One value has one text: no sign, no leading zero, nothing around it.
fn parse(text: &str) -> Result<u128, UnitError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || !text.starts_with('0');
    // Digits alone fail to parse only when there are too many of them.
    let value = if digits && shortest { text.parse().ok() } else { None };
    value.ok_or_else(|| UnitError::Quantity { text: text.chars().take(SHOWN_CHARACTERS).collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_json_round_trip(value: u128) {
            let amount = Amount::new(value);
            prop_assert_eq!(amount.to_string(), value.to_string());
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(&json, &format!("\"{value}\""));
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        }

        #[test]
        fn arithmetic_says_when_it_does_not_fit(a: u128, b: u128) {
            let (left, right) = (StakeWeight::new(a), StakeWeight::new(b));
            prop_assert_eq!(left.checked_add(right).map(StakeWeight::get), a.checked_add(b));
            prop_assert_eq!(left.checked_sub(right).map(StakeWeight::get), a.checked_sub(b));
            prop_assert_eq!(left.saturating_sub(right).get(), a.saturating_sub(b));
        }

        #[test]
        fn one_value_has_one_text(text in "[+-]?0{0,2}[0-9]{0,3}[ _.]?") {
            let canonical = text.parse::<u128>().is_ok_and(|value| value.to_string() == text);
            prop_assert_eq!(text.parse::<PricePerMillion>().is_ok(), canonical, "{}", text);
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let largest = u128::MAX.to_string();
        assert_eq!(largest.parse(), Ok(Amount::MAX));
        let larger = "340282366920938463463374607431768211456";
        for text in ["", "-1", "+1", "00", "01", "1.0", "1e3", "0x10", " 1", "1 ", "٣", larger] {
            assert_eq!(text.parse::<Amount>(), Err(UnitError::Quantity { text: text.to_owned() }), "{text}");
        }
        assert!(serde_json::from_str::<Amount>("7").is_err(), "a JSON number may have been rounded");
        let UnitError::Quantity { text } = "9".repeat(5_000).parse::<Amount>().unwrap_err() else { panic!() };
        assert_eq!(text.len(), SHOWN_CHARACTERS);
    }
}
