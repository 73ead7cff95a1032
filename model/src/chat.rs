//! Chat templates, rendered as transformers renders them.
//!
//! A template is Jinja source that a model ships. Python's jinja2 is the reference: `trim_blocks`, `lstrip_blocks`, loop
//! controls, Python string methods, values that print as Python prints them, `tojson` with Python's separators,
//! `raise_exception` and `strftime_now`.
//!
//! A template sees nothing but the messages and the names of the special tokens, and has a budget of steps. The text of
//! what it prints, joins, formats and writes as JSON is paid for before it is made. That stops a template that loops or
//! grows. It is no sandbox: `~`, comparisons and minijinja's other filters walk a list that holds another one many
//! times over and count afterwards, if at all, and a list nested a hundred thousand times overflows the stack when it is
//! dropped. Who serves a model has to trust its template that far.
//!
//! Reference: `render_jinja_template` in transformers' `utils/chat_template_utils.py`.

mod clock;
mod python;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use minijinja::{Environment, ErrorKind, context, syntax::SyntaxConfig, value::Serde};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::clock::Clock;
pub use self::clock::UnixSeconds;
use crate::tokenizer::{NAMED_SPECIAL_TOKENS, TokenizerError, read_json_if_present, token_content};

/// Steps that one rendering may take. A chat of a thousand messages needs about a tenth of a million. They pay for at
/// most 20 MB of text made of lists.
const STEPS: u64 = 5_000_000;
const NAME: &str = "chat template";

/// Why a template could not be read or a chat could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template file is unreadable.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `tokenizer_config.json` or `special_tokens_map.json` is unreadable.
    #[error("failed to read the chat template's configuration")]
    Config {
        /// Which file, and why.
        #[source]
        source: TokenizerError,
    },
    /// `chat_template` is neither a string nor a list of names and templates.
    #[error("chat_template in {path} is neither a template nor a list of templates")]
    Shape {
        /// The file.
        path: PathBuf,
    },
    /// There are several templates and none is called `default`.
    #[error("chat_template in {path} names {names} and no default")]
    NoDefault {
        /// The file.
        path: PathBuf,
        /// The names that there are.
        names: String,
    },
    /// The template is not Jinja.
    #[error("the chat template in {path} has a syntax error")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: minijinja::Error,
    },
    /// There is no message to render.
    #[error("a chat needs at least one message")]
    Empty,
    /// The template itself refused the messages, for instance because roles do not alternate.
    #[error("the chat template refuses these messages: {reason}")]
    Refused {
        /// What the template said.
        reason: String,
    },
    /// The template failed on these messages.
    #[error("failed to render the chat template")]
    Render {
        /// Where and what.
        #[source]
        source: minijinja::Error,
    },
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// A message that sets the assistant's behaviour.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A message to the assistant.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }
}

