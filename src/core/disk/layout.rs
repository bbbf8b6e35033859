//! Where the file of a key lies under the root of a disk cache: the path that the older programs read and write today, and
//! every path under which one of their earlier layouts, or the plan of the migration, may have put it.
//!
//! Paths are relative, their parts divided by `/`. No part comes from a key as it is: a key is parsed first (an address, hex
//! digits) or hashed, so that none can lead out of the tree.

use super::{digest, hex};
use crate::core::key::MAX_KEY;
use std::net::{IpAddr, Ipv4Addr};

/// The folder that says which hashes VirusTotal does not know.
const UNKNOWN: &str = "virustotal_unknown";
/// What is written where VirusTotal and URLhaus know nothing.
const NOT_FOUND: &str = r#"{"error":{"code":"NotFoundError"}}"#;
const NO_TAGS: &str = r#"{"tags":""}"#;

/// The path to which the answer of a key (in its normal form) is written; `None` for what is no service or key.
pub fn written(service: &str, key: &str) -> Option<String> {
    (is_folder(service) && is_key(key)).then(|| sharded(service, service, key))
}

/// The path and the body of a file that says that the provider was asked and knows nothing of a key. `None` for services of
/// which no older program keeps that.
pub fn written_nothing(service: &str, key: &str) -> Option<(String, String)> {
    let body = match service {
        "virustotal" => NOT_FOUND.to_owned(),
        "dshield" => format!(r#"{{"ip":{{"number":"{}"}}}}"#, key.parse::<IpAddr>().ok()?),
        "urlhaus" => NO_TAGS.to_owned(),
        "spur" => format!(r#"{{"ip":"{}"}}"#, key.parse::<IpAddr>().ok()?),
        _ => return None,
    };
    let folder = if service == "virustotal" { UNKNOWN } else { service };
    is_key(key).then(|| (sharded(service, folder, key), body))
}

/// The path of an answer whose key is known by its digest only.
pub fn written_by_digest(service: &str, digest: &[u8; 32]) -> Option<String> {
    is_folder(service).then(|| under(service, digest))
}

/// The same for an answer that tells that nothing is known: path and body. Where a body names the key, this one names none.
pub fn nothing_by_digest(service: &str, digest: &[u8; 32]) -> Option<(String, String)> {
    let (folder, body) = match service {
        "virustotal" => (UNKNOWN, NOT_FOUND),
        "dshield" => (service, r#"{"ip":{"number":""}}"#),
        "urlhaus" => (service, NO_TAGS),
        "spur" => (service, r#"{"ip":""}"#),
        _ => return None,
    };
    Some((under(folder, digest), body.to_owned()))
}

/// Every path under which a file of this key (in its normal form) may lie, today's first. Where several are there, the one
/// that was observed last counts, and of two of the same moment the first.
pub fn tried(service: &str, key: &str) -> Vec<String> {
    let mut paths = Vec::with_capacity(8);
    if !is_folder(service) || !is_key(key) {
        return paths;
    }
    let mut add = |path: String| {
        if !paths.contains(&path) {
            paths.push(path);
        }
    };
    for folder in [service, UNKNOWN].into_iter().take(if service == "virustotal" { 2 } else { 1 }) {
        add(sharded(service, folder, key));
        add(digested(folder, key));
        if service == "virustotal" && is_hex(key) && key.len() > 2 {
            add(format!("{folder}/{}/{key}.json", &key[..2]));
        }
    }
    match service {
        "dshield" => {
            if let Ok(address) = key.parse::<IpAddr>() {
                add(format!("dshield/{address}/{address}.json"));
                add(format!("dshield/{}/{address}.json", address.to_string().replace(['.', ':'], "_")));
                add(format!("dshield_{address}.json"));
            }
        }
        "urlhaus" => {
            if let Ok(address) = key.parse::<IpAddr>() {
                add(format!("uh_{address}"));
            }
        }
        "spur" => {
            if let Ok(address) = key.parse::<IpAddr>() {
                add(format!("spur_{}.json", address.to_string().replace(':', "_")));
            }
        }
        "hibp" if is_hex(key) && key.len() == 5 => {
            let prefix = key.to_ascii_uppercase();
            add(format!("hibp/{}/{prefix}.json", &prefix[..2]));
        }
        "virustotal" if is_hex(key) => {
            add(format!("vt_{key}.json"));
            if key.len() == 64 {
                add(key.to_string());
            }
        }
        _ => (),
    }
    paths
}

/// Today's path: by octets, hex pairs or digest, whichever the service has.
fn sharded(service: &str, folder: &str, key: &str) -> String {
    match service {
        "dshield" => {
            if let Ok(address) = key.parse::<Ipv4Addr>() {
                let [a, b, c, d] = address.octets();
                return format!("{folder}/{a}/{b}/{c}/{d}.json");
            }
        }
        "hibp" if is_hex(key) && key.len() == 5 => {
            let prefix = key.to_ascii_uppercase();
            return format!("{folder}/{}/{}/{}/{prefix}.json", &prefix[..2], &prefix[2..4], &prefix[4..]);
        }
        "virustotal" if is_hex(key) => {
            let key = key.to_ascii_lowercase();
            let pairs: Vec<&str> =
                (0..key.len().min(8)).step_by(2).map(|at| &key[at..(at + 2).min(key.len())]).collect();
            return format!("{folder}/{}/{key}.json", pairs.join("/"));
        }
        _ => (),
    }
    digested(folder, key)
}

/// The path by the digest of the key, which every service once had and most still have.
fn digested(folder: &str, key: &str) -> String {
    under(folder, &digest(key))
}

fn under(folder: &str, digest: &[u8; 32]) -> String {
    let digest = hex(digest);
    format!("{folder}/{}/{digest}.json", &digest[..2])
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY
}

fn is_hex(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name as `enrichment_service` allows it: a folder, and never a way out.
fn is_folder(service: &str) -> bool {
    service.len() <= 63
        && service.starts_with(|first: char| first.is_ascii_lowercase())
        && service.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA256: &str = "abcdef12aa1fe9a9f7e2b3f0b0c0d1e2f3a4b5c6d7e8f90123456789abcdef01";
    // sha256sum of the key
    const OF_8_8_8_8: &str = "838c4c2573848f58e74332341a7ca6bc5cd86a8aec7d644137d53b4d597f10f5";

    #[test]
    fn a_path_is_the_one_the_older_programs_read() {
        let path = |service, key| written(service, key).unwrap();
        assert_eq!(path("dshield", "1.2.3.4"), "dshield/1/2/3/4.json");
        assert_eq!(path("spur", "8.8.8.8"), format!("spur/83/{OF_8_8_8_8}.json"));
        assert_eq!(path("greynoise", "8.8.8.8"), format!("greynoise/83/{OF_8_8_8_8}.json"));
        assert_eq!(path("hibp", "5BAA6"), "hibp/5B/AA/6/5BAA6.json");
        assert_eq!(path("virustotal", SHA256), format!("virustotal/ab/cd/ef/12/{SHA256}.json"));
        assert_eq!(path("virustotal", "abc"), "virustotal/ab/c/abc.json");
        let six = path("dshield", "2001:db8::1");
        assert!(six.starts_with("dshield/") && six.ends_with(".json") && six.len() == 8 + 3 + 64 + 5, "{six}");
    }

    #[test]
    fn that_nothing_is_known_is_kept_where_the_older_programs_look_for_it() {
        let path = format!("virustotal_unknown/ab/cd/ef/12/{SHA256}.json");
        assert_eq!(written_nothing("virustotal", SHA256).unwrap().0, path);
        assert!(tried("virustotal", SHA256).contains(&path));
        let dshield = ("dshield/1/2/3/4.json".to_owned(), r#"{"ip":{"number":"1.2.3.4"}}"#.to_owned());
        assert_eq!(written_nothing("dshield", "1.2.3.4"), Some(dshield));
        assert_eq!(written_nothing("dshield", "no \" address"), None);
        assert_eq!(written_nothing("greynoise", "1.2.3.4"), None);
    }

    #[test]
    fn every_layout_is_tried_todays_first() {
        assert_eq!(
            tried("dshield", "8.8.8.8"),
            [
                "dshield/8/8/8/8.json".to_string(),
                format!("dshield/83/{OF_8_8_8_8}.json"),
                "dshield/8.8.8.8/8.8.8.8.json".to_string(),
                "dshield/8_8_8_8/8.8.8.8.json".to_string(),
                "dshield_8.8.8.8.json".to_string(),
            ]
        );
        assert_eq!(tried("urlhaus", "8.8.8.8"), [format!("urlhaus/83/{OF_8_8_8_8}.json"), "uh_8.8.8.8".to_string()]);
        assert!(tried("spur", "2001:db8::1").contains(&"spur_2001_db8__1.json".to_string()));
        assert!(tried("hibp", "5BAA6").contains(&"hibp/5B/5BAA6.json".to_string()));
        let hash = tried("virustotal", SHA256);
        for path in [format!("virustotal/ab/{SHA256}.json"), SHA256.to_string(), format!("vt_{SHA256}.json")] {
            assert!(hash.contains(&path), "{path} in {hash:?}");
        }
    }

    #[test]
    fn what_is_no_name_of_a_service_has_no_path() {
        for service in ["", "..", "a/b", "A", "9a", "a.b"] {
            assert_eq!(written(service, "1.2.3.4"), None, "{service}");
            assert!(tried(service, "1.2.3.4").is_empty(), "{service}");
        }
    }

    proptest! {
        #[test]
        fn no_key_leads_out_of_the_tree(service in "[a-z][a-z_]{0,8}|dshield|urlhaus|spur|hibp|virustotal", key in "\\PC{1,40}|(\\.\\./){1,5}etc|/.*|[0-9a-f./:]{1,64}") {
            for path in tried(&service, &key).into_iter().chain(written(&service, &key)) {
                prop_assert!(path.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{path}");
                prop_assert!(path.is_ascii() && !path.contains('\0'), "{path}");
            }
        }

        #[test]
        fn what_is_written_is_the_first_that_is_tried(key in "[0-9a-f]{64}|[0-9]{1,3}\\.1\\.2\\.3|[0-9A-F]{5}|[a-z.]{1,20}") {
            for service in ["dshield", "urlhaus", "spur", "hibp", "virustotal", "other"] {
                prop_assert_eq!(tried(service, &key).into_iter().next(), written(service, &key));
            }
        }
    }
}
