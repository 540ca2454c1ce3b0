//! The values of a `config.json`, read by type: a wrong type is refused with the key's name, never
//! passed over.

use super::{missing, refuse};
use crate::ModelError;
use serde_json::{Map, Value};

/// An object of a `config.json`. A key that is `null` counts as absent, except for
/// [`Keys::is_null`].
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    /// What stands before a key's name in messages: the object's own key.
    within: &'a str,
}

impl<'a> Keys<'a> {
    /// The whole file.
    pub fn top(value: &'a Value) -> Result<Self, ModelError> {
        match value.as_object() {
            Some(map) => Ok(Self { map, within: "" }),
            None => refuse("an object { .. } is expected"),
        }
    }

    /// The object under `key`, unless it is empty.
    pub fn inner(&self, key: &'a str) -> Result<Option<Self>, ModelError> {
        let object = self.read(key, "an object", Value::as_object)?;
        Ok(object.map(|map| Self { map, within: key }))
    }

    /// The names of all keys.
    pub fn names(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        self.map.keys()
    }

    /// The key's value.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there and `null`.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Whether no key is there.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The key as a person finds it in the file.
    pub fn path(&self, key: &str) -> String {
        if self.within.is_empty() { key.to_owned() } else { format!("{}.{key}", self.within) }
    }

    /// A whole number, 0 or more.
    pub fn whole(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.read(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// The same, which no default stands in for.
    pub fn need_whole(&self, key: &str) -> Result<usize, ModelError> {
        self.whole(key)?.ok_or_else(|| missing(&self.path(key)))
    }

    /// A number.
    pub fn real(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.read(key, "a number", Value::as_f64)
    }

    /// A number above 0.
    pub fn positive(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.read(key, "a number above 0", |v| v.as_f64().filter(|n| *n > 0.0))
    }

    /// true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.read(key, "a string", Value::as_str)
    }

    /// A list of whole numbers.
    pub fn wholes(&self, key: &str) -> Result<Option<Vec<usize>>, ModelError> {
        let each = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        self.read(key, "a list of whole numbers", |v| v.as_array()?.iter().map(each).collect())
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, ModelError> {
        self.read(key, "a list of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    fn read<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(found) => Ok(Some(found)),
            None => {
                refuse(format!("`{}` is {}: {wanted} is expected", self.path(key), shown(value)))
            }
        }
    }
}

/// A value in a message: short ones as they are, others by their kind.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "another list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string().chars().take(60).collect(),
    }
}
