//! Money as a pure function of counts, as `Pricing.sol` has it: what use costs, and who gets which part of it.
//!
//! A cost is rounded up once, over everything that a lane ever used, and a charge is the difference of two costs. So it
//! does not matter into how many claims use is cut, and there is no amount that anybody could lie about.

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

use crate::{
    counts::{CountError, UsageCounts, UsageTotals},
    units::{Amount, BasisPoints, PricePerMillion},
};

/// Why a sum of money cannot be worked out, or a price list is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// More than any payment.
    #[error("{counts} cost more than 2^128 - 1 at these prices")]
    CostTooLarge {
        /// What was used.
        counts: UsageCounts,
    },
    /// More than any payment.
    #[error("the royalty on a lease's totals is more than 2^128 - 1")]
    RoyaltyTooLarge,
    /// Counts that cannot follow one another.
    #[error("failed to charge for use")]
    Counts(#[from] CountError),
    /// Royalty and validators would take more than everything.
    #[error("a royalty of {royalty} and a validators' share of {validators} are more than the whole")]
    SharesExceedWhole {
        /// The royalty's share.
        royalty: BasisPoints,
        /// The validators' share.
        validators: BasisPoints,
    },
    /// Cached tokens are a discount, also for the creator.
    #[error("the floor of {cached} per million cached tokens is above the floor of {prompt} for prompt tokens")]
    CachedFloorAboveFloor {
        /// Floor of cached tokens.
        cached: PricePerMillion,
        /// Floor of prompt tokens.
        prompt: PricePerMillion,
    },
    /// Cached tokens are a discount.
    #[error("the price of {cached} per million cached tokens is above the price of {prompt} for prompt tokens")]
    CachedPriceAbovePrice {
        /// Price of cached tokens.
        cached: PricePerMillion,
        /// Price of prompt tokens.
        prompt: PricePerMillion,
    },
    /// The floor could not be paid out of what is left after the validators' share.
    #[error(
        "the price of {price} per million {what} leaves less than the floor of {floor} after the validators' share"
    )]
    PriceBelowFloor {
        /// What is priced.
        what: &'static str,
        /// The host's price.
        price: PricePerMillion,
        /// The licence's floor.
        floor: PricePerMillion,
    },
    /// Not the charge at prices that were checked against the floors.
    #[error("a royalty of {royalty} and {validators} for the validators are more than the {paid} that are paid")]
    PartsExceedPayment {
        /// The royalty.
        royalty: Amount,
        /// The validators' part.
        validators: Amount,
        /// What is paid.
        paid: Amount,
    },
}

/// What a million of each costs, or the least royalty on it, in the smallest unit of the payment token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// For requests.
    pub request: PricePerMillion,
    /// For prompt tokens that were computed.
    pub prompt: PricePerMillion,
    /// For prompt tokens that were cached.
    pub cached: PricePerMillion,
    /// For tokens of answers.
    pub completion: PricePerMillion,
}

impl Prices {
    /// What these counts cost in all, rounded up.
    pub fn cost_up(&self, counts: UsageCounts) -> Result<Amount, MoneyError> {
        let cost = self.weigh(counts).div_ceil(PER_MILLION);
        u128::try_from(cost).map(Amount::new).map_err(|_| MoneyError::CostTooLarge { counts })
    }

    /// What is charged for the use between two states of a lane: the difference of their costs.
    pub fn charge(&self, before: UsageCounts, after: UsageCounts) -> Result<Amount, MoneyError> {
        after.since(before)?;
        // Costs grow with the counts, so the difference is never negative and nothing saturates.
        Ok(self.cost_up(after)?.saturating_sub(self.cost_up(before)?))
    }

    /// The least royalty on these counts when `self` is a licence's floors, rounded down.
    pub fn floor_down(&self, counts: UsageCounts) -> Result<Amount, MoneyError> {
        // The divisor is a constant that is not zero.
        let floor = self.weigh(counts).wrapping_div(PER_MILLION);
        u128::try_from(floor).map(Amount::new).map_err(|_| MoneyError::CostTooLarge { counts })
    }

