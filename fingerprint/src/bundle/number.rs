//! Fractions in a bundle are text: JSON numbers do not survive every reader bit for bit, and a bundle must.

use std::{fmt, str::FromStr};

use protocol::e_process::rounded;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A parameter as it was given, in the shortest form that reads back as the same number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exact(pub(crate) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:e}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = f64::from_str(&text).map_err(|_| D::Error::custom("not a number in text form"))?;
        if number.is_finite() { Ok(Self(number)) } else { Err(D::Error::custom("not a finite number")) }
    }
}

/// A computed number to the six decimals that are decided on, so that the last bits of another machine's logarithm do not
/// show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Rounded(String);

impl Rounded {
    pub(crate) fn new(number: f64) -> Self {
        let text = format!("{:.6}", rounded(number));
        // Both signs of zero are one number.
        Self(if text == "-0.000000" { "0.000000".to_owned() } else { text })
    }
}

impl fmt::Display for Rounded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_numbers_survive_and_nothing_else_is_read() {
        for number in [1e-6, 0.5, 1.0 / 3.0, 1e-300] {
            let json = serde_json::to_string(&Exact(number)).unwrap();
            assert_eq!(serde_json::from_str::<Exact>(&json).unwrap(), Exact(number), "{json}");
        }
        assert_eq!(serde_json::to_string(&Exact(1e-6)).unwrap(), "\"1e-6\"");
        for bad in ["\"NaN\"", "\"inf\"", "\"\"", "0.5", "\"a\""] {
            assert!(serde_json::from_str::<Exact>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rounded_zero_has_one_form() {
        assert_eq!(Rounded::new(-1e-9), Rounded::new(0.0));
        assert_eq!(Rounded::new(7.224_719_96).to_string(), "7.224720");
    }
}
