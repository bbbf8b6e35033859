//! A credential that cannot be printed by accident.

use std::fmt;

use percent_encoding::{utf8_percent_encode, NON_ALPHANUMERIC};
use url::form_urlencoded::byte_serialize;

/// A secret value; `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret as it was configured. White space around it (the line end of a secrets file) is dropped.
    pub fn new(value: &str) -> Self {
        Secret(value.trim().to_owned())
    }

    /// The secret itself, for the request that needs it and for the redaction of messages.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A shorter secret is not looked for in answers: too much else would be taken for it.
const SHORTEST: usize = 6;

/// The forms in which a provider may repeat the secret that it was sent; none of them is kept or shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Masks(Vec<String>);

impl Masks {
    /// As it is, as in URLs and forms, and as in JSON, with and without escaped slashes.
    pub fn of(secret: Option<&Secret>) -> Masks {
        let Some(secret) = secret.map(Secret::expose).filter(|secret| secret.len() >= SHORTEST) else {
            return Masks::default();
        };
        let json = serde_json::Value::from(secret).to_string();
        let json = json[1..json.len() - 1].to_owned();
        let mut forms = vec![
            secret.to_owned(),
            utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
            byte_serialize(secret.as_bytes()).collect(),
            json.replace('/', "\\/"),
            json,
        ];
        // the longest first, so that no rest of one is left
        forms.sort_by_key(|form| (std::cmp::Reverse(form.len()), form.clone()));
        forms.dedup();
        Masks(forms)
    }

    /// Replaces them in the body of an answer; says whether there were any.
    pub fn mask(&self, mut body: Vec<u8>) -> (Vec<u8>, bool) {
        let mut found = false;
        for form in &self.0 {
            let form = form.as_bytes();
            let mut from = 0;
            while let Some(at) = body[from..].windows(form.len()).position(|window| window == form) {
                found = true;
                body.splice(from + at..from + at + form.len(), *b"***");
                from += at + 3;
            }
        }
        (body, found)
    }

    /// Whether a text holds one of them.
    pub fn are_in(&self, text: &str) -> bool {
        self.0.iter().any(|form| text.contains(form.as_str()))
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_a_provider_repeats_is_masked_in_every_form() {
        let masks = Masks::of(Some(&Secret::new("s3/cr\"t &Key")));
        for (body, masked) in [
            ("no s3cret here", "no s3cret here"),
            ("s3/cr\"t &Keys3/cr\"t &Key", "******"),
            ("?k=s3%2Fcr%22t%20%26Key&x", "?k=***&x"),
            ("k=s3%2Fcr%22t+%26Key", "k=***"),
            (r#"{"k":"s3/cr\"t &Key"}"#, r#"{"k":"***"}"#),
            (r#"{"k":"s3\/cr\"t &Key"}"#, r#"{"k":"***"}"#),
        ] {
            let (bytes, found) = masks.mask(body.as_bytes().to_vec());
            assert_eq!((String::from_utf8(bytes).unwrap().as_str(), found), (masked, body != masked), "{body}");
        }
        assert!(masks.are_in("x s3/cr\"t &Key") && !masks.are_in("x"));
        assert!(!format!("{masks:?}").contains("cr"));
        assert_eq!(Masks::of(Some(&Secret::new("short"))), Masks::default());
        assert_eq!(Masks::default().mask(b"***".to_vec()), (b"***".to_vec(), false));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2\n");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