    /// The least royalty on a lease's totals when `self` is a licence's floors, rounded down. Totals come from others: those
    /// with more cached than prompt tokens are refused.
    pub fn floor_of_totals_down(&self, totals: &UsageTotals) -> Result<Amount, MoneyError> {
        let (prompt, cached) = (totals.prompt_tokens, totals.cached_tokens);
        let uncached = prompt.checked_sub(cached).ok_or(CountError::CachedExceedsPrompt { cached, prompt })?;
        let weight = self.sum([totals.requests, uncached, cached, totals.completion_tokens]);
        u128::try_from(weight.wrapping_div(PER_MILLION)).map(Amount::new).map_err(|_| MoneyError::RoyaltyTooLarge)
    }

    /// What any numbers cost, rounded up, also those that are no lane's counts. Cached tokens are at most the prompt tokens.
    pub(crate) fn cost_of_any_up(&self, requests: u64, [prompt, cached, completion]: [u64; 3]) -> U256 {
        self.sum([requests, prompt.saturating_sub(cached), cached, completion]).div_ceil(PER_MILLION)
    }

    /// Prices times counts, in millionths of the smallest unit.
    fn weigh(&self, counts: UsageCounts) -> U256 {
        self.sum([counts.requests(), counts.uncached().get(), counts.cached().get(), counts.completion().get()])
    }

    fn sum(&self, counts: [u64; 4]) -> U256 {
        let prices = [self.request, self.prompt, self.cached, self.completion];
        // Products of 64 and 128 bits, four of them: 194 bits, so nothing wraps.
        counts.into_iter().zip(prices).fold(U256::ZERO, |sum, (count, price)| {
            sum.wrapping_add(U256::from(count).wrapping_mul(U256::from(price.get())))
        })
    }
}

const PER_MILLION: U256 = U256::from_limbs([1_000_000, 0, 0, 0]);

/// The part of a licence that decides who is paid how much of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    royalty: BasisPoints,
    validators: BasisPoints,
    floors: Prices,
}

impl Shares {
    /// Refuses shares that are more than the whole, and a floor of cached tokens above that of prompt tokens.
    pub fn new(royalty: BasisPoints, validators: BasisPoints, floors: Prices) -> Result<Self, MoneyError> {
        if royalty.checked_add(validators).is_none() {
            return Err(MoneyError::SharesExceedWhole { royalty, validators });
        }
        let Prices { prompt, cached, .. } = floors;
        if cached > prompt {
            return Err(MoneyError::CachedFloorAboveFloor { cached, prompt });
        }
        Ok(Self { royalty, validators, floors })
    }

    /// Checks a host's prices when it opens a lease: each pays its floor out of what the validators leave, and cached
    /// tokens cost no more than computed ones. With such prices no claim owes more than it pays ([`Self::split`]).
    pub fn check_prices(&self, prices: &Prices) -> Result<(), MoneyError> {
        let pairs = [
            ("requests", prices.request, self.floors.request),
            ("prompt tokens", prices.prompt, self.floors.prompt),
            ("cached tokens", prices.cached, self.floors.cached),
            ("completion tokens", prices.completion, self.floors.completion),
        ];
        // The validators' share is at most the whole.
        let left = BasisPoints::WHOLE.get().saturating_sub(self.validators.get());
        // 128 bits times 14.
        let times = |price: PricePerMillion, share: u16| U256::from(price.get()).wrapping_mul(U256::from(share));
        let below = |&(_, price, floor): &_| times(floor, BasisPoints::WHOLE.get()) > times(price, left);
        if let Some((what, price, floor)) = pairs.into_iter().find(below) {
            return Err(MoneyError::PriceBelowFloor { what, price, floor });
        }
        let Prices { prompt, cached, .. } = *prices;
        if cached <= prompt { Ok(()) } else { Err(MoneyError::CachedPriceAbovePrice { cached, prompt }) }
    }

