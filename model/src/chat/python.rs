//! What a template expects of Python and jinja2 beyond what minijinja has.

use std::fmt::Write;

use minijinja::{
    Environment, Error, ErrorKind, State, Value, escape_formatter, filters,
    value::{Kwargs, StringInput, ValueKind},
};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Most levels of lists and dictionaries in a value that becomes text.
const LEVELS: usize = 128;
/// What a value inside a list or a dictionary costs when it becomes text, in steps of the template's budget.
const STEPS_A_VALUE: u64 = 4;
/// Bytes of text that one more step pays for: what minijinja asks for text that it has made of a list.
const BYTES_A_STEP: usize = 4;

/// A template's call of `raise_exception`, with its message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Adds filters, functions, tests and methods.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| {
        pay(state, value)?;
        escape_formatter(out, state, value)
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment.add_filter("trim", trim);
    environment.add_filter("string", string);
    environment.add_filter("join", join);
    // In Python a string and a dictionary have a length and items, which is what jinja2 asks.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
    });
    environment.add_test("iterable", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined
        )
    });
}

/// Takes the steps that the text of a value costs, before there is any.
///
/// A list may hold another one twice, and that one a third: a template makes a value of a few dozen lists whose text
/// fills any memory, and minijinja counts a text only when it has it. Of a string it knows the length.
fn pay(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.as_object().is_some() { pay_level(state, value, 0, &|_| 0) } else { Ok(()) }
}

/// Takes the steps of a value that is so many levels deep in the one that becomes text. `padding` is what is written
/// around each value of a level, in bytes.
fn pay_level(
    state: &State<'_, '_>,
    value: &Value,
    level: usize,
    padding: &dyn Fn(usize) -> usize,
) -> Result<(), Error> {
    if level > LEVELS {
        return Err(Error::new(ErrorKind::InvalidOperation, "lists and dictionaries are nested too deeply"));
    }
    let bytes = value.as_str().map_or(0, str::len) + padding(level);
    let steps = u64::try_from(bytes.div_ceil(BYTES_A_STEP)).unwrap_or(u64::MAX);
    state.consume_fuel(steps.saturating_add(STEPS_A_VALUE))?;
    let Some(object) = value.as_object() else { return Ok(()) };
    let below = |value: &Value| pay_level(state, value, level + 1, padding);
    match value.kind() {
        ValueKind::Map => object.try_iter_pairs().into_iter().flatten().try_for_each(|(key, value)| {
            below(&key)?;
            below(&value)
        }),
        ValueKind::Seq | ValueKind::Iterable => {
            object.try_iter().into_iter().flatten().try_for_each(|value| below(&value))
        }
        _ => Ok(()),
    }
}

fn raise_exception(state: &State<'_, '_>, message: &Value) -> Result<Value, Error> {
    pay(state, message)?;
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message.to_string())))
}

/// `str.strip` and its kin know a few more blanks than Rust, `str.title` other words; everything else is minijinja's.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    // `str.join` and `str.format` make text of them.
    arguments.iter().try_for_each(|argument| pay(state, argument))?;
    if let (Some(text), [], true) = (value.as_str(), arguments, value.kind() == ValueKind::String) {
        match name {
            "strip" => return Ok(text.trim_matches(is_blank).into()),
            "lstrip" => return Ok(text.trim_start_matches(is_blank).into()),
            "rstrip" => return Ok(text.trim_end_matches(is_blank).into()),
            "title" => return Ok(title(text).into()),
            _ => {}
        }
    }
    unknown_method_callback(state, value, name, arguments)
}

fn trim(state: &State<'_, '_>, value: &Value, characters: Option<&str>) -> Result<String, Error> {
    pay(state, value)?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
        None => text.trim_matches(is_blank).to_owned(),
    })
}

/// minijinja's, paid for before.
fn string(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    pay(state, value)?;
    filters::string(state, value)
}

/// minijinja's, paid for before.
fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<&Value>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    pay(state, value)?;
    let joiner = match joiner {
        Some(joiner) => {
            pay(state, joiner)?;
            Some(StringInput::new(state, joiner)?)
        }
        None => None,
    };
    filters::join(state, value, joiner, attribute, options)
}

/// Python's `str.title`: a word is a run of letters that have a case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for character in text.chars() {
        if in_word {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        in_word = character.is_lowercase() || character.is_uppercase();
    }
    out
}

