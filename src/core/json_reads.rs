//! Which paths of which JSON a statement reads: what stands in a view, a function or a query after `->`, `->>`, `#>`,
//! `#>>`, in brackets, or in `jsonb_extract_path` and the accessors of this extension. A reading of the text, not a parser
//! of SQL: what it does not understand it passes over.

/// A path that is read, from the column or name it starts at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The last part of the name before the first operator.
    pub root: String,
    pub path: Vec<String>,
}

/// Reads that are found in one text; more are passed over.
pub const MAX_READS: usize = 10_000;
/// How deep parentheses are followed.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Text(String),
    Number(String),
    /// An arrow: whether its right side is a whole path.
    Arrow {
        whole: bool,
    },
    Cast,
    Sign(char),
}

/// The paths read in a text of SQL, in its order, the longest of each place.
pub fn reads(sql: &str) -> Vec<Read> {
    let tokens = tokens(sql);
    let (mut at, mut found) = (0, Vec::new());
    while at < tokens.len() && found.len() < MAX_READS {
        match chain(&tokens, at, 0) {
            Some((read, next)) if !read.path.is_empty() => {
                found.push(read);
                at = next;
            }
            _ => at += 1,
        }
    }
    found
}

/// A name, or a read in parentheses, and what is read of it.
fn chain(tokens: &[Token], at: usize, depth: usize) -> Option<(Read, usize)> {
    let (mut read, mut at) = match tokens.get(at)? {
        _ if depth > MAX_DEPTH => return None,
        Token::Sign('(') => {
            let (read, next) = chain(tokens, at + 1, depth + 1)?;
            (tokens.get(next) == Some(&Token::Sign(')'))).then_some((read, next + 1))?
        }
        Token::Name(name) => {
            let (mut last, mut next) = (name, at + 1);
            while let (Some(Token::Sign('.')), Some(Token::Name(name))) = (tokens.get(next), tokens.get(next + 1)) {
                (last, next) = (name, next + 2);
            }
            match tokens.get(next) {
                Some(Token::Sign('(')) => call(tokens, last, next + 1, depth)?,
                _ => (Read { root: last.clone(), path: Vec::new() }, next),
            }
        }
        _ => return None,
    };
    loop {
        at = skip_cast(tokens, at);
        let step = match (tokens.get(at), tokens.get(at + 1)) {
            (Some(Token::Arrow { whole: false }), Some(Token::Text(name) | Token::Number(name))) => vec![name.clone()],
            (Some(Token::Arrow { whole: true }), Some(Token::Text(path))) => whole(path),
            (Some(Token::Sign('[')), Some(Token::Text(name))) => {
                let end = skip_cast(tokens, at + 2);
                if tokens.get(end) != Some(&Token::Sign(']')) {
                    return Some((read, at));
                }
                read.path.push(name.clone());
                at = end + 1;
                continue;
            }
            _ => return Some((read, at)),
        };
        read.path.extend(step);
        at = skip_cast(tokens, at + 2);
    }
}

/// `jsonb_extract_path(payload, 'ip', 'as')` and its kin.
fn call(tokens: &[Token], name: &str, at: usize, depth: usize) -> Option<(Read, usize)> {
    if !(name.contains("extract_path") || name.starts_with("enrich_")) {
        return None;
    }
    let (mut read, mut at) = chain(tokens, at, depth + 1)?;
    loop {
        at = skip_cast(tokens, at);
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some(Token::Sign(',')), Some(Token::Text(name) | Token::Number(name))) => {
                read.path.push(name.clone());
                at += 2;
            }
            (Some(Token::Sign(')')), _) => return Some((read, at + 1)),
            _ => return None,
        }
    }
}

fn skip_cast(tokens: &[Token], mut at: usize) -> usize {
    while let (Some(Token::Cast), Some(Token::Name(_))) = (tokens.get(at), tokens.get(at + 1)) {
        at += 2;
        while let Some(Token::Name(_)) = tokens.get(at).filter(|token| **token == Token::Name("varying".into())) {
            at += 1;
        }
        if let (Some(Token::Sign('[')), Some(Token::Sign(']'))) = (tokens.get(at), tokens.get(at + 1)) {
            at += 2;
        }
    }
    at
}