    /// Who gets which part of a claim that pays `paid` for `used`. The three parts add up to it exactly.
    ///
    /// Cannot fail for a charge at prices that passed [`Self::check_prices`], in spite of all rounding: with Δ for the
    /// exact cost and v for the validators' share, the floors give at most ⌊(1 − v)Δ⌋. The charge is at least ⌊Δ⌋, and
    /// what the validators leave of it at least ⌈(1 − v)⌊Δ⌋⌉. The first is at most the second: either (1 − v)⌊Δ⌋ is
    /// whole, and less than one is added to it before it is rounded down, or rounding it up adds as much as that can.
    pub fn split(&self, paid: Amount, used: UsageCounts) -> Result<ClaimParts, MoneyError> {
        let royalty = self.royalty.share_down(paid).max(self.floors.floor_down(used)?);
        let validators = self.validators.share_down(paid);
        let host = paid.checked_sub(royalty).and_then(|rest| rest.checked_sub(validators));
        match host {
            Some(host) => Ok(ClaimParts { royalty, validators, host }),
            None => Err(MoneyError::PartsExceedPayment { royalty, validators, paid }),
        }
    }

    /// The royalty on a lease's use that is not claimed: its share of what was charged, or the floors if they are more.
    pub fn royalty_on_down(&self, used: &UsageTotals) -> Result<Amount, MoneyError> {
        Ok(self.royalty.share_down(used.charge).max(self.floors.floor_of_totals_down(used)?))
    }
}

