//! The request that carries a key, and the reply read back from the raw answer.
//!
//! Both are pure functions that the prover and the verifier of a bundle share: from a [`RequestShape`] and a key follows
//! the request body byte for byte, and from the raw answer follows the reply.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use url::Url;

/// Which of the two OpenAI calls carries the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointKind {
    /// `POST /v1/chat/completions`; the key is the user's message.
    Chat,
    /// `POST /v1/completions`; the key is the prompt.
    Completion,
}

impl EndpointKind {
    /// The path under the base URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completion => "completions",
        }
    }
}

/// Everything about a request that is not the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestShape {
    /// Chat or plain completion.
    pub kind: EndpointKind,
    /// The model's name at this server.
    pub model: String,
    /// System prompt; only a chat has one.
    pub system: Option<String>,
    /// Most tokens that the answer may have.
    pub max_tokens: u32,
}

impl RequestShape {
    /// The body that asks `prompt`: greedy, one answer, not streamed.
    pub fn body(&self, prompt: &str) -> String {
        let mut body = json!({ "model": self.model });
        match self.kind {
            EndpointKind::Chat => {
                let system = self.system.iter().map(|system| json!({ "role": "system", "content": system }));
                let user = json!({ "role": "user", "content": prompt });
                body["messages"] = system.chain([user]).collect();
            }
            EndpointKind::Completion => body["prompt"] = prompt.into(),
        }
        body["temperature"] = 0.into();
        body["max_tokens"] = self.max_tokens.into();
        body["stream"] = false.into();
        body.to_string()
    }

    /// The text of the first choice in a raw answer.
    ///
    /// An explicit refusal, or an empty text, is a reply too: an empty one.
    ///
    /// # Errors
    ///
    /// When the answer is not what this call returns. The error never holds a part of the answer.
    pub fn reply(&self, response: &str) -> Result<String, ReplyError> {
        let answer = parse(response)?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(ReplyError::ErrorObject { message: error_message(error) });
        }
        let choices = answer.get("choices").and_then(Value::as_array).ok_or(ReplyError::NotACompletion)?;
        let choice = choices.first().ok_or(ReplyError::NoChoices)?;
        let (text, refusal) = match self.kind {
            EndpointKind::Chat => {
                let message = choice.get("message").filter(|message| message.is_object()).ok_or(ReplyError::NoText)?;
                (message.get("content"), message.get("refusal"))
            }
            EndpointKind::Completion => (choice.get("text"), None),
        };
        match text {
            Some(Value::String(text)) => Ok(text.clone()),
            // A refusal counts as a reply outside the candidates, not as a broken server.
            _ if refusal.is_some_and(Value::is_string) => Ok(String::new()),
            _ => Err(ReplyError::NoText),
        }
    }
}

impl RequestShape {
    /// The reply in an answer as a bundle records it. None when there is none: no answer, no success, or no reply in it.
    pub(crate) fn recorded_reply(&self, status: Option<u16>, response: &str) -> Option<String> {
        status.filter(|status| (200..300).contains(status)).and_then(|_| self.reply(response).ok())
    }
}

/// The names in the answer of `GET /v1/models`, in its order.
pub(crate) fn model_names(response: &str) -> Result<Vec<String>, ReplyError> {
    let answer = parse(response)?;
    let models = answer.get("data").and_then(Value::as_array).ok_or(ReplyError::NotAModelList)?;
    let names: Vec<String> = models.iter().filter_map(|model| model.get("id")?.as_str()).map(str::to_owned).collect();
    if names.is_empty() { Err(ReplyError::NoModels) } else { Ok(names) }
}

/// What a server says in an error body of OpenAI's shape, or in one of the looser shapes that others use.
pub(crate) fn server_message(response: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(response).ok()?;
    let error = answer.get("error").or_else(|| answer.get("detail")).or_else(|| answer.get("message"))?;
    error_message(error)
}

fn error_message(error: &Value) -> Option<String> {
    let message = error.as_str().or_else(|| error.get("message")?.as_str())?;
    Some(message.to_owned())
}

fn parse(response: &str) -> Result<Value, ReplyError> {
    let start = response.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if start.is_empty() {
        return Err(ReplyError::Empty);
    }
    if start.starts_with('<') {
        return Err(ReplyError::Html);
    }
    if start.starts_with("data:") || start.starts_with("event:") || start.starts_with(": ") {
        return Err(ReplyError::EventStream);
    }
    // The parser's own message is dropped: it may quote the answer.
    serde_json::from_str(response)
        .map_err(|error| if error.is_eof() { ReplyError::Truncated } else { ReplyError::NotJson })
}

/// An answer that holds no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The body has no content.
    #[error("the answer is empty; check that the URL is an OpenAI-compatible API")]
    Empty,
    /// A web page.
    #[error("the answer is a web page, not JSON; check that the URL is the API's base address (often it ends in /v1)")]
    Html,
    /// Server-sent events.
    #[error(
        "the answer is an event stream although none was asked for; switch streaming off at the server or a proxy before it"
    )]
    EventStream,
    /// JSON that ends too early.
    #[error(
        "the answer is cut off in the middle of its JSON; try again, or ask whoever runs the server or a proxy before it"
    )]
    Truncated,
    /// Something else.
    #[error("the answer is not JSON; check that the URL is an OpenAI-compatible API")]
    NotJson,
    /// A success status around an error.
    #[error("the server answered with an error inside a successful response{}", said(.message))]
    ErrorObject {
        /// What it says, if it says it in the usual place. Not shown for a secret request.
        message: Option<String>,
    },
    /// JSON of another shape.
    #[error(
        "the answer has no list of choices; check that the URL is an OpenAI-compatible API and that it offers this call"
    )]
    NotACompletion,
    /// `"choices": []`.
    #[error("the answer holds no choice; check that the model's name is right and that the server is healthy")]
    NoChoices,
    /// A choice of the other call's shape, or without content.
    #[error(
        "the answer's first choice has no text; allow more tokens if the model reasons before it answers, or use the other call (chat or completion)"
    )]
    NoText,
    /// `/v1/models` answered something else.
    #[error("the server's list of models cannot be read; give the model's name yourself")]
    NotAModelList,
    /// `/v1/models` is empty.
    #[error("the server lists no model; load one there or give the model's name yourself")]
    NoModels,
}

