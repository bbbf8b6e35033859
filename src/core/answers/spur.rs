//! Spur: its own answer, or a list of 18 items in either of the orders that were in use, bare or as `spur_data`.

use crate::core::jsonb::{walk, Container, Value};
use crate::core::typed;

type Path = &'static [&'static [u8]];

/// What was cached.
pub enum Answer<'a> {
    /// As it was received, or nothing that is known.
    Own(Value<'a>),
    /// A list in the order now in use.
    List(Container<'a>),
    /// A list in the older order: texts only, the place in one of them, one tunnel in several.
    Legacy(Container<'a>),
}

/// Recognises the shape. None for a list of nothing, which is what was kept when nothing was learnt.
pub fn answer(payload: Value) -> Option<Answer> {
    let items = match payload {
        Value::Array(items) => items,
        _ => match walk(payload, [b"spur_data".as_slice()]) {
            Some(Value::Array(items)) => items,
            _ => return Some(Answer::Own(payload)),
        },
    };
    let nothing = |item: Value| match item {
        Value::Null | Value::Text(b"") => true,
        Value::Array(inner) => inner.is_empty(),
        _ => false,
    };
    if items.elements().all(nothing) {
        return None;
    }
    let array = |at: &usize| matches!(items.element(*at), Some(Value::Array(_)));
    let number = |at: &usize| matches!(items.element(*at), Some(Value::Number(_)));
    let current = [1, 7, 9, 15, 16, 17].iter().any(array) || [5, 6].iter().any(number);
    Some(if current { Answer::List(items) } else { Answer::Legacy(items) })
}

const LIST: [(Path, usize); 15] = [
    (&[b"as", b"organization"], 0),
    (&[b"client", b"behaviors"], 1),
    (&[b"client", b"countries"], 5),
    (&[b"client", b"count"], 6),
    (&[b"client", b"proxies"], 7),
    (&[b"client", b"spread"], 8),
    (&[b"client", b"types"], 9),
    (&[b"infrastructure"], 10),
    (&[b"location", b"city"], 11),
    (&[b"location", b"country"], 12),
    (&[b"location", b"state"], 13),
    (&[b"organization"], 14),
    (&[b"risks"], 15),
    (&[b"services"], 16),
    (&[b"tunnels"], 17),
];

const LEGACY: [(Path, usize); 15] = [
    (&[b"as", b"number"], 0),
    (&[b"as", b"organization"], 1),
    (&[b"organization"], 2),
    (&[b"infrastructure"], 3),
    (&[b"client", b"behaviors"], 4),
    (&[b"client", b"proxies"], 5),
    (&[b"client", b"types"], 6),
    (&[b"client", b"count"], 7),
    (&[b"client", b"countries"], 9),
    (&[b"client", b"spread"], 10),
    (&[b"risks"], 11),
    (&[b"services"], 12),
    (&[b"tunnels", b"0", b"anonymous"], 14),
    (&[b"tunnels", b"0", b"operator"], 16),
    (&[b"tunnels", b"0", b"type"], 17),
];

impl<'a> Answer<'a> {
    /// The value at a path of Spur's own answer.
    pub fn value<'p>(&self, path: impl Iterator<Item = &'p [u8]> + Clone) -> Option<Value<'a>> {
        let (items, places) = match self {
            Answer::Own(answer) => return walk(*answer, path),
            Answer::List(items) => (items, &LIST),
            Answer::Legacy(items) => {
                if let Some(mut part) = beyond(path.clone(), &[b"location"]) {
                    return place(items, part.next()?).filter(|_| part.next().is_none()).map(Value::Text);
                }
                if beyond(path.clone(), &[b"tunnels"]).is_some() && !tunnel(items) {
                    return None;
                }
                (items, &LEGACY)
            }
        };
        let (at, rest) = places.iter().find_map(|(place, at)| Some((*at, beyond(path.clone(), place)?)))?;
        walk(items.element(at)?, rest)
    }

    /// Whether it comes from a data centre, a VPN or a tunnel. None when the answer is none.
    pub fn flagged(&self) -> Option<bool> {
        let tunnel = match self {
            Answer::Own(Value::Object(_)) | Answer::List(_) => {
                let first = self.value([b"tunnels".as_slice(), b"0"].into_iter());
                matches!(first, Some(Value::Object(_)))
            }
            Answer::Own(_) => return None,
            Answer::Legacy(items) => tunnel(items),
        };
        let infrastructure = self.value(std::iter::once(b"infrastructure".as_slice()));
        Some(tunnel || matches!(infrastructure, Some(Value::Text(b"DATACENTER" | b"VPN"))))
    }
}

/// What is left of a path that leads through a place.
fn beyond<'p, I: Iterator<Item = &'p [u8]>>(mut path: I, place: Path) -> Option<I> {
    place.iter().all(|step| path.next() == Some(step)).then_some(path)
}

fn tunnel(items: &Container) -> bool {
    [17, 16, 14].iter().any(|at| items.element(*at).and_then(typed::text).is_some())
}

/// A part of "city, state, country" without what was empty: two parts do not say which the first one is.
fn place<'a>(items: &Container<'a>, part: &[u8]) -> Option<&'a [u8]> {
    let Value::Text(text) = items.element(13)? else { return None };
    let (before, country) = text.split_at(text.len().checked_sub(2)?);
    if !country.iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    let before = match before.strip_suffix(b", ") {
        Some(before) => before,
        None if before.is_empty() => return (part == b"country").then_some(country),
        None => return None,
    };
    let comma = before.iter().rposition(|byte| *byte == b',');
    let (city, state) = match comma.map(|at| (&before[..at], &before[at + 1..])) {
        Some((city, [b' ', state @ ..])) if !state.is_empty() => (city, state),
        _ => (b"".as_slice(), b"".as_slice()),
    };
    match part {
        b"country" => Some(country),
        b"state" if !state.is_empty() => Some(state),
        b"city" if !city.is_empty() => Some(city),
        _ => None,
    }
}
