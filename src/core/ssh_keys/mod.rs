//! SSH public keys that a command plants: found in its text, directly, in a here-document or in base64. The text is
//! written by attackers; nothing in it makes this panic, and what is no key is passed over.

mod key;
#[cfg(test)]
mod tests;
mod text;

pub use key::Key;

use std::collections::BTreeSet;

/// How a key stands in the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Heredoc,
    Base64,
}

impl Way {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Heredoc => "heredoc",
            Way::Base64 => "base64",
        }
    }
}

/// A key in a command, and where it was to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    pub key: Key,
    /// What stands behind the key, up to [`MAX_COMMENT`] characters.
    pub comment: Option<String>,
    pub way: Way,
    /// The file, as the command names it.
    pub target: Option<String>,
}

/// Characters that are kept of a comment.
pub const MAX_COMMENT: usize = 256;
/// Characters that are kept of a path.
pub const MAX_PATH: usize = 512;
/// Bytes of a command that are looked at.
pub const MAX_COMMAND: usize = 1 << 20;
/// Keys that one command can plant; more are passed over.
pub const MAX_KEYS: usize = 64;
/// How often base64 may hold base64.
const MAX_DEPTH: usize = 3;

/// The keys in a command, each once, in the order in which they stand there.
pub fn planted(command: &str) -> Vec<Planted> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    gather(&command[..command.floor_char_boundary(MAX_COMMAND)], 0, &mut seen, &mut found);
    found
}

fn gather(text: &str, depth: usize, seen: &mut BTreeSet<String>, found: &mut Vec<Planted>) {
    for place in text::keys(text) {
        if found.len() == MAX_KEYS {
            return;
        }
        let Some(key) = Key::read(place.kind, place.data) else { continue };
        if !seen.insert(key.fingerprint.clone()) {
            continue;
        }
        let heredoc = text::heredoc_around(text, place.at);
        let way = match (depth, &heredoc) {
            (0, None) => Way::Direct,
            (0, Some(_)) => Way::Heredoc,
            _ => Way::Base64,
        };
        let target = match heredoc {
            Some(line) => text::target(text, line.end, line),
            None => text::target(text, place.end, place.at..place.end),
        };
        found.push(Planted { key, comment: text::comment(text, place.end), way, target });
    }
    if depth == MAX_DEPTH || !(text.contains("base64") || text.contains("b64decode") || depth > 0) {
        return;
    }
    for (run, end) in text::base64_runs(text) {
        let Some(inner) = key::decode(run).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) else { continue };
        let before = found.len();
        gather(&inner, depth + 1, seen, found);
        if found.len() > before {
            let target = text::target(text, end, end..end);
            for planted in &mut found[before..] {
                planted.target = planted.target.take().or_else(|| target.clone());
            }
        }
    }
}

/// The members of an event that can hold its command line.
#[derive(serde::Deserialize)]
struct Event {
    input: Option<serde_json::Value>,
    command: Option<serde_json::Value>,
}

/// The command line in an event's JSON, without zero characters, which no text of PostgreSQL holds.
pub fn command_of(event: &str) -> Option<String> {
    let event: Event = serde_json::from_str(event).ok()?;
    let text = |value: Option<serde_json::Value>| value?.as_str().map(|text| text.replace('\0', ""));
    text(event.input).filter(|text| !text.is_empty()).or_else(|| text(event.command)).filter(|text| !text.is_empty())
}