/// The parts of one claim; they add up to what was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimParts {
    /// For the creator and those that share with him.
    pub royalty: Amount,
    /// For the validators.
    pub validators: Amount,
    /// What is left.
    pub host: Amount,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every size, with the ends and what lies beside them more often than a uniform choice has them.
    fn price() -> impl Strategy<Value = PricePerMillion> {
        prop_oneof![
            Just(0),
            0_u128..4,
            999_998_u128..=1_000_002,
            (0_u32..128).prop_flat_map(|bits| 0..=(u128::MAX >> bits)),
            u128::MAX - 2..=u128::MAX,
        ]
        .prop_map(PricePerMillion::new)
    }

    /// Prices of at most this; what they make of counts still fits into 128 bits when it is below 2^96.
    fn prices(most: u128) -> impl Strategy<Value = Prices> {
        [price(), price(), price(), price()].prop_map(move |all| {
            let [request, prompt, cached, completion] = all.map(|price| PricePerMillion::new(price.get() % most));
            Prices { request, prompt, cached: cached.min(prompt), completion }
        })
    }

    /// Counts of at most this many bits.
    fn counts(bits: u32) -> impl Strategy<Value = UsageCounts> {
        let count = move || {
            let any = (1..=bits).prop_flat_map(|bits| 0..=(u64::MAX >> (64 - bits)));
            prop_oneof![0_u64..4, 0_u64..3_000_000, any]
        };
        (count(), count(), count(), count())
            .prop_map(|(a, b, c, d)| UsageCounts::new(a, b.max(c), b.min(c), d).unwrap())
    }

    fn shares() -> impl Strategy<Value = (BasisPoints, BasisPoints)> {
        let share = prop_oneof![Just(0_u16), 0_u16..4, 9_997_u16..=10_000, 0_u16..=10_000];
        (share.clone(), share).prop_map(|(royalty, validators)| {
            (BasisPoints::new(royalty.min(10_000 - validators)).unwrap(), BasisPoints::new(validators).unwrap())
        })
    }

    /// The cheapest price that passes for this floor when `left` of ten thousand are left for it, and `above`.
    fn price_over(floor: PricePerMillion, left: u16, above: u128) -> PricePerMillion {
        let least = (U256::from(floor.get()) * U256::from(10_000)).div_ceil(U256::from(left.max(1)));
        PricePerMillion::new(u128::try_from(least).unwrap() + above)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn a_cost_is_the_least_whole_amount_that_covers_the_use(counts in counts(48), prices in prices(u128::MAX)) {
            let exact = U256::from(counts.requests()) * U256::from(prices.request.get())
                + U256::from(counts.uncached().get()) * U256::from(prices.prompt.get())
                + U256::from(counts.cached().get()) * U256::from(prices.cached.get())
                + U256::from(counts.completion().get()) * U256::from(prices.completion.get());
            match prices.cost_up(counts) {
                Ok(cost) => {
                    let cost = U256::from(cost.get()) * PER_MILLION;
                    prop_assert!(cost >= exact && cost - exact < PER_MILLION);
                }
                Err(error) => {
                    prop_assert_eq!(error, MoneyError::CostTooLarge { counts });
                    prop_assert!(exact > U256::from(u128::MAX) * PER_MILLION);
                }
            }
        }

        #[test]
        fn charges_of_any_cut_add_up_to_the_cost(parts in prop::collection::vec(counts(44), 1..9), prices in prices(1 << 90)) {
            let mut before = UsageCounts::ZERO;
            let mut charged = 0_u128;
            for used in parts {
                let after = before.checked_add(used).unwrap();
                charged += prices.charge(before, after).unwrap().get();
                before = after;
            }
            prop_assert_eq!(charged, prices.cost_up(before).unwrap().get());
        }

        #[test]
        fn more_cached_tokens_never_cost_more(counts in counts(48), prices in prices(1 << 90)) {
            let (requests, prompt, completion) = (counts.requests(), counts.prompt().get(), counts.completion().get());
            let without = UsageCounts::new(requests, prompt, 0, completion).unwrap();
            prop_assert!(prices.cost_up(counts).unwrap() <= prices.cost_up(without).unwrap());
        }

        #[test]
        fn no_claim_owes_more_than_it_pays(
            floors in prices(1 << 100), (royalty, validators) in shares(), above in [0_u128..3, 0_u128..3, 0_u128..3, 0_u128..1_000],
            before in counts(47), used in counts(47),
        ) {
            let left = 10_000 - validators.get();
            // Where the validators take everything, nothing is left for a floor.
            let floors = if left == 0 { Prices::default() } else { floors };
            let shares = Shares::new(royalty, validators, floors).unwrap();
            // As close to the floors as prices may come, which is where rounding decides.
            let over = |floor, above| price_over(floor, left, above);
            let prompt = over(floors.prompt, above[1]);
            let prices = Prices {
                request: over(floors.request, above[0]),
                prompt,
                cached: over(floors.cached, above[2]).min(prompt),
                completion: over(floors.completion, above[3]),
            };
            prop_assert_eq!(shares.check_prices(&prices), Ok(()));
            let after = before.checked_add(used).unwrap();
            let paid = match prices.charge(before, after) {
                Ok(paid) => paid,
                Err(error) => {
                    prop_assert_eq!(error, MoneyError::CostTooLarge { counts: after });
                    return Ok(());
                }
            };
            let parts = shares.split(paid, used).unwrap();
            prop_assert_eq!(parts.royalty.get() + parts.validators.get() + parts.host.get(), paid.get());
            prop_assert!(parts.royalty >= royalty.share_down(paid));
            prop_assert!(parts.royalty >= floors.floor_down(used).unwrap());
            prop_assert_eq!(parts.validators, validators.share_down(paid));
        }

        #[test]
        fn prices_pass_exactly_when_each_covers_its_floor(floors in prices(u128::MAX), prices in prices(u128::MAX), (royalty, validators) in shares()) {
            let shares = Shares::new(royalty, validators, floors).unwrap();
            let covers = |price: PricePerMillion, floor: PricePerMillion| {
                U256::from(floor.get()) * U256::from(10_000) <= U256::from(price.get()) * U256::from(10_000 - validators.get())
            };
            let all = covers(prices.request, floors.request) && covers(prices.prompt, floors.prompt)
                && covers(prices.cached, floors.cached) && covers(prices.completion, floors.completion);
            prop_assert_eq!(shares.check_prices(&prices).is_ok(), all);
        }
    }

    fn bps(value: u16) -> BasisPoints {
        BasisPoints::new(value).unwrap()
    }

    fn flat(price: u128) -> Prices {
        let price = PricePerMillion::new(price);
        Prices { request: price, prompt: price, cached: price, completion: price }
    }

    #[test]
    fn royalty_on_totals_is_the_larger_of_share_and_floors() {
        let shares = Shares::new(bps(1_000), bps(0), flat(500_000)).unwrap();
        let totals = |requests, charge| UsageTotals { requests, charge: Amount::new(charge), ..UsageTotals::ZERO };
        assert_eq!(shares.royalty_on_down(&totals(3, 9)), Ok(Amount::new(1)), "one and a half");
        assert_eq!(shares.royalty_on_down(&totals(3, 29)), Ok(Amount::new(2)));
        let cached = UsageTotals { cached_tokens: 1, ..UsageTotals::ZERO };
        let error = CountError::CachedExceedsPrompt { cached: 1, prompt: 0 };
        assert_eq!(shares.royalty_on_down(&cached), Err(MoneyError::Counts(error)));
        let dear = Shares::new(bps(0), bps(0), flat(u128::MAX)).unwrap();
        assert_eq!(dear.royalty_on_down(&totals(1_000_000, 0)), Ok(Amount::MAX));
        assert_eq!(dear.royalty_on_down(&totals(1_000_001, 0)), Err(MoneyError::RoyaltyTooLarge));
    }

    #[test]
    fn shares_of_more_than_the_whole_are_refused() {
        let error = MoneyError::SharesExceedWhole { royalty: bps(9_000), validators: bps(1_001) };
        assert_eq!(Shares::new(bps(9_000), bps(1_001), Prices::default()), Err(error));
        assert!(Shares::new(bps(9_000), bps(1_000), Prices::default()).is_ok());
    }

    #[test]
    fn a_cached_token_may_not_cost_more_than_a_computed_one() {
        let dear = Prices { cached: PricePerMillion::new(6), ..flat(5) };
        let (cached, prompt) = (PricePerMillion::new(6), PricePerMillion::new(5));
        assert_eq!(Shares::new(bps(0), bps(0), dear), Err(MoneyError::CachedFloorAboveFloor { cached, prompt }));
        let shares = Shares::new(bps(0), bps(0), Prices::default()).unwrap();
        assert_eq!(shares.check_prices(&dear), Err(MoneyError::CachedPriceAbovePrice { cached, prompt }));
    }

    #[test]
    fn the_first_price_below_its_floor_is_named() {
        let shares = Shares::new(bps(0), bps(5_000), flat(100)).unwrap();
        assert_eq!(shares.check_prices(&flat(200)), Ok(()));
        let prices = Prices { completion: PricePerMillion::new(199), ..flat(200) };
        let error = MoneyError::PriceBelowFloor {
            what: "completion tokens",
            price: PricePerMillion::new(199),
            floor: PricePerMillion::new(100),
        };
        assert_eq!(shares.check_prices(&prices), Err(error));
    }

    #[test]
    fn a_payment_below_the_floors_is_an_error_and_no_gift() {
        let shares = Shares::new(bps(0), bps(0), flat(1_000_000)).unwrap();
        let used = UsageCounts::new(10, 0, 0, 0).unwrap();
        let error =
            MoneyError::PartsExceedPayment { royalty: Amount::new(10), validators: Amount::ZERO, paid: Amount::new(9) };
        assert_eq!(shares.split(Amount::new(9), used), Err(error));
    }

    #[test]
    fn the_largest_claim_is_split_exactly() {
        // 2^48 - 1 completion tokens at the price that makes them cost 2^128 - 1 or just below.
        let price = u128::MAX / u128::from(UsageCounts::MAX) * 1_000_000;
        let prices = Prices { completion: PricePerMillion::new(price), ..Prices::default() };
        let used = UsageCounts::new(0, 0, 0, UsageCounts::MAX).unwrap();
        let paid = prices.charge(UsageCounts::ZERO, used).unwrap();
        let parts = Shares::new(bps(3_333), bps(6_667), Prices::default()).unwrap().split(paid, used).unwrap();
        assert_eq!(parts.royalty.get() + parts.validators.get() + parts.host.get(), paid.get());
        assert_eq!(parts.host.get(), 1, "two shares that were rounded down");
    }
}
