//! What is written into the tree of a key: the file that says what the table says, and those that would say the contrary.

use super::layout;

/// The files of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Path and body of the one to write; none where the layout has no place for what is known.
    pub file: Option<(String, String)>,
    /// Paths of older files that say something else.
    pub away: Vec<String>,
}

/// The files for an answer of this status, `success` or `not_found`, and its payload, the text of a `jsonb`. What is a failure
/// has none.
pub fn files(service: &str, key: &str, status: &str, payload: Option<&str>) -> Files {
    match (status, payload) {
        ("success", Some(payload)) => {
            let away = match service {
                // the marker that nothing is known
                "virustotal" => layout::written_nothing(service, key).map(|(path, _)| path).into_iter().collect(),
                _ => Vec::new(),
            };
            Files { file: layout::written(service, key).map(|path| (path, compact(payload))), away }
        }
        // an older answer stays in its own folder: the programs that put it there let it expire
        ("not_found", _) => Files { file: layout::written_nothing(service, key), away: Vec::new() },
        _ => Files::default(),
    }
}

/// Path and body of the file for an answer whose key is known by its digest only.
pub fn file_by_digest(
    service: &str,
    digest: &[u8; 32],
    status: &str,
    payload: Option<&str>,
) -> Option<(String, String)> {
    match (status, payload) {
        ("success", Some(payload)) => layout::written_by_digest(service, digest).map(|path| (path, compact(payload))),
        ("not_found", _) => layout::nothing_by_digest(service, digest),
        _ => None,
    }
}

/// JSON text without the white space between its parts.
pub fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if inside {
            (inside, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            inside = c == '"';
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn white_space_goes_between_parts_and_stays_inside_texts() {
        assert_eq!(
            compact(r#"{"a b": [1, 2 ], "c\" ": "x\\ ", "d": "\\\" y" }"#),
            r#"{"a b":[1,2],"c\" ":"x\\ ","d":"\\\" y"}"#
        );
        assert_eq!(compact("\"a b\""), "\"a b\"");
    }

    proptest! {
        #[test]
        fn compact_text_means_the_same(texts in proptest::collection::vec("\\PC{0,12}", 0..5), n in any::<i32>()) {
            let value = serde_json::json!({"texts": texts, "n": [n, null, {"k": true}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }

    #[test]
    fn an_answer_takes_the_marker_of_the_contrary_away() {
        let hash = "ab".repeat(16);
        let known = files("virustotal", &hash, "success", Some("{}"));
        assert_eq!(known.file.as_ref().unwrap().0, format!("virustotal/ab/ab/ab/ab/{hash}.json"));
        assert_eq!(known.away, [format!("virustotal_unknown/ab/ab/ab/ab/{hash}.json")]);
        let unknown = files("virustotal", &hash, "not_found", None);
        assert_eq!(unknown.file.as_ref().unwrap().0, format!("virustotal_unknown/ab/ab/ab/ab/{hash}.json"));
        assert!(unknown.away.is_empty());
        for path in [&known.file.unwrap().0, &unknown.file.unwrap().0] {
            assert!(
                layout::tried("virustotal", &hash).contains(path),
                "what is written is found, and goes when it is deleted: {path}"
            );
        }
    }

    #[test]
    fn a_failure_and_what_has_no_place_write_nothing() {
        assert_eq!(files("dshield", "1.2.3.4", "rate_limited", None), Files::default());
        assert_eq!(files("greynoise", "1.2.3.4", "not_found", None), Files::default());
    }
}
