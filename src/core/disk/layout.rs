//! Where the file of a key lies under the root of a disk cache: the path that the older programs read and write today, and
//! every path under which one of their earlier layouts, or the plan of the migration, may have put it.
//!
//! Paths are relative, their parts divided by `/`. No part comes from a key as it is: a key is parsed first (an address, hex
//! digits) or hashed, so that none can lead out of the tree.

use crate::core::key::MAX_KEY;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr};

/// What a file under a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The answer. The file's time of change is the time of observation.
    Answer,
    /// `{"timestamp": Unix seconds, "data": answer}`; the time inside counts.
    Stamped,
    /// That the provider knows nothing of the key, whatever stands in the file.
    Nothing,
}

/// One place where the file of a key may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: String,
    pub holds: Holds,
}

/// The folder that says which hashes VirusTotal does not know.
const UNKNOWN: &str = "virustotal_unknown";

/// The path to which the answer of a key (in its normal form) is written; `known` is whether there is one. `None` where the
/// layout has no place: that a provider knows nothing is only kept for VirusTotal.
pub fn written(service: &str, key: &str, known: bool) -> Option<String> {
    if !is_folder(service) || key.is_empty() || key.len() > MAX_KEY {
        return None;
    }
    match (service, known) {
        (_, true) => Some(sharded(service, service, key)),
        ("virustotal", false) => Some(sharded(service, UNKNOWN, key)),
        (_, false) => None,
    }
}

/// Every path under which a file of this key (in its normal form) may lie, today's first. Where several are there, the one
/// that was observed last counts, and of two of the same moment the first.
pub fn tried(service: &str, key: &str) -> Vec<Place> {
    let mut places = Vec::with_capacity(8);
    if !is_folder(service) || key.is_empty() || key.len() > MAX_KEY {
        return places;
    }
    let mut add = |path: String, holds: Holds| {
        if !places.iter().any(|place: &Place| place.path == path) {
            places.push(Place { path, holds });
        }
    };
    let folders = [(service, Holds::Answer), (UNKNOWN, Holds::Nothing)];
    for (folder, holds) in folders.into_iter().take(if service == "virustotal" { 2 } else { 1 }) {
        add(sharded(service, folder, key), holds);
        add(digested(folder, key), holds);
        if service == "virustotal" && is_hex(key) && key.len() > 2 {
            add(format!("{folder}/{}/{key}.json", &key[..2]), holds);
        }
    }
    match service {
        "dshield" => {
            if let Ok(address) = key.parse::<IpAddr>() {
                add(format!("dshield/{address}/{address}.json"), Holds::Answer);
                add(format!("dshield/{}/{address}.json", address.to_string().replace(['.', ':'], "_")), Holds::Answer);
                add(format!("dshield_{address}.json"), Holds::Stamped);
            }
        }
        "urlhaus" => {
            if let Ok(address) = key.parse::<IpAddr>() {
                add(format!("uh_{address}"), Holds::Answer);
            }
        }
        "spur" => {
            if let Ok(address) = key.parse::<IpAddr>() {
                add(format!("spur_{}.json", address.to_string().replace(':', "_")), Holds::Answer);
            }
        }
        "hibp" if is_hex(key) && key.len() == 5 => {
            let prefix = key.to_ascii_uppercase();
            add(format!("hibp/{}/{prefix}.json", &prefix[..2]), Holds::Answer);
        }
        "virustotal" if is_hex(key) => {
            add(format!("vt_{key}.json"), Holds::Answer);
            if key.len() == 64 {
                add(key.to_string(), Holds::Answer);
            }
        }
        _ => (),
    }
    places
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
    let digest = key_digest(key);
    format!("{folder}/{}/{digest}.json", &digest[..2])
}

/// SHA-256 of a key in lower-case hex digits: what names the files of services without a layout of their own.
pub fn key_digest(key: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
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

    fn paths(service: &str, key: &str) -> Vec<String> {
        tried(service, key).into_iter().map(|place| place.path).collect()
    }

    #[test]
    fn a_path_is_the_one_the_older_programs_read() {
        let path = |service, key| written(service, key, true).unwrap();
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
    fn only_of_virustotal_is_it_kept_that_nothing_is_known() {
        let unknown = format!("virustotal_unknown/ab/cd/ef/12/{SHA256}.json");
        assert_eq!(written("virustotal", SHA256, false), Some(unknown.clone()));
        assert_eq!(written("dshield", "1.2.3.4", false), None);
        let place = tried("virustotal", SHA256).into_iter().find(|place| place.path == unknown).unwrap();
        assert_eq!(place.holds, Holds::Nothing);
    }

    #[test]
    fn every_layout_is_tried_todays_first() {
        assert_eq!(
            paths("dshield", "8.8.8.8"),
            [
                "dshield/8/8/8/8.json".to_string(),
                format!("dshield/83/{OF_8_8_8_8}.json"),
                "dshield/8.8.8.8/8.8.8.8.json".to_string(),
                "dshield/8_8_8_8/8.8.8.8.json".to_string(),
                "dshield_8.8.8.8.json".to_string(),
            ]
        );
        assert_eq!(paths("urlhaus", "8.8.8.8"), [format!("urlhaus/83/{OF_8_8_8_8}.json"), "uh_8.8.8.8".to_string()]);
        assert!(paths("spur", "2001:db8::1").contains(&"spur_2001_db8__1.json".to_string()));
        assert!(paths("hibp", "5BAA6").contains(&"hibp/5B/5BAA6.json".to_string()));
        let hash = paths("virustotal", SHA256);
        for path in [format!("virustotal/ab/{SHA256}.json"), SHA256.to_string(), format!("vt_{SHA256}.json")] {
            assert!(hash.contains(&path), "{path} in {hash:?}");
        }
        let stamped = tried("dshield", "8.8.8.8").pop().unwrap();
        assert_eq!(stamped.holds, Holds::Stamped);
    }

    #[test]
    fn what_is_no_name_of_a_service_has_no_path() {
        for service in ["", "..", "a/b", "A", "9a", "a.b"] {
            assert_eq!(written(service, "1.2.3.4", true), None, "{service}");
            assert!(tried(service, "1.2.3.4").is_empty(), "{service}");
        }
    }

    proptest! {
        #[test]
        fn no_key_leads_out_of_the_tree(service in "[a-z][a-z_]{0,8}|dshield|urlhaus|spur|hibp|virustotal", key in "\\PC{1,40}|(\\.\\./){1,5}etc|/.*|[0-9a-f./:]{1,64}") {
            let all = tried(&service, &key).into_iter().map(|place| place.path);
            for path in all.chain(written(&service, &key, true)) {
                prop_assert!(path.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{path}");
                prop_assert!(path.is_ascii() && !path.contains('\0'), "{path}");
            }
        }

        #[test]
        fn what_is_written_is_the_first_that_is_tried(key in "[0-9a-f]{64}|[0-9]{1,3}\\.1\\.2\\.3|[0-9A-F]{5}|[a-z.]{1,20}") {
            for service in ["dshield", "urlhaus", "spur", "hibp", "virustotal", "other"] {
                let first = tried(service, &key).into_iter().next().map(|place| place.path);
                prop_assert_eq!(first, written(service, &key, true));
            }
        }
    }
}
