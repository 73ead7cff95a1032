//! What was used: requests and tokens, counted. All money follows from these numbers ([`crate::money`]).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{Amount, TokenCount};

/// Why numbers are no counts, or cannot follow one another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// A lane's counts have 48 bits.
    #[error("{value} {what} are more than a lane can count, 2^48 - 1")]
    TooLarge {
        /// Which of the counts.
        what: &'static str,
        /// What was given.
        value: u64,
    },
    /// Cached tokens are a part of the prompt tokens.
    #[error("{cached} cached tokens are more than the {prompt} prompt tokens that they are part of")]
    CachedExceedsPrompt {
        /// Cached tokens.
        cached: u64,
        /// All prompt tokens.
        prompt: u64,
    },
    /// Counts on a lane never decrease, and cached tokens grow no faster than the prompt tokens.
    #[error("counts of {after} cannot follow counts of {before}")]
    Decrease {
        /// Counts before.
        before: UsageCounts,
        /// Counts that were to follow.
        after: UsageCounts,
    },
    /// A lease's counts have 64 bits, and its charge 128.
    #[error("the total of {what} does not fit")]
    TotalOverflow {
        /// Which of the totals.
        what: &'static str,
    },
}

/// Requests and tokens of one lane, cumulative: each below 2^48, and cached tokens a part of the prompt tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UsageCounts {
    requests: u64,
    prompt: u64,
    cached: u64,
    completion: u64,
}

impl UsageCounts {
    /// Nothing used.
    pub const ZERO: Self = Self { requests: 0, prompt: 0, cached: 0, completion: 0 };
    /// The largest value of each count.
    pub const MAX: u64 = (1 << 48) - 1;

    /// Refuses counts of more than 48 bits, and more cached than prompt tokens. `prompt` includes the cached tokens.
    pub fn new(requests: u64, prompt: u64, cached: u64, completion: u64) -> Result<Self, CountError> {
        let named = [
            ("requests", requests),
            ("prompt tokens", prompt),
            ("cached tokens", cached),
            ("completion tokens", completion),
        ];
        if let Some((what, value)) = named.into_iter().find(|&(_, value)| value > Self::MAX) {
            return Err(CountError::TooLarge { what, value });
        }
        if cached > prompt {
            return Err(CountError::CachedExceedsPrompt { cached, prompt });
        }
        Ok(Self { requests, prompt, cached, completion })
    }

    /// Requests.
    pub const fn requests(self) -> u64 {
        self.requests
    }

    /// Prompt tokens, cached ones included.
    pub const fn prompt(self) -> TokenCount {
        TokenCount::new(self.prompt)
    }

    /// Prompt tokens that the host did not compute anew.
    pub const fn cached(self) -> TokenCount {
        TokenCount::new(self.cached)
    }

    /// Prompt tokens that were computed.
    pub const fn uncached(self) -> TokenCount {
        // Cached tokens are at most the prompt tokens by construction, so nothing saturates.
        TokenCount::new(self.prompt.saturating_sub(self.cached))
    }

    /// Tokens of the answers.
    pub const fn completion(self) -> TokenCount {
        TokenCount::new(self.completion)
    }

    /// These counts and those together.
    pub fn checked_add(self, used: Self) -> Result<Self, CountError> {
        // Sums of two numbers below 2^48 do not saturate; the bound itself is checked again.
        Self::new(
            self.requests.saturating_add(used.requests),
            self.prompt.saturating_add(used.prompt),
            self.cached.saturating_add(used.cached),
            self.completion.saturating_add(used.completion),
        )
    }

    /// What was used since `before`. Refuses counts that decrease, and cached tokens that grow faster than prompt tokens.
    pub fn since(self, before: Self) -> Result<Self, CountError> {
        let used = Self {
            requests: self.requests.wrapping_sub(before.requests),
            prompt: self.prompt.wrapping_sub(before.prompt),
            cached: self.cached.wrapping_sub(before.cached),
            completion: self.completion.wrapping_sub(before.completion),
        };
        let grows = self.requests >= before.requests
            && self.prompt >= before.prompt
            && self.cached >= before.cached
            && self.completion >= before.completion;
        if grows && used.cached <= used.prompt { Ok(used) } else { Err(CountError::Decrease { before, after: self }) }
    }
}

impl fmt::Display for UsageCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, prompt, cached, completion } = self;
        write!(f, "{requests} requests, {prompt} prompt tokens ({cached} cached) and {completion} completion tokens")
    }
}

/// What one request used: counts of which `requests` is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestUsage(UsageCounts);

