//! Where things stand in a command's text: keys, comments, here-documents, the file that is written, runs of base64.

use super::{MAX_COMMENT, MAX_PATH};
use std::ops::Range;

/// The kinds of keys OpenSSH takes, by the word that stands before the key.
const KINDS: [&str; 8] = [
    "ssh-rsa",
    "ssh-ed25519",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// The shortest run of base64 that is looked into: a key's line is longer.
const SHORTEST_RUN: usize = 40;
/// Here-documents that are looked at before a key: an honest command has one or two.
const MAX_HEREDOCS: usize = 32;

/// What may be a key: its kind, its data, and where both stand.
pub struct Place<'a> {
    pub kind: &'static str,
    pub data: &'a str,
    pub at: usize,
    pub end: usize,
}

/// Each place where the word of a kind is followed by space and a word of base64.
pub fn keys(text: &str) -> impl Iterator<Item = Place<'_>> {
    text.match_indices('-').filter_map(move |(dash, _)| {
        // every kind has a dash; the first one tells where the word begins
        let at = text[..dash]
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(0, |before| before + text[before..].chars().next().map_or(1, char::len_utf8));
        let kind = KINDS.into_iter().find(|kind| text[at..].starts_with(kind))?;
        let rest = &text[at + kind.len()..];
        let spaces = rest.len() - skip_space(rest).len();
        let start = at + kind.len() + spaces;
        let data = base64_word(&text[start..]);
        (spaces > 0 && !data.is_empty()).then_some(Place { kind, data, at, end: start + data.len() })
    })
}

/// Spaces, as they are or as `printf` and `echo -e` write them.
fn skip_space(mut text: &str) -> &str {
    loop {
        let trimmed = text.trim_start_matches([' ', '\t']);
        let next = ["\\x20", "\\040", "\\t"].iter().find_map(|escape| trimmed.strip_prefix(escape)).unwrap_or(trimmed);
        if next.len() == text.len() {
            return text;
        }
        text = next;
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

fn base64_word(text: &str) -> &str {
    let digits = text.bytes().take_while(|&byte| is_base64(byte)).count();
    let padding = text[digits..].bytes().take(2).take_while(|&byte| byte == b'=').count();
    &text[..digits + padding]
}

/// Runs of base64 long enough to hold a key's line, and where each ends.
pub fn base64_runs(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || loop {
        at += text[at..].bytes().position(is_base64)?;
        let run = base64_word(&text[at..]);
        at += run.len();
        if run.len() >= SHORTEST_RUN {
            return Some((run, at));
        }
    })
}

/// The comment behind a key: up to the end of the line, a quote or the next part of the command.
pub fn comment(text: &str, end: usize) -> Option<String> {
    let rest = &text[end..];
    let trimmed = skip_space(rest);
    if trimmed.len() == rest.len() {
        return None;
    }
    let stop = trimmed.find(['"', '\'', '`', '\n', '\r', '\\', ';', '|', '&', '<', '>']).unwrap_or(trimmed.len());
    let comment: String = trimmed[..stop].trim().chars().filter(|c| !c.is_control()).take(MAX_COMMENT).collect();
    (!comment.is_empty()).then_some(comment)
}

/// The line that opens the here-document in which a place stands.
pub fn heredoc_around(text: &str, place: usize) -> Option<Range<usize>> {
    let mut from = 0;
    let mut around = None;
    for _ in 0..MAX_HEREDOCS {
        let Some(found) = text.get(from..place).and_then(|before| before.find("<<")) else { break };
        let at = from + found;
        let after = &text[at + 2..];
        if after.starts_with('<') {
            // a here-string is an argument like others
            from = at + 2 + after.bytes().take_while(|&byte| byte == b'<').count();
            continue;
        }
        let word = after.trim_start_matches(['-', ' ', '\t', '\'', '"', '\\']);
        let length = word.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let mark = &word[..length];
        let opened = text.len() - word.len() + length;
        if mark.is_empty() || opened >= place {
            break;
        }
        // a log may have put the lines on one
        let line_end = text[opened..].find('\n').map_or(opened, |end| opened + end);
        if line_end < place && !closed(&text[line_end..place], mark) {
            around = Some(at..line_end.max(opened));
        }
        from = opened;
    }
    around
}

fn closed(body: &str, mark: &str) -> bool {
    body.lines().any(|line| line.trim() == mark)
}

/// The file a key goes to: the redirection behind `end`, else one on the `line` that opens a here-document, else a word
/// that names an `authorized_keys`, the nearest behind first.
pub fn target(text: &str, end: usize, line: Range<usize>) -> Option<String> {
    let behind = &text[end..];
    let part = &behind[..behind.find('\n').unwrap_or(behind.len())];
    redirected(part)
        .or_else(|| redirected(&text[line.clone()]))
        .or_else(|| named(part))
        .or_else(|| named(&text[line]))
        .or_else(|| named(behind))
        .or_else(|| text[..end].lines().rev().find_map(named_last))
}

fn redirected(part: &str) -> Option<String> {
    let mut from = 0;
    while let Some(found) = part[from..].find('>') {
        let at = from + found;
        let rest = part[at..].trim_start_matches(['>', '|']);
        from = part.len() - rest.len();
        // 2>&1 and its kin are no files
        let number = part[..at].ends_with(|c: char| c.is_ascii_digit() && c != '1');
        match path(rest.trim_start()) {
            Some(path) if !path.starts_with("/dev/") && !path.starts_with('&') && !number => return Some(path),
            _ => {}
        }
    }
    None
}

fn words(part: &str) -> impl DoubleEndedIterator<Item = &str> {
    part.split([' ', '\t', '\n', '\r', ';', '|', '&', '<', '>', '"', '\'', '`', '(', ')', '='])
}

fn names_keys(word: &&str) -> bool {
    let file = word.rsplit('/').next().unwrap_or(word);
    file.strip_prefix("authorized_keys").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn named(part: &str) -> Option<String> {
    words(part).find(names_keys).and_then(path)
}

fn named_last(part: &str) -> Option<String> {
    words(part).rfind(names_keys).and_then(path)
}

/// The word at the beginning, without its quotes.
fn path(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'');
    let word = match quote {
        Some(quote) => text[1..].split(quote).next().unwrap_or_default(),
        None => text.split([' ', '\t', '\n', '\r', ';', '|', '<', '>', ')', '`']).next().unwrap_or_default(),
    };
    let word = if quote.is_none() { word.split("&&").next().unwrap_or_default() } else { word };
    let word: String = word.chars().filter(|c| !c.is_control()).take(MAX_PATH).collect();
    (!word.is_empty()).then_some(word)
}
