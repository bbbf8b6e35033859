//! From a path under the root of a disk cache to the service and key it stands for. Every layout that was ever in use.

use super::parse_digest;

/// How a file's place says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// The layout in use: `dshield/1/2/3/4.json`, `hibp/AB/CD/E/ABCDE.json`, `virustotal/ab/cd/ef/12/<key>.json`.
    Sharded,
    /// `<service>/<2 digits>/<SHA-256 of the key>.json`.
    Digest,
    /// As a migration plan described it: `dshield/<ip>/<ip>.json`, `hibp/AB/ABCDE.json`, `virustotal/ab/<hash>.json`.
    Planned,
    /// The oldest one, in the root itself: `<sha256>`, `vt_<sha256>.json`, `dshield_<ip>.json`, `uh_<ip>`, `spur_<ip>.json`.
    Flat,
}

impl Layout {
    /// A word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Layout::Sharded => "sharded",
            Layout::Digest => "digest",
            Layout::Planned => "planned",
            Layout::Flat => "flat",
        }
    }
}

/// What a path says of the key. Keys are not brought into the normal form of their service yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Key(String),
    /// SHA-256 of the key; the key itself stands nowhere.
    Digest([u8; 32]),
    /// A hash that is the key (as planned) or the SHA-256 of the key (before sharding): the places are the same.
    KeyOrDigest(String, [u8; 32]),
}

/// A file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// A service of the registry, if there is one of that name.
    pub service: String,
    pub named: Named,
    pub layout: Layout,
    /// It tells that the provider knows nothing (`virustotal_unknown`).
    pub unknown: bool,
}

/// The service whose directory holds what VirusTotal does not know.
pub const VIRUSTOTAL_UNKNOWN: &str = "virustotal_unknown";

/// Reads a path relative to the root, parts separated by `/`.
///
/// # Errors
/// Why the file is none of a cache, as the end of a sentence that begins with "the file".
pub fn recognise(path: &[u8]) -> Result<Found, &'static str> {
    let path = std::str::from_utf8(path).map_err(|_| "has a name that is not UTF-8")?;
    let parts: Vec<&str> = path.split('/').collect();
    let (name, folders) = parts.split_last().ok_or("has no name")?;
    if name.starts_with('.') || name.ends_with(".tmp") || name.ends_with('~') {
        return Err("is a temporary or hidden one");
    }
    let Some((service, folders)) = folders.split_first() else {
        return flat(name);
    };
    let stem = name.strip_suffix(".json").ok_or("does not end in .json")?;
    let found = match *service {
        "dshield" => dshield(folders, stem),
        "hibp" => hibp(folders, stem),
        "virustotal" | VIRUSTOTAL_UNKNOWN => virustotal(folders, stem),
        _ => None,
    };
    let (named, layout) = found.or_else(|| by_digest(folders, stem)).ok_or("stands in no layout of a cache")?;
    let unknown = *service == VIRUSTOTAL_UNKNOWN;
    let service = if unknown { "virustotal" } else { service };
    Ok(Found { service: service.to_owned(), named, layout, unknown })
}

type Place = (Named, Layout);

/// `<first 2 digits>/<64 digits>`.
fn by_digest(folders: &[&str], stem: &str) -> Option<Place> {
    let [folder] = folders else { return None };
    let digest = parse_digest(stem)?;
    stem.get(..2)?.eq_ignore_ascii_case(folder).then_some((Named::Digest(digest), Layout::Digest))
}

fn dshield(folders: &[&str], stem: &str) -> Option<Place> {
    match folders {
        [a, b, c] => {
            let octet = |part: &&str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
            let key = [a, b, c, &stem].into_iter().all(octet).then(|| format!("{a}.{b}.{c}.{stem}"))?;
            Some((Named::Key(key), Layout::Sharded))
        }
        [_] if stem.len() < 64 => Some((Named::Key(address(stem)?), Layout::Planned)),
        _ => None,
    }
}

fn hibp(folders: &[&str], stem: &str) -> Option<Place> {
    if stem.len() != 5 || !is_hex(stem) {
        return None;
    }
    let place = match folders {
        [a, b, c] if [*a, *b, *c].concat().eq_ignore_ascii_case(stem) && a.len() == 2 && b.len() == 2 => {
            Layout::Sharded
        }
        [a] if stem[..2].eq_ignore_ascii_case(a) => Layout::Planned,
        _ => return None,
    };
    Some((Named::Key(stem.to_ascii_uppercase()), place))
}

fn virustotal(folders: &[&str], stem: &str) -> Option<Place> {
    if !is_hex(stem) || !folders.iter().all(|folder| folder.len() == 2) {
        return None;
    }
    let pairs = folders.concat();
    if !stem.get(..pairs.len())?.eq_ignore_ascii_case(&pairs) {
        return None;
    }
    let key = stem.to_ascii_lowercase();
    match folders.len() {
        1 => match parse_digest(stem) {
            Some(digest) => Some((Named::KeyOrDigest(key, digest), Layout::Planned)),
            None => Some((Named::Key(key), Layout::Planned)),
        },
        2..=4 => Some((Named::Key(key), Layout::Sharded)),
        _ => None,
    }
}

fn flat(name: &str) -> Result<Found, &'static str> {
    let found = |service: &str, key: String| {
        Ok(Found { service: service.to_owned(), named: Named::Key(key), layout: Layout::Flat, unknown: false })
    };
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let hash = |text: &str| (matches!(text.len(), 32 | 40 | 64) && is_hex(text)).then(|| text.to_ascii_lowercase());
    let addressed = |prefix: &str| stem.strip_prefix(prefix).and_then(address);
    if let Some(key) = stem.strip_prefix("vt_").or(Some(stem)).and_then(hash) {
        return found("virustotal", key);
    }
    if let Some(key) = addressed("dshield_") {
        return found("dshield", key);
    }
    if let Some(key) = addressed("spur_") {
        return found("spur", key);
    }
    if let Some(key) = addressed("uh_") {
        return found("urlhaus", key);
    }
    Err("stands in no layout of a cache")
}

/// An address as a file may be named after it: `_` in the place of `:`.
fn address(text: &str) -> Option<String> {
    let text = if text.contains('_') { text.replace('_', ":") } else { text.to_owned() };
    text.parse::<std::net::IpAddr>().ok().map(|_| text)
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}
