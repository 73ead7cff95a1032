//! Tokens, and amounts of them as people write them.

use alloy::primitives::{Address, U256, utils::parse_units};
use anyhow::Context as _;
use licensing_contracts::{
    actions::Erc20,
    client::{ChainClient, ChainError},
    deployment::Deployment,
};
use protocol::units::Amount;

use crate::failure::Advise as _;

/// A token that amounts are in.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) address: Address,
    decimals: u8,
    symbol: String,
}

impl Token {
    /// The token that is named, or the deployment's test token.
    pub(crate) async fn find(
        client: &ChainClient,
        deployment: &Deployment,
        named: Option<Address>,
    ) -> anyhow::Result<Self> {
        let address =
            named.or(deployment.test_token).context("no token is named").advise("name one with --payment-token")?;
        let decimals = match client.call(address, &Erc20::decimalsCall {}).await {
            Err(error @ ChainError::Rpc { .. }) => return Err(error.into()),
            answer => answer.with_context(|| format!("{address} is no token with decimals on this chain"))?,
        };
        let symbol = match client.call(address, &Erc20::symbolCall {}).await {
            Err(error @ ChainError::Rpc { .. }) => return Err(error.into()),
            // Tokens are old enough to have none, or to write it in another way.
            answer => answer.unwrap_or_else(|_| format!("of token {address}")),
        };
        Ok(Self { address, decimals, symbol })
    }

    /// A decimal number of tokens in the smallest unit.
    pub(crate) fn amount(&self, text: &str) -> anyhow::Result<Amount> {
        let wrong = || format!("{text:?} is not an amount of {} with at most {} decimals", self.symbol, self.decimals);
        let units = Some(text).filter(|text| is_decimal(text, self.decimals));
        let units = units.and_then(|text| parse_units(text, self.decimals).ok()).with_context(wrong)?;
        u128::try_from(units.get_absolute()).map(Amount::new).ok().with_context(wrong)
    }

    /// An amount as a person writes it.
    pub(crate) fn show(&self, amount: Amount) -> String {
        let text = alloy::primitives::utils::format_units(U256::from(amount.get()), self.decimals);
        format!("{} {}", trimmed(&text.unwrap_or_else(|_| amount.to_string())), self.symbol)
    }
}

/// Digits, or digits on both sides of a point with no more behind it than a token has: nothing is to be cut off.
fn is_decimal(text: &str, decimals: u8) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && part.len() <= usize::from(decimals),
        None => digits(text),
    }
}

/// Coins of the chain, rounded up to nine decimals.
pub(crate) fn coins_up(wei: U256) -> String {
    let gwei = wei.div_ceil(U256::from(1_000_000_000));
    let text = alloy::primitives::utils::format_units(gwei, "gwei").unwrap_or_else(|_| wei.to_string());
    trimmed(&text).to_owned()
}

fn trimmed(decimal: &str) -> &str {
    match decimal.contains('.') {
        true => decimal.trim_end_matches('0').trim_end_matches('.'),
        false => decimal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_never_cut() {
        let token = Token { address: Address::ZERO, decimals: 6, symbol: "TEST".to_owned() };
        let units = |text| token.amount(text).map(Amount::get).ok();
        assert_eq!([units("1"), units("0.000001"), units("12.5")], [Some(1_000_000), Some(1), Some(12_500_000)]);
        let largest = "340282366920938463463374607431768.211455";
        assert_eq!([units("0"), units(largest)], [Some(0), Some(u128::MAX)]);
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1_000",
            " 1",
            "0.0000001",
            "1.00000€",
            "٣",
            "340282366920938463463374607431768.211456",
        ] {
            assert_eq!(units(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn decimals_end_where_they_say_nothing() {
        assert_eq!([trimmed("1.500"), trimmed("10.0"), trimmed("100")], ["1.5", "10", "100"]);
    }
}