/// Python's `str.isspace` for one character: Unicode's white space and the four information separators.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// `json.dumps(value, ensure_ascii=False, indent=…, separators=…, sort_keys=…)`, as transformers' filter calls it.
fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let ensure_ascii = option(ensure_ascii, &options, "ensure_ascii")?.unwrap_or(false);
    let indent = option(indent, &options, "indent")?.filter(|indent| !indent.is_none());
    let separators: Option<Value> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;

    let indent = match indent {
        Some(text) if text.kind() == ValueKind::String => Some(text.to_string()),
        Some(width) => Some(" ".repeat(usize::try_from(width)?.min(64))),
        None => None,
    };
    let (item, key) = match separators {
        Some(pair) => {
            let part = |index| pair.get_item_by_index(index).ok()?.as_str().map(str::to_owned);
            match (pair.len(), part(0), part(1)) {
                (Some(2), Some(item), Some(key)) => (item, key),
                _ => return Err(Error::new(ErrorKind::InvalidOperation, "separators must be two strings")),
            }
        }
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let writer = JsonWriter { ensure_ascii, indent, item, key, sort_keys: sort_keys.unwrap_or(false) };
    pay_level(state, value, 0, &|level| writer.padding(level))?;
    let value = serde_json::to_value(value)
        .map_err(|source| Error::new(ErrorKind::InvalidOperation, "cannot write as JSON").with_source(source))?;
    let mut out = String::new();
    writer.write(&value, 0, &mut out);
    Ok(out.into())
}

/// An argument given by position or by name.
fn option<T>(positional: Option<T>, options: &Kwargs, name: &str) -> Result<Option<T>, Error>
where
    T: for<'a> minijinja::value::ArgType<'a, Output = T>,
{
    match positional {
        Some(value) => Ok(Some(value)),
        None => options.get::<Option<T>>(name),
    }
}

struct JsonWriter {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl JsonWriter {
    /// Most bytes around a value of this depth: separators, and the indentation of its two ends.
    fn padding(&self, depth: usize) -> usize {
        let indentation = self.indent.as_ref().map_or(0, |indent| 2 * (1 + indent.len().saturating_mul(depth)));
        self.item.len() + self.key.len() + indentation
    }

    fn write(&self, value: &serde_json::Value, depth: usize, out: &mut String) {
        match value {
            serde_json::Value::String(text) => self.write_string(text, out),
            serde_json::Value::Array(items) if items.is_empty() => out.push_str("[]"),
            serde_json::Value::Object(map) if map.is_empty() => out.push_str("{}"),
            serde_json::Value::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push(']');
            }
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                out.push('{');
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.write_string(key, out);
                    out.push_str(&self.key);
                    self.write(value, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push('}');
            }
            leaf => out.push_str(&leaf.to_string()),
        }
    }

    fn separate(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.item);
        }
        self.new_line(depth, out);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                plain if u32::from(plain) >= 0x20 && (plain.is_ascii() && plain != '\u{7f}' || !self.ensure_ascii) => {
                    out.push(plain);
                }
                escaped => {
                    for unit in escaped.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        write!(out, "\\u{unit:04x}").unwrap_or_default();
                    }
                }
            }
        }
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, value: serde_json::Value) -> String {
        let mut environment = Environment::new();
        install(&mut environment);
        environment.render_str(source, minijinja::context! { v => minijinja::value::Serde(value) }).unwrap()
    }

    #[test]
    fn to_json_writes_as_python() {
        let value = serde_json::json!({"b": [1, 2.5, true, null, []], "a": {"ü\u{7f}": "\"\\\n\u{1}é😀<&>"}});
        for (source, expected) in [
            (
                "{{ v | tojson }}",
                "{\"b\": [1, 2.5, true, null, []], \"a\": {\"ü\u{7f}\": \"\\\"\\\\\\n\\u0001é😀<&>\"}}",
            ),
            (
                "{{ v.a | tojson(ensure_ascii=true) }}",
                "{\"\\u00fc\\u007f\": \"\\\"\\\\\\n\\u0001\\u00e9\\ud83d\\ude00<&>\"}",
            ),
            ("{{ v.b[:2] | tojson(indent=2) }}", "[\n  1,\n  2.5\n]"),
            (
                "{{ {'z': 1, 'y': {'x': []}} | tojson(indent=4, sort_keys=true) }}",
                "{\n    \"y\": {\n        \"x\": []\n    },\n    \"z\": 1\n}",
            ),
            ("{{ v.b[:2] | tojson(separators=(',', ':')) }}", "[1,2.5]"),
        ] {
            assert_eq!(render(source, value.clone()), expected, "{source}");
        }
    }

    #[test]
    fn values_print_as_python_prints_them() {
        for (source, expected) in [
            ("{{ true }} {{ none }} {{ 1.0 }} {{ undefined_name }}|", "True None 1.0 |"),
            ("{{ 'a' ~ none ~ true ~ 2 }}", "aNoneTrue2"),
            ("{{ v is sequence }} {{ 'x' is iterable }} {{ 1 is iterable }}", "True True False"),
            ("{{ ' \u{1f}x\u{a0}\n'.strip() }}|{{ ' \u{1e}x ' | trim }}|{{ 'xxaxx' | trim('x') }}", "x|x|a"),
            ("{{ 'x  y'.split() }} {{ ['a', none, 1.5] }}", "['x', 'y'] ['a', None, 1.5]"),
            ("{{ ['a', none, [2]] | join('-') }} {{ [1, 2] | string | trim('[') }}", "a-None-[2] 1, 2]"),
        ] {
            assert_eq!(render(source, serde_json::json!({"k": 1})), expected, "{source}");
        }
    }
}
