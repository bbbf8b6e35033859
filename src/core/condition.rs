//! Conditional requests (RFC 9110, section 13): by what a provider knows the version of an answer, and the question
//! whether it is still the same.

/// The headers of an answer that name its version.
pub const NAMED_BY: [&str; 2] = ["etag", "last-modified"];
/// The headers that ask whether it has changed, in the same order.
pub const ASKED_BY: [&str; 2] = ["if-none-match", "if-modified-since"];
/// Longer ones are not kept.
const MAX_BYTES: usize = 200;

/// What a provider said of the version of an answer; one of both at least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The header `ETag` as it came, with its quotation marks.
    pub etag: Option<String>,
    /// The header `Last-Modified` as it came.
    pub last_modified: Option<String>,
}

impl Validators {
    /// Reads them from the headers of an answer; what could not be sent back is left out.
    pub fn read(headers: &[(String, String)]) -> Option<Validators> {
        let value = |wanted: &str| {
            let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            let value = value.trim();
            let sendable = |b: u8| (b' '..=b'~').contains(&b);
            (!value.is_empty() && value.len() <= MAX_BYTES && value.bytes().all(sendable)).then(|| value.to_owned())
        };
        let [etag, last_modified] = NAMED_BY.map(value);
        let etag = etag.filter(|tag| {
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"')
        });
        let last_modified = last_modified.filter(|date| httpdate::parse_http_date(date).is_ok());
        (etag.is_some() || last_modified.is_some()).then_some(Validators { etag, last_modified })
    }

    /// The headers that ask whether the answer has changed since.
    pub fn questions(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let values = [&self.etag, &self.last_modified];
        ASKED_BY.into_iter().zip(values).filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Option<Validators> {
        let headers: Vec<_> = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Validators::read(&headers)
    }

    #[test]
    fn what_names_a_version_is_asked_back_as_it_came() {
        let date = "Wed, 01 Jul 2026 00:00:00 GMT";
        let both = read(&[("ETag", "W/\"0x8D\""), ("Last-Modified", date), ("Age", "3")]).unwrap();
        let asked: Vec<_> = both.questions().collect();
        let expected = [("if-none-match", "W/\"0x8D\""), ("if-modified-since", date)];
        assert_eq!(asked, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let dated = read(&[("last-modified", date)]).unwrap();
        assert_eq!(dated.questions().count(), 1);
    }

    #[test]
    fn what_is_no_tag_and_no_date_is_not_kept() {
        let long = format!("\"{}\"", "x".repeat(MAX_BYTES));
        for tag in ["", "abc", "\"", "W/abc", "\"a\u{7f}\"", &long] {
            assert_eq!(read(&[("etag", tag), ("last-modified", "yesterday")]), None, "{tag}");
        }
    }
}
