//! What a request is billed for, counted once, here.

use model::{SpecialTokens, Tokenizer, tokenizer::TokenizerError};
use protocol::units::TokenCount;

/// What a request has used.
///
/// The prompt is every id that went into the engine, the template's included, once for all choices. The completion is
/// counted from the text that was delivered (see [`completion_tokens`]), so that whoever has the text can count again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    prompt: TokenCount,
    cached: TokenCount,
    completion: TokenCount,
}

impl Usage {
    /// Of `prompt` tokens, `cached` of which the engine did not have to compute, and a `completion`.
    pub fn new(prompt: TokenCount, cached: TokenCount, completion: TokenCount) -> Self {
        Self { prompt, cached: cached.min(prompt), completion }
    }

    /// Tokens of the templated prompt.
    pub fn prompt(&self) -> TokenCount {
        self.prompt
    }

    /// Those of them that came from a cache.
    pub fn cached(&self) -> TokenCount {
        self.cached
    }

    /// Tokens of all completions.
    pub fn completion(&self) -> TokenCount {
        self.completion
    }

    /// Prompt and completions together.
    pub fn total(&self) -> TokenCount {
        self.prompt.checked_add(self.completion).unwrap_or(TokenCount::new(u64::MAX))
    }
}

/// Tokens of a completion: those that the model's own tokenizer makes of its text, but never more than were `generated`,
/// or may have been where the engine does not tell. A text can be written with more tokens than the model took for it, and a customer must not
/// pay for what nobody computed.
pub fn completion_tokens(
    tokenizer: &Tokenizer,
    text: &str,
    generated: TokenCount,
) -> Result<TokenCount, TokenizerError> {
    let ids = tokenizer.encode(text, SpecialTokens::Omit)?;
    let counted = token_count(ids.len());
    Ok(generated.min(counted))
}

/// A length as a count of tokens.
pub(crate) fn token_count(length: usize) -> TokenCount {
    TokenCount::new(u64::try_from(length).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tokens: u64) -> TokenCount {
        TokenCount::new(tokens)
    }

    #[test]
    fn total_is_prompt_and_completion_and_no_more_is_cached_than_there_was() {
        let usage = Usage::new(count(3), count(9), count(2));
        assert_eq!((usage.total(), usage.cached()), (count(5), count(3)));
    }

    #[test]
    fn completion_is_counted_from_its_text_and_bounded_by_what_was_generated() {
        let tokenizer = Tokenizer::load(&model::bundled::directory().unwrap()).unwrap();
        let text = "the king and the queen";
        let ids = tokenizer.encode(text, SpecialTokens::Omit).unwrap().len();
        let counted = |generated| completion_tokens(&tokenizer, text, generated).unwrap();
        assert_eq!(counted(count(1000)), token_count(ids));
        assert_eq!(counted(count(1)), count(1));
        assert_eq!(completion_tokens(&tokenizer, "", count(7)).unwrap(), TokenCount::ZERO);
    }
}
