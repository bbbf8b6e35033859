//! URLhaus: the whole answer, or only its tags.

use crate::core::jsonb::{walk, Value};
use crate::core::typed::{texts, Item};

fn member<'a>(value: Value<'a>, key: &[u8]) -> Option<Value<'a>> {
    walk(value, [key])
}

/// The distinct tags of all URLs, in the order of their bytes. None where nothing is said about tags; an answer with URLs
/// says it.
pub fn tags(payload: Value) -> Option<Vec<Item>> {
    let mut tags: Vec<Item> = match member(payload, b"urls") {
        Some(Value::Array(urls)) => urls.elements().filter_map(|url| texts(member(url, b"tags")?)).flatten().collect(),
        _ => {
            let said = if matches!(payload, Value::Text(_)) { payload } else { member(payload, b"tags")? };
            texts(said).filter(|tags| !tags.is_empty())?
        }
    };
    tags.sort_unstable();
    tags.dedup();
    Some(tags)
}

/// How many of the URLs are online.
pub fn online(payload: Value) -> Option<i64> {
    let Value::Array(urls) = member(payload, b"urls")? else { return None };
    let online = |url: &Value| member(*url, b"url_status") == Some(Value::Text(b"online"));
    Some(urls.elements().filter(online).count() as i64)
}