/// A model's chat template. Cloning is cheap.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    special_tokens: Arc<serde_json::Map<String, Value>>,
    source: Arc<str>,
    clock: Clock,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads a model folder's template: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, which is
    /// a string or a list of named templates (then `default` is taken). `None` when the model has none.
    pub fn load(directory: &Path) -> Result<Option<Self>, ChatError> {
        let config_path = directory.join("tokenizer_config.json");
        let read = |path: &Path| read_json_if_present(path).map_err(|source| ChatError::Config { source });
        let config = read(&config_path)?.unwrap_or(Value::Null);
        let map = read(&directory.join("special_tokens_map.json"))?.unwrap_or(Value::Null);

        let file = directory.join("chat_template.jinja");
        let (path, source) = match fs::read_to_string(&file) {
            Ok(source) => (file, source),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match configured(&config, &config_path)? {
                Some(source) => (config_path, source),
                None => return Ok(None),
            },
            Err(source) => return Err(ChatError::Read { path: file, source }),
        };

        let special_tokens = NAMED_SPECIAL_TOKENS
            .iter()
            .filter_map(|name| {
                let token = [&config, &map].into_iter().find_map(|from| token_content(from.get(*name)?))?;
                Some(((*name).to_owned(), Value::from(token)))
            })
            .collect();
        Self::new(&source, special_tokens).map(Some).map_err(|source| ChatError::Syntax { path, source })
    }

    /// A template from its source and the special tokens by their names (`bos_token` …).
    pub fn new(source: &str, special_tokens: serde_json::Map<String, Value>) -> Result<Self, minijinja::Error> {
        let clock = Clock::default();
        let environment = environment(source, clock.clone())?;
        Ok(Self {
            environment: Arc::new(environment),
            special_tokens: Arc::new(special_tokens),
            source: source.into(),
            clock,
        })
    }

    /// Fixes the time that `strftime_now` sees, so that a template that prints today's date renders the same tomorrow.
    /// The time is UTC; without this it is the system's clock.
    pub fn at(&self, now: UnixSeconds) -> Self {
        let clock = Clock::fixed(now);
        // The source was compiled before, so this cannot fail; should it ever, the old clock stays.
        match environment(&self.source, clock.clone()) {
            Ok(environment) => Self { environment: Arc::new(environment), clock, ..self.clone() },
            Err(_) => self.clone(),
        }
    }

    /// Whether renderings may change with the date.
    pub fn reads_clock(&self) -> bool {
        !self.clock.is_fixed() && self.source.contains("strftime_now")
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for a chat, special tokens spelt out: encode it with [`encode_template`].
    /// `add_generation_prompt` ends it where the assistant's answer begins.
    ///
    /// [`encode_template`]: crate::Tokenizer::encode_template
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        if messages.is_empty() {
            return Err(ChatError::Empty);
        }
        // `tools` and `documents` are passed as none: templates ask `is defined` as well as `is none`.
        let chat = context! { messages => Serde(messages), tools => (), documents => (), add_generation_prompt };
        let special_tokens = minijinja::Value::from(Serde(&*self.special_tokens));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context! { ..chat, ..special_tokens }))
            .map_err(refusal)
    }
}

/// The reason that a template gave to `raise_exception`, or the error itself.
fn refusal(error: minijinja::Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(python::Raised(reason)) = current.downcast_ref() {
            return ChatError::Refused { reason: reason.clone() };
        }
        cause = current.source();
    }
    ChatError::Render { source: error }
}

/// The template in `tokenizer_config.json`.
fn configured(config: &Value, path: &Path) -> Result<Option<String>, ChatError> {
    let shape = || ChatError::Shape { path: path.to_owned() };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(templates)) => {
            let mut names = Vec::new();
            for entry in templates {
                let name = entry.get("name").and_then(Value::as_str).ok_or_else(shape)?;
                let source = entry.get("template").and_then(Value::as_str).ok_or_else(shape)?;
                if name == "default" {
                    return Ok(Some(source.to_owned()));
                }
                names.push(name);
            }
            Err(ChatError::NoDefault { path: path.to_owned(), names: names.join(", ") })
        }
        Some(_) => Err(shape()),
    }
}

