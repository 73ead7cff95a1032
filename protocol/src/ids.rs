//! Identifiers. A digest or an index is parsed once, where it enters the program, and keeps its type from there on.

use std::{fmt, str::FromStr};

use alloy_primitives::B256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `0x` followed by 64 hexadecimal digits.
    #[error("{kind} {text:?} is not 0x followed by 64 hexadecimal digits")]
    NotHex {
        /// The identifier's type.
        kind: &'static str,
        /// The first characters of what was given.
        text: String,
    },
}

/// Keeps error messages readable when a whole file was passed as an identifier.
const SHOWN_CHARACTERS: usize = 80;

fn parse_word(kind: &'static str, text: &str) -> Result<B256, IdError> {
    let not_hex = || IdError::NotHex { kind, text: text.chars().take(SHOWN_CHARACTERS).collect() };
    let digits = text.strip_prefix("0x").ok_or_else(not_hex)?;
    // A second prefix would pass the parser below, and two texts would name one identifier.
    if digits.starts_with("0x") {
        return Err(not_hex());
    }
    digits.parse().map_err(|_| not_hex())
}

macro_rules! word {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(B256);

        impl $name {
            /// Takes the 32 bytes as they are.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(B256::new(bytes))
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }

            /// The same bytes as a chain word.
            pub const fn word(&self) -> B256 {
                self.0
            }
        }

        impl From<B256> for $name {
            fn from(word: B256) -> Self {
                Self(word)
            }
        }

        impl From<$name> for B256 {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // The alternate form writes the prefix; plain `Display` of a word may be shortened.
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_word(stringify!($name), text).map(Self)
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

word! {
    /// Digest over a model's weights, tokenizer, chat template and configuration.
    ManifestDigest;
    /// Digest over what decides a model's token ids.
    TokenizerDigest;
    /// Root of tree K: keys and candidate lists, committed before the draw.
    CommitmentRoot;
    /// Root of tree L: the same leaves with the drawn candidates, committed after the draw.
    SetRoot;
    /// Public randomness from after the commitment: it draws the responses and fixes the order of queries.
    Beacon;
    /// Digest of a proof bundle's canonical JSON.
    BundleDigest;
    /// A model: the number of the ERC-721 token that owns the rights to it, big-endian.
    ModelId;
    /// One immutable version of a model's licence: the EIP-712 digest of its terms.
    TermsId;
    /// An escrow relation from one payer to one host in one token: the EIP-712 digest of its channel.
    ChannelId;
    /// EIP-712 digest of a lease as it was opened.
    LeaseDigest;
    /// EIP-712 digest of a payer's permission for a session key.
    GrantDigest;
    /// EIP-712 digest of a voucher.
    VoucherDigest;
    /// EIP-712 digest of a host's account of one request.
    StatementDigest;
    /// EIP-712 digest of a host's report of one epoch.
    EpochCommitDigest;
    /// EIP-712 digest of a verdict: what validators sign.
    VerdictDigest;
    /// Digest of the recipients of a royalty.
    SplitRoot;
    /// Digest of a chat template.
    TemplateDigest;
    /// Digest of a licence's legal text.
    LegalTextDigest;
    /// 32 bytes whose meaning depends on where they stand.
    Word;
}

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident($integer:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($integer);

        impl $name {
            /// Wraps the number; bounds are checked where the index is used.
            pub const fn new(index: $integer) -> Self {
                Self(index)
            }

            /// The number.
            pub const fn get(self) -> $integer {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

index! {
    /// Number of a fingerprint within its set, from 0.
    LeafIndex(u32);
    /// Number of a candidate within its key's list, from 0.
    CandidateIndex(u16);
    /// Whose copy a draw is for.
    Tenant(u32);
    /// A chain, by EIP-155.
    ChainId(u64);
    /// A host's right to serve under one version of the terms, from 1.
    LeaseId(u64);
    /// One of a channel's streams of payments. It belongs to the lease of its first claim.
    Lane(u64);
    /// One audit, from 1.
    TaskId(u64);
    /// A stretch of time that a lease reports on.
    Epoch(u64);
    /// A version of a model's terms, from 1.
    TermsVersion(u32);
}

impl Tenant {
    /// The draw that every copy of the model shares.
    pub const SHARED: Self = Self(0);
}

impl LeafIndex {
    /// For indexing slices.
    pub fn as_usize(self) -> usize {
        // A `usize` has at least 32 bits on every target with an operating system; a smaller one fails every lookup.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl CandidateIndex {
    /// For indexing slices.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "0x00ff000000000000000000000000000000000000000000000000000000000abc";

    proptest! {
        #[test]
        fn text_and_json_round_trip(bytes: [u8; 32]) {
            let beacon = Beacon::from_bytes(bytes);
            prop_assert_eq!(beacon.to_string().parse::<Beacon>().unwrap(), beacon);
            let json = serde_json::to_string(&beacon).unwrap();
            prop_assert_eq!(&json, &format!("\"{beacon}\""));
            prop_assert_eq!(serde_json::from_str::<Beacon>(&json).unwrap(), beacon);
            prop_assert_eq!(beacon.as_bytes(), &bytes);
        }
    }

    #[test]
    fn display_is_complete_hexadecimal_and_debug_names_the_type() {
        let root: SetRoot = TEXT.parse().unwrap();
        assert_eq!(root.to_string(), TEXT);
        assert_eq!(format!("{root:?}"), format!("SetRoot({TEXT})"));
    }

    #[test]
    fn anything_but_a_prefixed_word_is_refused() {
        for text in
            ["", "0x", &TEXT[2..], &TEXT[..65], &format!("{TEXT}0"), &format!("0x{TEXT}"), &TEXT.replace('a', "g")]
        {
            let error = text.parse::<Beacon>().unwrap_err();
            assert_eq!(error, IdError::NotHex { kind: "Beacon", text: text.to_owned() }, "{text}");
        }
        assert!(serde_json::from_str::<Beacon>("7").is_err());
    }

    #[test]
    fn indices_are_plain_numbers_in_json() {
        assert_eq!(serde_json::to_string(&LeafIndex::new(7)).unwrap(), "7");
        assert_eq!(serde_json::from_str::<CandidateIndex>("15").unwrap(), CandidateIndex::new(15));
        assert!(serde_json::from_str::<CandidateIndex>("65536").is_err());
        assert!(serde_json::from_str::<LeafIndex>("-1").is_err());
    }
}
