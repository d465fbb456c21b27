//! Looking into JSON answers: what is missing is an error that shows the whole answer.

use anyhow::{Context, Result};
use serde_json::Value;

pub fn array<'v>(value: &'v Value, what: &str) -> Result<&'v Vec<Value>> {
    value.as_array().with_context(|| format!("{what} is no array: {value}"))
}

pub fn string<'v>(value: &'v Value, field: &str) -> Result<&'v str> {
    value[field].as_str().with_context(|| format!("no string `{field}` in {value}"))
}

pub fn number(value: &Value, field: &str) -> Result<u64> {
    value[field].as_u64().with_context(|| format!("no number `{field}` in {value}"))
}

/// The object of a list whose `field` is `wanted`.
pub fn find<'v>(list: &'v Value, field: &str, wanted: &str) -> Result<&'v Value> {
    array(list, "the list")?
        .iter()
        .find(|object| object[field] == wanted)
        .with_context(|| format!("nothing with {field} = {wanted} in {list}"))
}
