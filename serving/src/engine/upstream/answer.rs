//! What the events of a completion say, and whether they may.

use protocol::units::TokenCount;
use serde::{Deserialize, de::IgnoredAny};

use super::error::UpstreamError;
use crate::engine::{Finish, FinishReason, ReportedUsage};

/// What an event means.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// More text, or none.
    Said(String),
    /// Nothing follows.
    Done(Ending),
}

/// The end of a completion.
#[derive(Debug, PartialEq)]
pub(super) struct Ending {
    pub(super) finish: Finish,
    /// Tokens of the prompt that came from a cache, if the server tells.
    pub(super) cached: Option<TokenCount>,
}

/// One completion, as far as it has come.
#[derive(Debug)]
pub(super) struct Answer {
    /// Bytes of text that may still come.
    room: usize,
    limit_bytes: usize,
    reason: Option<FinishReason>,
    usage: Option<UsageFigures>,
}

/// One event. Members that are not named here do not matter.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<UsageFigures>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct UsageFigures {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl Answer {
    /// Of at most so many bytes of text.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { room: limit_bytes, limit_bytes, reason: None, usage: None }
    }

    /// Takes the data of the next event. Not to be called again after [`Step::Done`].
    pub(super) fn take(&mut self, data: &str) -> Result<Step, UpstreamError> {
        if data.trim() == "[DONE]" {
            return self.end().map(Step::Done);
        }
        let Chunk { choices, usage, error } =
            serde_json::from_str(data).map_err(|error| UpstreamError::from(&error))?;
        if error.is_some() {
            return Err(UpstreamError::Failed);
        }
        // Some servers count as they go: the last figure is the one for all of it.
        self.usage = usage.or(self.usage);
        let mut said = String::new();
        for choice in choices {
            said += &self.choice(choice)?;
        }
        Ok(Step::Said(said))
    }

    /// The end of the stream, which is not the end of the answer.
    pub(super) fn cut_off(&self) -> UpstreamError {
        UpstreamError::Incomplete { has_reason: self.reason.is_some() }
    }

    fn choice(&mut self, Choice { index, text, finish_reason }: Choice) -> Result<String, UpstreamError> {
        if index != 0 {
            return Err(UpstreamError::OtherChoice { index });
        }
        let text = text.unwrap_or_default();
        if self.reason.is_some() && !text.is_empty() {
            return Err(UpstreamError::AfterEnd);
        }
        let limit_bytes = self.limit_bytes;
        self.room = self.room.checked_sub(text.len()).ok_or(UpstreamError::TooMuchText { limit_bytes })?;
        if let Some(reason) = finish_reason {
            self.reason = Some(finish_reason_of(&reason)?);
        }
        Ok(text)
    }

    fn end(&self) -> Result<Ending, UpstreamError> {
        let reason = self.reason.ok_or_else(|| self.cut_off())?;
        let reported = self.usage.map(|usage| ReportedUsage {
            prompt: TokenCount::new(usage.prompt_tokens),
            completion: TokenCount::new(usage.completion_tokens),
        });
        let cached = self.usage.and_then(|usage| usage.prompt_tokens_details?.cached_tokens).map(TokenCount::new);
        Ok(Ending { finish: Finish { reason, reported }, cached })
    }
}

fn finish_reason_of(reason: &str) -> Result<FinishReason, UpstreamError> {
    match reason {
        // The last two are TGI's own.
        "stop" | "eos_token" | "stop_sequence" => Ok(FinishReason::Stop),
        "length" => Ok(FinishReason::Length),
        // `abort`, `content_filter` and others: what came is no answer.
        _ => Err(UpstreamError::Reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        serde_json::json!({"choices": [{"index": 0, "text": text, "finish_reason": null}], "usage": null}).to_string()
    }

    fn ended(reason: &str) -> String {
        serde_json::json!({"choices": [{"index": 0, "text": "", "finish_reason": reason}]}).to_string()
    }

    /// All the text, and the last step.
    fn read(events: &[String]) -> Result<(String, Step), UpstreamError> {
        let mut answer = Answer::new(10);
        let mut said = String::new();
        for event in events {
            match answer.take(event)? {
                Step::Said(text) => said += &text,
                done => return Ok((said, done)),
            }
        }
        Err(answer.cut_off())
    }

    #[test]
    fn figures_are_read_wherever_the_server_puts_them() {
        let figures =
            r#""usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}"#;
        let reported = ReportedUsage { prompt: TokenCount::new(5), completion: TokenCount::new(2) };
        for chunks in [
            vec![ended("stop"), format!(r#"{{"choices":[],{figures}}}"#)],
            vec![format!(r#"{{"choices":[{{"text":"","finish_reason":"stop"}}],{figures}}}"#)],
        ] {
            let events = [vec![text("one"), text(" two")], chunks, vec!["[DONE]".to_owned()]].concat();
            let finish = Finish { reason: FinishReason::Stop, reported: Some(reported) };
            let ending = Ending { finish, cached: Some(TokenCount::new(4)) };
            assert_eq!(read(&events).unwrap(), ("one two".to_owned(), Step::Done(ending)));
        }
        let (_, step) = read(&[ended("length"), "[DONE]".to_owned()]).unwrap();
        let finish = Finish { reason: FinishReason::Length, reported: None };
        assert_eq!(step, Step::Done(Ending { finish, cached: None }));
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        let done = || "[DONE]".to_owned();
        let second = r#"{"choices":[{"index":1,"text":"x"}]}"#.to_owned();
        assert!(matches!(read(&[text("a"), done()]), Err(UpstreamError::Incomplete { has_reason: false })));
        assert!(matches!(read(&[text("a"), ended("stop")]), Err(UpstreamError::Incomplete { has_reason: true })));
        assert!(matches!(read(&[ended("stop"), text("a"), done()]), Err(UpstreamError::AfterEnd)));
        assert!(matches!(read(&[ended("abort"), done()]), Err(UpstreamError::Reason)));
        assert!(matches!(read(&[second, done()]), Err(UpstreamError::OtherChoice { index: 1 })));
        assert!(matches!(read(&[r#"{"error":{"message":"x"}}"#.to_owned()]), Err(UpstreamError::Failed)));
        assert!(matches!(read(&[text("12345"), text("67890")]), Err(UpstreamError::Incomplete { .. })));
        assert!(matches!(read(&[text("12345"), text("678901")]), Err(UpstreamError::TooMuchText { limit_bytes: 10 })));
    }

    #[test]
    fn malformed_events_are_not_quoted() {
        for event in [
            "zanzibar",
            r#"{"choices":"zanzibar"}"#,
            r#"{"choices":[{"text":["zanzibar"]}]}"#,
            "",
            "[]",
            "{\"choices\":[",
        ] {
            let error = read(&[event.to_owned()]).unwrap_err();
            assert!(matches!(error, UpstreamError::Malformed { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("zanzibar"), "{error}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&[format!(r#"{{"other":{deep}}}"#)]).is_err());
    }
}
