//! The values of a `config.json`, read by type: a wrong type is refused with the key's name, never
//! passed over.

use super::{missing, refuse};
use crate::ModelError;
use serde_json::{Map, Value};

/// The most that a whole number may be: a context, a width. Real ones stay far below; what a number
/// sizes is bounded by the tensors besides, where there are some (`inventory`).
pub(super) const LARGEST: usize = 1 << 24;

/// Numbers that more is made of before a tensor is seen: one entry a layer, one a token.
const LESS: [(&[&str], usize); 3] = [
    (&["num_hidden_layers"], 1 << 10),
    (&["num_attention_heads", "num_key_value_heads", "num_local_experts", "num_experts"], 1 << 16),
    (&["vocab_size"], MAX_VOCABULARY),
];

/// The most tokens of a vocabulary, and one more than the largest id.
pub const MAX_VOCABULARY: usize = 1 << 22;

fn most(key: &str) -> usize {
    LESS.iter().find(|(keys, _)| keys.contains(&key)).map_or(LARGEST, |(_, most)| *most)
}

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

    /// A whole number, 0 or more, and no more than any model has.
    pub fn whole(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let most = most(key);
        match self.read(key, "a whole number", Value::as_u64)? {
            Some(n) if n > most as u64 => {
                refuse(format!("`{}` is {n}: at most {most} is expected", self.path(key)))
            }
            n => Ok(n.map(|n| n as usize)),
        }
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
