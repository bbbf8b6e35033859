//! Texts made fit for a message: short, on one line, without secrets.

/// The longest message kept, in characters.
pub const MAX_MESSAGE: usize = 300;

/// At most `max` characters of a text; an ellipsis is the last of them when some were left out.
pub fn shorten(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut cut = 0;
    for (count, (at, _)) in text.char_indices().enumerate() {
        if count + 1 == max {
            cut = at;
        }
        if count == max {
            let mut out = text[..cut].to_owned();
            if max > 0 {
                out.push('…');
            }
            return out;
        }
    }
    text.to_owned()
}

/// A text without the given secrets, without the query string and the user part of any URL, without control
/// characters, on one line, of at most [`MAX_MESSAGE`] characters.
pub fn message_safe(text: &str, secrets: &[&str]) -> String {
    let mut text = std::borrow::Cow::Borrowed(text);
    for secret in secrets.iter().map(|secret| secret.trim()).filter(|secret| !secret.is_empty()) {
        if text.contains(secret) {
            text = text.replace(secret, "***").into();
        }
    }
    let mut out = String::with_capacity(text.len().min(MAX_MESSAGE * 4));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        push_word(&mut out, word);
        if out.len() > MAX_MESSAGE * 4 {
            break;
        }
    }
    shorten(&out, MAX_MESSAGE)
}

/// Appends a word; of one that is or holds a URL or an absolute path, without user part and query.
fn push_word(out: &mut String, word: &str) {
    let rest = match word.find("://") {
        Some(at) => {
            let (scheme, rest) = word.split_at(at + 3);
            out.push_str(scheme);
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            &rest[rest[..end].rfind('@').map_or(0, |at| at + 1)..]
        }
        None if word.contains('/') => word,
        None => return out.push_str(word),
    };
    match rest.find('?') {
        Some(at) => {
            out.push_str(&rest[..at]);
            out.push_str("?…");
        }
        None => out.push_str(rest),
    }
}

/// Masks what looks like a token in a text written by a provider: runs of 20 and more letters, digits, `_` and `-`
/// with a digit among them. A provider may repeat the key it was sent.
pub fn mask_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let token = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let end = rest.find(|c| !token(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out.push_str(if run.len() >= 20 && run.bytes().any(|b| b.is_ascii_digit()) { "***" } else { run });
        let next = after.find(token).unwrap_or(after.len());
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("longer", 5), "long…");
        assert_eq!(shorten("ééééé", 5), "ééééé");
        assert_eq!(shorten("éééééé", 5), "éééé…");
        assert_eq!(shorten("x", 0), "");
    }

    #[test]
    fn secrets_queries_and_user_parts_leave_a_message() {
        for (text, safe) in [
            ("key abc123 refused", "key *** refused"),
            ("GET https://u:p@h.example/a?token=zz failed", "GET https://h.example/a?… failed"),
            ("(https://h.example?x=@y)", "(https://h.example?…"),
            ("path /v1/x?key=zz", "path /v1/x?…"),
            ("why? because", "why? because"),
            ("two\r\nlines\u{1b}[31m", "two lines [31m"),
            ("https://a@b@h.example/", "https://h.example/"),
        ] {
            assert_eq!(message_safe(text, &["abc123", "", " "]), safe, "{text}");
        }
    }

    #[test]
    fn a_token_repeated_by_a_provider_is_masked() {
        assert_eq!(mask_tokens("Wrong key 0123456789abcdef0123."), "Wrong key ***.");
        assert_eq!(mask_tokens("insufficiently-described-parameters"), "insufficiently-described-parameters");
    }

    proptest! {
        #[test]
        fn no_text_keeps_a_secret_or_grows_past_the_limit(text in "\\PC{0,200}", secret in "[a-zA-Z0-9]{6,20}") {
            let safe = message_safe(&format!("{text}{secret}{text}"), &[&secret]);
            prop_assert!(!safe.contains(&secret));
            prop_assert!(safe.chars().count() <= MAX_MESSAGE);
            prop_assert!(!safe.chars().any(char::is_control));
            mask_tokens(&text);
        }

        #[test]
        fn shortening_never_passes_the_limit(text in any::<String>(), max in 0..40usize) {
            prop_assert!(shorten(&text, max).chars().count() <= max);
        }
    }
}