fn environment(source: &str, clock: Clock) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(STEPS));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    python::install(&mut environment);
    environment.add_function("strftime_now", move |format: &str| {
        clock.format(format).map_err(|unknown| {
            minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know {unknown}"))
        })
    });
    // jinja2 reads every kind of line end as a line feed.
    let source = without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"));
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, with which transformers marks the assistant's tokens for
/// training and which render as their content, by a condition that always holds. Whitespace control stays.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end + 2);
        // `{%` and `%}` do not overlap: `{%}` has its end searched from the same byte, and is left as it is.
        let inner = tag.get(2..end).unwrap_or_default();
        let name = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match name {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, ChatError> {
        let tokens = serde_json::json!({"bos_token": "<s>"}).as_object().unwrap().clone();
        ChatTemplate::new(source, tokens).unwrap().render(messages, true)
    }

    #[test]
    fn raised_exception_is_the_reason_of_the_refusal() {
        let source = "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('only users, got ' ~ m.role) }}{% endif %}{% endfor %}";
        let error = render(source, &[Message::system("x")]).unwrap_err();
        assert!(matches!(&error, ChatError::Refused { reason } if reason == "only users, got system"), "{error:?}");
    }

    #[test]
    fn failing_template_is_an_error_and_an_empty_chat_too() {
        assert!(matches!(render("{{ messages.nothing.more }}", &[Message::user("x")]), Err(ChatError::Render { .. })));
        assert!(matches!(render("x", &[]), Err(ChatError::Empty)));
        assert!(ChatTemplate::new("{% if %}", serde_json::Map::new()).is_err());
    }

    #[test]
    fn endless_template_runs_out_of_steps() {
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}";
        assert!(matches!(render(source, &[Message::user("x")]), Err(ChatError::Render { .. })));
    }

    #[test]
    fn list_that_holds_another_twice_is_not_written_out() {
        // A million empty lists. At forty levels instead of twenty no machine has the memory for their text.
        let source = "{% set ns = namespace(x=[]) %}{% for i in range(20) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
        for text in [
            "ns.x",
            "ns.x|tojson",
            "ns.x|trim",
            "ns.x|string",
            "ns.x|join",
            "''.join(ns.x)",
            "'{}'.format(ns.x)",
            "raise_exception(ns.x)",
        ] {
            let rendered = render(&format!("{source}{{{{ {text} }}}}"), &[Message::user("x")]);
            assert!(matches!(rendered, Err(ChatError::Render { .. })), "{text}");
        }
        let padded = "{{ [[[[[[]]]]]]|tojson(indent='          '*100000) }}";
        assert!(matches!(render(padded, &[Message::user("x")]), Err(ChatError::Render { .. })));
    }

    #[test]
    fn value_that_holds_itself_is_not_written_out() {
        let source = "{% set ns = namespace() %}{% set ns.me = ns %}";
        for text in ["ns", "ns|tojson", "ns|string"] {
            let rendered = render(&format!("{source}{{{{ {text} }}}}"), &[Message::user("x")]);
            assert!(matches!(rendered, Err(ChatError::Render { .. })), "{text}");
        }
    }

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        assert_eq!(
            without_generation_tags("a {%- generation -%} b {%generation%}{{ '{%' }}{% endgeneration %} {% if x %}"),
            "a {%- if true -%} b {%if true%}{{ '{%' }}{% endgeneration %} {% if x %}"
        );
        assert_eq!(without_generation_tags("{%}{% endgeneration -%}{% x"), "{%}{% endif -%}{% x");
        let source = "{% for m in messages %}  {%- generation -%}  {{ m.content }}  {%- endgeneration %}{% endfor %}";
        assert_eq!(render(source, &[Message::user("hi")]).unwrap(), "hi");
    }

    #[test]
    fn fixed_time_is_what_the_template_prints() {
        let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", serde_json::Map::new()).unwrap();
        assert!(template.reads_clock());
        let fixed = template.at(UnixSeconds(1_721_952_000));
        assert!(!fixed.reads_clock());
        assert_eq!(fixed.render(&[Message::user("x")], false).unwrap(), "26 Jul 2024");
    }

    #[test]
    fn list_of_templates_needs_a_default() {
        let path = Path::new("tokenizer_config.json");
        let list = |names: &[&str]| {
            let entries: Vec<_> =
                names.iter().map(|n| serde_json::json!({"name": n, "template": format!("<{n}>")})).collect();
            configured(&serde_json::json!({"chat_template": entries}), path)
        };
        assert_eq!(list(&["tool_use", "default"]).unwrap().as_deref(), Some("<default>"));
        assert!(matches!(list(&["tool_use"]), Err(ChatError::NoDefault { .. })));
        assert!(matches!(configured(&serde_json::json!({"chat_template": 3}), path), Err(ChatError::Shape { .. })));
        assert_eq!(configured(&Value::Null, path).unwrap(), None);
    }
}