impl RequestUsage {
    /// Refuses counts of more than 48 bits, and more cached than prompt tokens. `prompt` includes the cached tokens.
    pub fn new(prompt: u64, cached: u64, completion: u64) -> Result<Self, CountError> {
        UsageCounts::new(1, prompt, cached, completion).map(Self)
    }

    /// As counts, to be added to a lane's.
    pub const fn counts(self) -> UsageCounts {
        self.0
    }
}

/// One request on a lane: the counts before it and what it used, such that the counts after it are counts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneStep {
    before: UsageCounts,
    usage: RequestUsage,
    after: UsageCounts,
}

impl LaneStep {
    /// Refuses a request after which a count would have more than 48 bits.
    pub fn new(before: UsageCounts, usage: RequestUsage) -> Result<Self, CountError> {
        Ok(Self { before, usage, after: before.checked_add(usage.counts())? })
    }

    /// Counts of the lane before the request.
    pub const fn before(self) -> UsageCounts {
        self.before
    }

    /// What the request used.
    pub const fn usage(self) -> RequestUsage {
        self.usage
    }

    /// Counts of the lane after the request. Their number of requests is the request's own number, from 1.
    pub const fn after(self) -> UsageCounts {
        self.after
    }
}

/// Requests, tokens and charges of one lease, within one epoch or since it began.
///
/// Totals come from others as well, in reports and in proofs; nothing relates the members to one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsageTotals {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens, cached ones included.
    pub prompt_tokens: u64,
    /// Prompt tokens that were not computed anew.
    pub cached_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
    /// What was charged.
    pub charge: Amount,
}

impl UsageTotals {
    /// Nothing used.
    pub const ZERO: Self =
        Self { requests: 0, prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0, charge: Amount::ZERO };

    /// Of these counts and their charge.
    pub const fn new(counts: UsageCounts, charge: Amount) -> Self {
        Self {
            requests: counts.requests,
            prompt_tokens: counts.prompt,
            cached_tokens: counts.cached,
            completion_tokens: counts.completion,
            charge,
        }
    }

    /// Both together.
    pub fn checked_add(self, other: Self) -> Result<Self, CountError> {
        let overflow = |what| CountError::TotalOverflow { what };
        let sum = |what, a: u64, b: u64| a.checked_add(b).ok_or_else(|| overflow(what));
        Ok(Self {
            requests: sum("requests", self.requests, other.requests)?,
            prompt_tokens: sum("prompt tokens", self.prompt_tokens, other.prompt_tokens)?,
            cached_tokens: sum("cached tokens", self.cached_tokens, other.cached_tokens)?,
            completion_tokens: sum("completion tokens", self.completion_tokens, other.completion_tokens)?,
            charge: self.charge.checked_add(other.charge).ok_or_else(|| overflow("charges"))?,
        })
    }

    /// Whether these are at least the others, each by itself.
    pub fn covers(&self, part: &Self) -> bool {
        self.requests >= part.requests
            && self.prompt_tokens >= part.prompt_tokens
            && self.cached_tokens >= part.cached_tokens
            && self.completion_tokens >= part.completion_tokens
            && self.charge >= part.charge
    }

    /// What `part` lacks of these, each by itself; cached tokens are at most the prompt tokens that they are part of.
    pub fn missing_in(&self, part: &Self) -> Self {
        let prompt_tokens = self.prompt_tokens.saturating_sub(part.prompt_tokens);
        Self {
            requests: self.requests.saturating_sub(part.requests),
            prompt_tokens,
            cached_tokens: self.cached_tokens.saturating_sub(part.cached_tokens).min(prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_sub(part.completion_tokens),
            charge: self.charge.saturating_sub(part.charge),
        }
    }

    /// The larger of each.
    pub fn larger(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            prompt_tokens: self.prompt_tokens.max(other.prompt_tokens),
            cached_tokens: self.cached_tokens.max(other.cached_tokens),
            completion_tokens: self.completion_tokens.max(other.completion_tokens),
            charge: self.charge.max(other.charge),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small numbers meet each other's bounds more often than large ones.
    fn count() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..4, UsageCounts::MAX - 3..=UsageCounts::MAX + 2, any::<u64>()]
    }

    fn counts() -> impl Strategy<Value = UsageCounts> {
        (count(), count(), count(), count())
            .prop_filter_map("not counts", |(a, b, c, d)| UsageCounts::new(a, b, c, d).ok())
    }

