//! Tokens of one request, counted once, here, from token ids.

use protocol::units::TokenCount;

/// What a request has used so far.
///
/// The prompt is every id that went into the engine, the template's included. The completion is every id that the engine
/// delivered and the host turned into text; the token that ends a completion has no text and is not counted, nor is what
/// an engine generated after a stop string had been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    prompt: TokenCount,
    completion: TokenCount,
}

impl Usage {
    /// The usage of a request that has its prompt and nothing else.
    pub fn of_prompt(ids: &[u32]) -> Self {
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        Self { prompt: TokenCount::new(count), completion: TokenCount::ZERO }
    }

    /// Counts one delivered token.
    pub fn count(&mut self) {
        let more = self.completion.checked_add(TokenCount::new(1));
        self.completion = more.unwrap_or(self.completion);
    }

    /// Tokens of the templated prompt.
    pub fn prompt(&self) -> TokenCount {
        self.prompt
    }

    /// Tokens of the completion.
    pub fn completion(&self) -> TokenCount {
        self.completion
    }

    /// Both together.
    pub fn total(&self) -> TokenCount {
        self.prompt.checked_add(self.completion).unwrap_or(TokenCount::new(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_prompt_and_completion() {
        let mut usage = Usage::of_prompt(&[1, 2, 3]);
        usage.count();
        usage.count();
        assert_eq!((usage.prompt().get(), usage.completion().get(), usage.total().get()), (3, 2, 5));
    }
}