impl ReplyError {
    /// The same error without anything that the server wrote.
    pub(crate) fn without_message(self) -> Self {
        match self {
            Self::ErrorObject { .. } => Self::ErrorObject { message: None },
            other => other,
        }
    }
}

/// `: message`, or nothing.
pub(crate) fn said(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}

/// The API's base, ending in a slash, from what a user gives: with or without `/v1`, or a complete call.
pub(crate) fn base_url(given: &Url) -> Result<Url, &'static str> {
    if !matches!(given.scheme(), "http" | "https") {
        return Err("it must begin with http:// or https://");
    }
    if given.host_str().is_none_or(str::is_empty) {
        return Err("it names no host");
    }
    if !given.username().is_empty() || given.password().is_some() {
        return Err("it holds a user name or password; give the API key separately");
    }
    if given.query().is_some() || given.fragment().is_some() {
        return Err("it must end with its path: no `?` and no `#`");
    }
    let path = given.path().trim_end_matches('/');
    let path = [EndpointKind::Chat.path(), EndpointKind::Completion.path()]
        .iter()
        .find_map(|call| path.strip_suffix(call)?.strip_suffix('/'))
        .unwrap_or(path);
    // `/v1`, but also `/v1beta/openai` and the like: whoever writes a version knows the path.
    let versioned = path.split('/').any(|segment| {
        segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    let mut base = given.clone();
    base.set_path(&if versioned { format!("{path}/") } else { format!("{path}/v1/") });
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> RequestShape {
        RequestShape { kind: EndpointKind::Chat, model: "m".into(), system: None, max_tokens: 4 }
    }

    fn completion() -> RequestShape {
        RequestShape { kind: EndpointKind::Completion, ..chat() }
    }

    #[test]
    fn bodies_are_what_openai_documents() {
        let system = RequestShape { system: Some("Be \"kind\".".into()), ..chat() };
        assert_eq!(
            system.body("Say a"),
            r#"{"model":"m","messages":[{"role":"system","content":"Be \"kind\"."},{"role":"user","content":"Say a"}],"temperature":0,"max_tokens":4,"stream":false}"#
        );
        assert_eq!(
            completion().body("Say a"),
            r#"{"model":"m","prompt":"Say a","temperature":0,"max_tokens":4,"stream":false}"#
        );
    }

    #[test]
    fn replies_are_the_first_choice() {
        let read = |text: &str| chat().reply(text);
        assert_eq!(read(r#"{"choices":[{"message":{"content":" a"}},{"message":{"content":"b"}}]}"#).unwrap(), " a");
        assert_eq!(read(r#"{"error":null,"choices":[{"message":{"content":""}}]}"#).unwrap(), "");
        assert_eq!(read(r#"{"choices":[{"message":{"content":null,"refusal":"no"}}]}"#).unwrap(), "");
        assert_eq!(completion().reply(r#"{"choices":[{"text":"a"}]}"#).unwrap(), "a");
    }

    #[test]
    fn every_unusable_answer_has_its_own_error() {
        let cases = [
            ("", ReplyError::Empty),
            (" <!doctype html>", ReplyError::Html),
            ("data: {\"choices\":[]}\n\n", ReplyError::EventStream),
            (r#"{"choices":[{"mess"#, ReplyError::Truncated),
            ("Bad gateway", ReplyError::NotJson),
            (r#"{"error":{"message":"no"}}"#, ReplyError::ErrorObject { message: Some("no".into()) }),
            ("[]", ReplyError::NotACompletion),
            ("{}", ReplyError::NotACompletion),
            (r#"{"choices":[]}"#, ReplyError::NoChoices),
            (r#"{"choices":[{}]}"#, ReplyError::NoText),
            (r#"{"choices":[{"message":{"content":null}}]}"#, ReplyError::NoText),
            (r#"{"choices":[{"text":"a"}]}"#, ReplyError::NoText),
        ];
        for (answer, error) in cases {
            assert_eq!(chat().reply(answer), Err(error), "{answer}");
        }
        let deep = "[".repeat(100_000);
        assert!(chat().reply(&deep).is_err());
    }

    #[test]
    fn base_is_found_whatever_part_of_it_is_given() {
        let base = |text: &str| base_url(&Url::parse(text).unwrap()).map(|url| url.to_string());
        for same in ["http://a:1", "http://a:1/", "http://a:1/v1", "http://a:1/v1/", "http://a:1/v1/chat/completions"] {
            assert_eq!(base(same).unwrap(), "http://a:1/v1/", "{same}");
        }
        assert_eq!(base("https://a/api").unwrap(), "https://a/api/v1/");
        assert_eq!(base("https://a/v1beta/openai/").unwrap(), "https://a/v1beta/openai/");
        for bad in ["ftp://a", "http://me:key@a", "http://a/?key=1", "http://a/#x", "unix:/tmp/a"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn model_names_are_read_in_order() {
        assert_eq!(model_names(r#"{"data":[{"id":"b"},{"id":"a"}]}"#).unwrap(), ["b", "a"]);
        assert_eq!(model_names(r#"{"data":[]}"#), Err(ReplyError::NoModels));
        assert_eq!(model_names("[]"), Err(ReplyError::NotAModelList));
    }
}