    proptest! {
        #[test]
        fn counts_have_48_bits_and_cached_tokens_are_prompt_tokens(a in count(), b in count(), c in count(), d in count()) {
            let small = [a, b, c, d].iter().all(|&value| value < 1 << 48);
            prop_assert_eq!(UsageCounts::new(a, b, c, d).is_ok(), small && c <= b);
        }

        #[test]
        fn what_was_used_since_adds_up_again(before in counts(), used in counts()) {
            match before.checked_add(used) {
                Ok(after) => {
                    prop_assert_eq!(after.since(before), Ok(used));
                    prop_assert_eq!(after.since(after), Ok(UsageCounts::ZERO));
                    prop_assert_eq!(after.uncached().get(), before.uncached().get() + used.uncached().get());
                    prop_assert_eq!(before.since(after).is_ok(), used == UsageCounts::ZERO);
                }
                Err(error) => prop_assert!(matches!(error, CountError::TooLarge { .. }), "{error}"),
            }
        }

        #[test]
        fn since_refuses_every_decrease(before in counts(), after in counts()) {
            let grows = after.requests >= before.requests && after.prompt >= before.prompt
                && after.cached >= before.cached && after.completion >= before.completion
                && after.uncached() >= before.uncached();
            prop_assert_eq!(after.since(before).is_ok(), grows);
        }

        #[test]
        fn totals_add_up_or_say_what_does_not_fit(a: [u64; 4], b: [u64; 4], charges: [u128; 2]) {
            let total = |counts: [u64; 4], charge| {
                let [requests, prompt_tokens, cached_tokens, completion_tokens] = counts;
                UsageTotals { requests, prompt_tokens, cached_tokens, completion_tokens, charge: Amount::new(charge) }
            };
            let sum = total(a, charges[0]).checked_add(total(b, charges[1]));
            let fits = a.iter().zip(&b).all(|(x, y)| x.checked_add(*y).is_some()) && charges[0].checked_add(charges[1]).is_some();
            prop_assert_eq!(sum.is_ok(), fits);
            if let Ok(sum) = sum {
                prop_assert_eq!(sum.completion_tokens, a[3] + b[3]);
                prop_assert_eq!(sum.charge.get(), charges[0] + charges[1]);
            }
        }
    }

    #[test]
    fn what_is_missing_and_what_is_there_cover_the_whole() {
        let totals = |requests, prompt_tokens, cached_tokens, charge| UsageTotals {
            requests,
            prompt_tokens,
            cached_tokens,
            completion_tokens: 1,
            charge: Amount::new(charge),
        };
        let (whole, part) = (totals(5, 100, 40, 9), totals(7, 90, 10, 4));
        assert!(!whole.covers(&part) && whole.covers(&whole));
        let missing = whole.missing_in(&part);
        assert_eq!(missing, UsageTotals { completion_tokens: 0, ..totals(0, 10, 10, 5) }, "cached tokens are cut");
        assert_eq!(whole.larger(&part), totals(7, 100, 40, 9));
        assert!(whole.larger(&part).covers(&whole) && whole.larger(&part).covers(&part));
    }

    #[test]
    fn cached_tokens_cannot_grow_faster_than_prompt_tokens() {
        let before = UsageCounts::new(1, 10, 2, 0).unwrap();
        let after = UsageCounts::new(2, 12, 5, 0).unwrap();
        assert_eq!(after.since(before), Err(CountError::Decrease { before, after }));
        assert_eq!(
            UsageCounts::new(0, 1, 2, 0),
            Err(CountError::CachedExceedsPrompt { cached: 2, prompt: 1 }),
            "the same rule from nothing"
        );
    }

    #[test]
    fn a_request_beyond_the_last_number_is_refused() {
        let used = RequestUsage::new(0, 0, 0).unwrap();
        let last = UsageCounts::new(UsageCounts::MAX - 1, 0, 0, 0).unwrap();
        let step = LaneStep::new(last, used).unwrap();
        assert_eq!(step.after().requests(), UsageCounts::MAX);
        let error = CountError::TooLarge { what: "requests", value: UsageCounts::MAX + 1 };
        assert_eq!(LaneStep::new(step.after(), used), Err(error));
    }

    #[test]
    fn a_request_counts_one() {
        let usage = RequestUsage::new(7, 3, 2).unwrap();
        assert_eq!(usage.counts(), UsageCounts::new(1, 7, 3, 2).unwrap());
        assert!(RequestUsage::new(0, 1, 0).is_err() && RequestUsage::new(1 << 48, 0, 0).is_err());
    }
}
