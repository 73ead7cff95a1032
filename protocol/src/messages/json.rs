//! Messages as JSON: an object with Solidity's member names. Integers of up to 64 bits are numbers, larger ones decimal
//! strings, words and addresses hexadecimal strings. Unknown, missing and repeated members are refused.

use alloy_primitives::{Address, B256, U256, aliases::U48};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::wire;
use crate::units::Amount;

/// A member of a message, and what stands for it in JSON.
trait Member: Sized {
    type Json;

    fn to_json(&self) -> Self::Json;

    /// `None` when it does not fit.
    fn from_json(json: Self::Json) -> Option<Self>;
}

macro_rules! as_itself {
    ($($type:ty)*) => {$(
        impl Member for $type {
            type Json = Self;

            fn to_json(&self) -> Self {
                self.clone()
            }

            fn from_json(json: Self) -> Option<Self> {
                Some(json)
            }
        }
    )*};
}

as_itself! { u8 u16 u32 u64 Address String }

impl Member for B256 {
    type Json = crate::ids::Word;

    fn to_json(&self) -> Self::Json {
        (*self).into()
    }

    fn from_json(json: Self::Json) -> Option<Self> {
        Some(json.word())
    }
}

impl Member for u128 {
    type Json = Amount;

    fn to_json(&self) -> Amount {
        Amount::new(*self)
    }

    fn from_json(json: Amount) -> Option<Self> {
        Some(json.get())
    }
}

impl Member for U48 {
    type Json = u64;

    fn to_json(&self) -> u64 {
        // 48 bits fit.
        self.saturating_to()
    }

    fn from_json(json: u64) -> Option<Self> {
        Self::try_from(json).ok()
    }
}

impl Member for U256 {
    type Json = crate::ids::ModelId;

    fn to_json(&self) -> Self::Json {
        B256::from(*self).into()
    }

    fn from_json(json: Self::Json) -> Option<Self> {
        Some(super::number_of(json.word()))
    }
}

macro_rules! json {
    ($($name:ident { $($member:ident: $type:ty),* $(,)? })*) => {$(
        const _: () = {
            #[derive(Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            #[expect(non_snake_case, reason = "names of Solidity's members")]
            struct Object {
                $($member: <$type as Member>::Json,)*
            }

            impl Serialize for wire::$name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    Object { $($member: self.$member.to_json(),)* }.serialize(serializer)
                }
            }

            impl<'de> Deserialize<'de> for wire::$name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let object = Object::deserialize(deserializer)?;
                    let too_large = |member| de::Error::custom(format_args!("the {member} does not fit into its bits"));
                    Ok(Self {
                        $($member: Member::from_json(object.$member).ok_or_else(|| too_large(stringify!($member)))?,)*
                    })
                }
            }
        };
    )*};
}

json! {
    LicenseTerms {
        modelId: U256, version: u32, paymentToken: Address, royaltyBps: u16, floorRequest: u128, floorPrompt: u128,
        floorCached: u128, floorCompletion: u128, validatorBps: u16, splitRoot: B256, minBond: u128, minRestake: u128,
        validFrom: u64, validTo: u64, disputeWindow: u64, tokenizerDigest: B256, templateDigest: B256,
        legalTextDigest: B256,
    }
    Lease {
        leaseId: u64, termsId: B256, host: Address, leaseKey: Address, variantRoot: B256, endpoint: String,
        priceRequest: u128, pricePrompt: u128, priceCached: u128, priceCompletion: u128, from: u64, to: u64,
    }
    Channel { payer: Address, host: Address, token: Address, withdrawDelay: u64, salt: B256 }
    SessionGrant { channelId: B256, key: Address, cap: u128, perRequestCap: u128, expiresAt: u64, nonce: u64 }
    Voucher {
        channelId: B256, leaseId: u64, lane: u64, requests: U48, promptTokens: U48, cachedTokens: U48,
        completionTokens: U48, ceiling: u128, statementsHead: B256, expiresAt: u64,
    }
    Statement {
        channelId: B256, leaseId: u64, lane: u64, seq: U48, promptTokensBefore: U48, cachedTokensBefore: U48,
        completionTokensBefore: U48, promptTokens: U48, cachedTokens: U48, completionTokens: U48, charge: u128,
        requestHash: B256, responseHash: B256, startedMs: u64, endedMs: u64, finishReason: u8, execRoot: B256,
        previous: B256,
    }
    EpochCommit {
        leaseId: u64, epoch: u64, root: B256, requests: u64, promptTokens: u64, cachedTokens: u64,
        completionTokens: u64, charge: u128, previous: B256,
    }
    Verdict {
        taskId: u64, leaseId: u64, kind: u8, outcome: u8, eValueLog2: u32, evidenceRoot: B256, epoch: u64,
    }
}
