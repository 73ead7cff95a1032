//! Wire forms of log-probabilities. Both are of the model's own distribution, before temperature, penalties and bias.
//!
//! Reference: <https://platform.openai.com/docs/api-reference/chat/object> and
//! <https://platform.openai.com/docs/api-reference/completions/object>.

use serde::{Serialize, Serializer};

use super::{attribution::TextToken, error::ApiError, fields::Fields};

/// Most alternatives at a token of a chat.
const MOST_IN_CHAT: i128 = 20;
/// Most alternatives at a token of a completion.
const MOST_IN_COMPLETION: i128 = 5;
/// What is as good as impossible, where JSON has no infinity.
const LEAST: f32 = -9999.0;

/// `logprobs` and `top_logprobs` of a chat: how many alternatives a token shall have, if log-probabilities are wanted.
pub(super) fn take_of_chat(fields: &mut Fields<'_>) -> Result<Option<usize>, ApiError> {
    let wanted = fields.take("logprobs", "true or false")?.unwrap_or(false);
    let most = fields.take_integer("top_logprobs", 0..=MOST_IN_CHAT)?.unwrap_or(0);
    if !wanted && most > 0 {
        let message = "'top_logprobs' is only allowed when 'logprobs' is true.";
        return Err(ApiError::invalid("invalid_value", message).about("top_logprobs"));
    }
    Ok(wanted.then(|| usize::try_from(most).unwrap_or(0)))
}

/// `logprobs` of a completion, the same in one number.
pub(super) fn take_of_completion(fields: &mut Fields<'_>) -> Result<Option<usize>, ApiError> {
    let most = fields.take_integer("logprobs", 0..=MOST_IN_COMPLETION)?;
    Ok(most.map(|most| usize::try_from(most).unwrap_or(0)))
}

/// Of a chat's choice.
#[derive(Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<Alternative>,
}

#[derive(Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<Vec<TextToken>> for ChatLogprobs {
    fn from(tokens: Vec<TextToken>) -> Self {
        let alternative =
            |(bytes, logprob): (Vec<u8>, f32)| Alternative { token: name(&bytes, ""), logprob: finite(logprob), bytes };
        let token = |token: TextToken| ChatToken {
            token: name(&token.bytes, ""),
            logprob: finite(token.logprob),
            bytes: token.bytes,
            top_logprobs: token.likeliest.into_iter().map(alternative).collect(),
        };
        Self { content: tokens.into_iter().map(token).collect(), refusal: None }
    }
}

/// Of a completion's choice: four lists, one entry a token.
#[derive(Default, Serialize)]
pub(super) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<ByToken>,
    text_offset: Vec<usize>,
}

/// Alternatives and the token itself, likeliest first. Tokens of one name count as one: the likelier stays.
struct ByToken(Vec<(String, f32)>);

impl Serialize for ByToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl From<Vec<TextToken>> for TextLogprobs {
    fn from(tokens: Vec<TextToken>) -> Self {
        let mut lists = Self::default();
        for token in tokens {
            let own = (name(&token.bytes, "bytes:"), finite(token.logprob));
            let mut alternatives: Vec<(String, f32)> = Vec::new();
            let likeliest = token.likeliest.iter().map(|(bytes, logprob)| (name(bytes, "bytes:"), finite(*logprob)));
            for (token, logprob) in likeliest.chain([own.clone()]) {
                if !alternatives.iter().any(|(other, _)| *other == token) {
                    alternatives.push((token, logprob));
                }
            }
            lists.tokens.push(own.0);
            lists.token_logprobs.push(own.1);
            lists.top_logprobs.push(ByToken(alternatives));
            lists.text_offset.push(token.offset);
        }
        lists
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(LEAST)
}

/// A token as text, and a part of a character as OpenAI writes it: `\xc3`, behind a prefix of the endpoint's own.
fn name(bytes: &[u8], prefix: &str) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(prefix.to_owned(), |name, byte| name + &format!("\\x{byte:02x}")),
    }
}
