//! Parameters of a request, parsed one by one into what a method needs.

use std::fmt;

use alloy::eips::{BlockId, BlockNumberOrTag};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, Unexpected, Visitor},
};
use serde_json::value::RawValue;

use crate::devchain::{
    block::Block,
    chain::{Chain, REORG_DEPTH, SAFE_DEPTH},
    error::RpcError,
};

#[derive(Debug)]
pub(super) struct Params<'a>(Vec<&'a RawValue>);

/// The one method whose parameters clients also send by name.
#[derive(Deserialize)]
struct NamedReorg<'a> {
    #[serde(borrow)]
    depth: &'a RawValue,
    #[serde(borrow, default, alias = "txBlockPairs")]
    tx_block_pairs: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    pub(super) fn parse(method: &str, params: Option<&'a RawValue>) -> Result<Self, RpcError> {
        let text = params.map_or("[]", RawValue::get);
        if method == "anvil_reorg" && text.starts_with('{') {
            let named: NamedReorg<'a> = serde_json::from_str(text).map_err(RpcError::ParamsShape)?;
            return Ok(Self([Some(named.depth), named.tx_block_pairs].into_iter().flatten().collect()));
        }
        let list: Option<Vec<&'a RawValue>> = serde_json::from_str(text).map_err(RpcError::ParamsShape)?;
        Ok(Self(list.unwrap_or_default()))
    }

    pub(super) fn required<T: DeserializeOwned>(&self, position: usize, name: &'static str) -> Result<T, RpcError> {
        self.optional(position, name)?.ok_or(RpcError::MissingParam { position, name })
    }

    /// `null` counts as absent.
    pub(super) fn optional<T: DeserializeOwned>(
        &self,
        position: usize,
        name: &'static str,
    ) -> Result<Option<T>, RpcError> {
        let Some(value) = self.0.get(position) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|source| RpcError::Param { position, name, source })
    }

    pub(super) fn number(&self, position: usize, name: &'static str) -> Result<u64, RpcError> {
        self.required::<Quantity>(position, name).map(|quantity| quantity.0)
    }

    /// Refuses what is understood elsewhere and ignored here.
    pub(super) fn refuse(&self, position: usize, name: &'static str) -> Result<(), RpcError> {
        match self.0.get(position).map(|value| value.get()) {
            None | Some("null" | "{}") => Ok(()),
            Some(_) => Err(RpcError::Unsupported(name)),
        }
    }
}

/// A number as `7`, `"7"` or `"0x7"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity(pub(super) u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number below 2^64, decimal or as a 0x string")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
        Ok(Quantity(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
        // `from_str_radix` would take a sign.
        let plain = digits.starts_with(|letter: char| letter.is_ascii_hexdigit());
        let value = u64::from_str_radix(digits, radix).ok().filter(|_| plain);
        value.map(Quantity).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Where a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// With the state and in the block of the head.
    Head,
    /// With the state of the head, in the block that comes next.
    Next,
}

/// The place that a block parameter names. Any other block than the head is an error: its state is not kept.
pub(super) fn place(chain: &Chain, params: &Params<'_>, position: usize, default: BlockId) -> Result<Place, RpcError> {
    let id = params.optional(position, "block")?.unwrap_or(default);
    if id == BlockId::pending() {
        return Ok(Place::Next);
    }
    let block = find(chain, id).ok_or(RpcError::UnknownBlock(id))?;
    if block.number() != chain.height() {
        return Err(RpcError::PastState { block: block.number(), head: chain.height() });
    }
    Ok(Place::Head)
}

/// The block that is meant. There is no pending block.
pub(super) fn find(chain: &Chain, id: BlockId) -> Option<&Block> {
    match id {
        BlockId::Hash(hash) => chain.block_by_hash(&hash.block_hash),
        BlockId::Number(BlockNumberOrTag::Pending) => None,
        BlockId::Number(tag) => chain.block(number(chain, tag)),
    }
}

/// The number that a tag stands for; `pending` stands for the head.
pub(super) fn number(chain: &Chain, tag: BlockNumberOrTag) -> u64 {
    let finalized = u64::try_from(REORG_DEPTH).unwrap_or(u64::MAX);
    match tag {
        BlockNumberOrTag::Number(number) => number,
        BlockNumberOrTag::Earliest => 0,
        BlockNumberOrTag::Safe => chain.height().saturating_sub(SAFE_DEPTH),
        BlockNumberOrTag::Finalized => chain.height().saturating_sub(finalized),
        BlockNumberOrTag::Latest | BlockNumberOrTag::Pending => chain.height(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_form_and_never_cut_off() {
        for (text, expected) in
            [("7", Some(7)), ("\"7\"", Some(7)), ("\"0x10\"", Some(16)), ("18446744073709551615", Some(u64::MAX))]
        {
            assert_eq!(serde_json::from_str::<Quantity>(text).ok().map(|quantity| quantity.0), expected, "{text}");
        }
        for text in [
            "-1",
            "1.5",
            "\"0x10000000000000000\"",
            "\"seven\"",
            "\"\"",
            "\"0x\"",
            "\"+1\"",
            "\"0x-1\"",
            "[]",
            "{}",
            "true",
        ] {
            assert!(serde_json::from_str::<Quantity>(text).is_err(), "{text}");
        }
    }
}
