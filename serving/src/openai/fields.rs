//! The fields of a JSON object, taken one by one, so that every field is either used, known to be harmless, or refused.
//!
//! Values stay unparsed until they are taken with the type that they must have: a hostile body costs one pass over its
//! bytes and no recursion, whatever is in it.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::error::ApiError;

/// No request has nearly as many.
const MOST_FIELDS: usize = 64;
/// Longest value that is compared with the neutral ones.
const LONGEST_NEUTRAL_BYTES: usize = 64;

/// A field that would change the answer and is not implemented, with the values (as JSON) that ask for nothing.
pub(super) type Unsupported = (&'static str, &'static [&'static str]);

/// Fields of one object that nobody has taken yet. No `Debug`: it holds prompts.
pub(super) struct Fields<'a> {
    /// Where the object is in the request, for messages: empty, or like `messages[0].`
    path: String,
    fields: BTreeMap<String, &'a RawValue>,
}

/// What a JSON value is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    List,
    Other,
}

/// The kind of a value.
pub(super) fn kind(value: &RawValue) -> Kind {
    match value.get().bytes().next() {
        Some(b'"') => Kind::Text,
        Some(b'[') => Kind::List,
        _ => Kind::Other,
    }
}

impl<'a> Fields<'a> {
    /// The fields of a request body.
    pub(super) fn of_body(text: &'a str) -> Result<Self, ApiError> {
        let fields: FieldMap<'a> = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = if error.is_data() {
                format!("The request body must be a JSON object of at most {MOST_FIELDS} fields, none of them twice.")
            } else {
                format!("The request body is not valid JSON (line {line}, column {column}).")
            };
            ApiError::invalid("invalid_json", message)
        })?;
        Ok(Self { path: String::new(), fields: fields.0 })
    }

    /// The fields of an object inside a request; `path` says where it is.
    pub(super) fn of_value(value: &'a RawValue, path: &str) -> Result<Self, ApiError> {
        let fields: FieldMap<'a> = serde_json::from_str(value.get())
            .map_err(|_| ApiError::wrong_type(path, "an object whose fields are all different"))?;
        Ok(Self { path: format!("{path}."), fields: fields.0 })
    }

    /// A field's name as messages give it.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// Takes a field as it is; `null` counts as absent.
    pub(super) fn take_raw(&mut self, field: &str) -> Option<&'a RawValue> {
        self.fields.remove(field).filter(|value| value.get() != "null")
    }

    /// Takes a field; `null` counts as absent. `expected` completes the sentence "expected …".
    pub(super) fn take<T: Deserialize<'a>>(&mut self, field: &str, expected: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take_raw(field) else { return Ok(None) };
        let value = serde_json::from_str(value.get());
        value.map(Some).map_err(|_| ApiError::wrong_type(&self.name(field), expected))
    }

    /// Takes a whole number within a range.
    pub(super) fn take_integer(&mut self, field: &str, range: RangeInclusive<i128>) -> Result<Option<i128>, ApiError> {
        match self.take::<i128>(field, "an integer")? {
            Some(value) if !range.contains(&value) => {
                let expected = format!("an integer from {} to {}", range.start(), range.end());
                Err(ApiError::wrong_value(&self.name(field), &expected))
            }
            value => Ok(value),
        }
    }

    /// Takes a number within a range.
    pub(super) fn take_number(&mut self, field: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        match self.take::<f32>(field, "a number")? {
            Some(value) if !range.contains(&value) => {
                let expected = format!("a number from {} to {}", range.start(), range.end());
                Err(ApiError::wrong_value(&self.name(field), &expected))
            }
            value => Ok(value),
        }
    }

    /// Takes a field that must be there.
    pub(super) fn require<T: Deserialize<'a>>(&mut self, field: &str, expected: &str) -> Result<T, ApiError> {
        self.take(field, expected)?.ok_or_else(|| ApiError::missing(&self.name(field)))
    }

    /// Refuses what is left, except `harmless` fields, and fields whose value asks for nothing.
    pub(super) fn refuse_rest(self, harmless: &[&str], unsupported: &[Unsupported]) -> Result<(), ApiError> {
        for (field, value) in &self.fields {
            if harmless.contains(&field.as_str()) {
                continue;
            }
            let Some((_, neutral)) = unsupported.iter().find(|(name, _)| name == field) else {
                return Err(ApiError::unknown_field(&self.name(field)));
            };
            if value.get() != "null" && !is_one_of(value, neutral) {
                return Err(ApiError::unsupported(&self.name(field), neutral.first().unwrap_or(&"null")));
            }
        }
        Ok(())
    }
}

fn is_one_of(value: &RawValue, neutral: &[&str]) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    value.get().len() <= LONGEST_NEUTRAL_BYTES
        && parse(value.get()).is_some_and(|value| neutral.iter().any(|text| parse(text).as_ref() == Some(&value)))
}

struct FieldMap<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for FieldMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.len() >= MOST_FIELDS {
                        return Err(A::Error::custom("too many fields"));
                    }
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field appears twice"));
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Collect).map(FieldMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let depth = 500_000;
        let body = format!(r#"{{"metadata": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let mut fields = Fields::of_body(&body).unwrap();
        assert!(fields.take::<Vec<String>>("metadata", "a list").is_err());
    }

    #[test]
    fn unknown_field_is_refused_and_neutral_value_is_not() {
        let unsupported: &[Unsupported] = &[("n", &["1"])];
        let rest = |body| Fields::of_body(body).unwrap().refuse_rest(&["user"], unsupported);
        assert!(rest(r#"{"n": 1, "user": {"any": "thing"}}"#).is_ok());
        assert!(rest(r#"{"n": null}"#).is_ok());
        assert!(rest(r#"{"n": 2}"#).is_err());
        assert!(rest(r#"{"temprature": 1}"#).is_err());
    }

    #[test]
    fn repeated_field_is_refused() {
        assert!(Fields::of_body(r#"{"model": "a", "model": "b"}"#).is_err());
    }
}