/// The parts of `{a,b}`.
fn whole(path: &str) -> Vec<String> {
    let inner = path.trim().trim_start_matches('{').trim_end_matches('}');
    inner.split(',').map(|part| part.trim().trim_matches('"').to_string()).filter(|part| !part.is_empty()).collect()
}

fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (token, length) = next(rest, first);
        tokens.extend(token);
        rest = &rest[length..];
    }
    tokens
}

/// The token at the beginning, if it is one, and the bytes it takes.
fn next(rest: &str, first: char) -> (Option<Token>, usize) {
    let until = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("--") {
        return (None, until(rest.find('\n')));
    }
    if rest.starts_with("/*") {
        return (None, until(rest.find("*/").map(|end| end + 2)));
    }
    for (arrow, is_whole) in [("->>", false), ("->", false), ("#>>", true), ("#>", true)] {
        if rest.starts_with(arrow) {
            return (Some(Token::Arrow { whole: is_whole }), arrow.len());
        }
    }
    if rest.starts_with("::") {
        return (Some(Token::Cast), 2);
    }
    match first {
        '\'' | '"' => {
            let (text, length) = quoted(rest, first);
            (Some(if first == '"' { Token::Name(text) } else { Token::Text(text) }), length)
        }
        _ if first.is_ascii_digit() => {
            let length = until(rest.find(|c: char| !c.is_ascii_digit()));
            (Some(Token::Number(rest[..length].to_string())), length)
        }
        _ if first.is_alphabetic() || first == '_' => {
            let length = until(rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')));
            (Some(Token::Name(rest[..length].to_lowercase())), length)
        }
        _ if first.is_whitespace() => (None, first.len_utf8()),
        _ => (Some(Token::Sign(first)), first.len_utf8()),
    }
}

fn quoted(rest: &str, quote: char) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return (text, at + 1);
        }
    }
    (text, rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(sql: &str) -> Vec<String> {
        reads(sql).into_iter().map(|read| format!("{}: {}", read.root, read.path.join("."))).collect()
    }

    #[test]
    fn a_path_is_read_however_it_is_written() {
        for sql in [
            "enrichment->'dshield'->'ip'->>'asn' FROM session_summaries",
            "((s.enrichment -> 'dshield'::text) -> 'ip'::text) ->> 'asn'::text FROM s",
            "(enrichment::jsonb #>> '{dshield,ip,asn}'::text[])::int",
            "enrichment #> '{dshield}' -> 'ip' ->> 'asn'",
            "public.s.enrichment['dshield']['ip'::text]['asn']",
            "pg_catalog.jsonb_extract_path_text(x.enrichment, 'dshield', 'ip', 'asn'::text)",
            "enrich_asn((enrichment -> 'dshield'), 'ip', VARIADIC_, 'x'), enrich_asn(enrichment -> 'dshield', 'ip', 'asn')",
            "-- x->>'y'\n/* y->>'z' */ SELECT \"enrichment\" -> 'dshield' -> 'ip' ->> 'asn' = 'a->>''b'''",
        ] {
            assert!(found(sql).contains(&"enrichment: dshield.ip.asn".to_string()), "{sql}: {:?}", found(sql));
        }
        assert_eq!(
            found("dshield ->> 'country', spur->0, a.b, count(*), '->' || 'x' FROM t"),
            ["dshield: country", "spur: 0"]
        );
    }

    #[test]
    fn deep_nesting_ends() {
        assert_eq!(found(&"(".repeat(100_000)), [""; 0]);
        assert_eq!(found(&format!("{}a->>'b'{}", "(".repeat(40), ")".repeat(40))), ["a: b"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(sql in "\\PC{0,200}") {
            reads(&sql);
        }

        #[test]
        fn no_text_of_its_own_signs_makes_it_panic(parts in proptest::collection::vec(prop_oneof![
            Just("->"), Just("->>"), Just("#>>"), Just("'{a,b}'"), Just("("), Just(")"), Just("::"), Just("text[]"), Just("["), Just("]"),
            Just("'x'"), Just("a.b"), Just("\""), Just("'"), Just(","), Just("jsonb_extract_path("), Just("1"), Just("é")], 0..40)) {
            reads(&parts.join(" "));
            reads(&parts.concat());
        }
    }
}
