//! Reading a downloaded corpus of Pwned Passwords, a bounded step at a time: a directory of ranges or the single file.

use crate::core::hibp::corpus::{cut, prefix, range, Packed, RANGES};
use crate::core::Micros;
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Bytes of the single file that one step reads: some two hundred ranges.
const PIECE: usize = 16 << 20;
/// A range of the file that is larger than this is none.
const LARGEST: usize = 256 << 20;
/// Ranges that one step takes from a directory.
const RANGES_A_STEP: usize = 200;
/// After so many prefixes without a file the directory is listed to find the next that has one.
const MISSES: u32 = 512;
/// A file of one range that is larger than this is none.
const LARGEST_RANGE: u64 = 64 << 20;
/// Problems that one step tells; the rest is counted.
const TOLD: usize = 5;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corpus {
    pub directory: bool,
    /// Bytes of the file; of a directory the number of prefixes: where the last step ends.
    pub size: u64,
    pub modified: Micros,
}

/// What one step brought.
#[derive(Debug, Default)]
pub struct Step {
    /// Ranges and when each was observed.
    pub ranges: Vec<(Packed, Micros)>,
    /// Where the next step begins; the corpus' size when this was the last.
    pub next: u64,
    pub padding: u64,
    /// How many ranges were left out, and why some of them.
    pub left_out: u64,
    pub problems: Vec<String>,
}

impl Step {
    fn problem(&mut self, what: String) {
        self.left_out += 1;
        if self.problems.len() < TOLD {
            self.problems.push(what);
        }
    }
}

/// Looks at a path.
///
/// # Errors
/// It cannot be read, or is neither a directory nor a file.
pub fn look(path: &Path) -> Result<Corpus, String> {
    let meta = fs::metadata(path).map_err(|why| why.to_string())?;
    match (meta.is_dir(), meta.is_file()) {
        (true, _) => Ok(Corpus { directory: true, size: u64::from(RANGES), modified: modified(&meta) }),
        (false, true) => Ok(Corpus { directory: false, size: meta.len(), modified: modified(&meta) }),
        (false, false) => Err("it is neither a directory nor a file".to_owned()),
    }
}

/// Reads one step from `at` on.
///
/// # Errors
/// The file cannot be read, or is not a corpus.
pub fn step(path: &Path, at: u64) -> Result<Step, String> {
    let corpus = look(path)?;
    if corpus.directory {
        step_directory(path, at)
    } else {
        step_file(path, at, &corpus)
    }
}

fn step_directory(path: &Path, at: u64) -> Result<Step, String> {
    let mut step = Step::default();
    let mut number = u32::try_from(at).unwrap_or(RANGES).min(RANGES);
    let mut misses = 0;
    while number < RANGES && step.ranges.len() < RANGES_A_STEP {
        let prefix = prefix(number);
        number += 1;
        misses += 1;
        match read_range(path, &prefix) {
            Ok(Some((body, modified))) => {
                misses = 0;
                match range(&prefix, &body) {
                    Ok(packed) => step.ranges.push((packed, modified)),
                    Err(why) => step.problem(why),
                }
            }
            Ok(None) if misses < MISSES => {}
            Ok(None) => {
                misses = 0;
                number = next_in(path, number)?;
            }
            Err(why) => step.problem(format!("{prefix}: {why}")),
        }
    }
    step.next = u64::from(number);
    Ok(step)
}

/// The first prefix from `number` on that has a file.
fn next_in(path: &Path, number: u32) -> Result<u32, String> {
    let mut next = RANGES;
    for entry in fs::read_dir(path).map_err(|why| why.to_string())? {
        let name = entry.map_err(|why| why.to_string())?.file_name();
        let name = name.to_string_lossy();
        let stem = name.strip_suffix(".txt").unwrap_or(&name);
        if stem.len() == 5 {
            next = u32::from_str_radix(stem, 16)
                .ok()
                .filter(|found| *found >= number)
                .map_or(next, |found| next.min(found));
        }
    }
    Ok(next)
}

/// The file of a prefix, under the names that downloaders give it.
fn read_range(path: &Path, prefix: &str) -> Result<Option<(Vec<u8>, Micros)>, String> {
    let lower = prefix.to_ascii_lowercase();
    let names = [format!("{prefix}.txt"), prefix.to_string(), format!("{lower}.txt"), lower.clone()];
    for name in names.iter().take(if lower == prefix { 2 } else { 4 }) {
        let mut file = match File::open(path.join(name)) {
            Ok(file) => file,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => continue,
            Err(why) => return Err(why.to_string()),
        };
        let meta = file.metadata().map_err(|why| why.to_string())?;
        if !meta.is_file() || meta.len() > LARGEST_RANGE {
            return Err("it is no file of a range".to_owned());
        }
        let mut body = Vec::with_capacity(meta.len() as usize);
        file.read_to_end(&mut body).map_err(|why| why.to_string())?;
        return Ok(Some((body, modified(&meta))));
    }
    Ok(None)
}

fn step_file(path: &Path, at: u64, corpus: &Corpus) -> Result<Step, String> {
    let mut file = File::open(path).map_err(|why| why.to_string())?;
    file.seek(SeekFrom::Start(at)).map_err(|why| why.to_string())?;
    let mut piece = Vec::new();
    let mut room = PIECE;
    loop {
        let wanted = (room - piece.len()) as u64;
        (&mut file).take(wanted).read_to_end(&mut piece).map_err(|why| why.to_string())?;
        let last = piece.len() < room;
        let done = cut(&piece, last)?;
        if done.used == 0 && !last {
            if room >= LARGEST {
                return Err("no line of it is HASH:COUNT".to_owned());
            }
            room *= 2;
            continue;
        }
        if at == 0 && done.ranges.is_empty() && done.problems.is_empty() {
            return Err("no line of it is HASH:COUNT".to_owned());
        }
        let mut step = Step {
            next: if last { corpus.size } else { at + done.used as u64 },
            padding: done.padding,
            ranges: done.ranges.into_iter().map(|packed| (packed, corpus.modified)).collect(),
            ..Step::default()
        };
        done.problems.into_iter().for_each(|problem| step.problem(problem));
        return Ok(step);
    }
}

fn modified(meta: &Metadata) -> Micros {
    let since = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> std::path::PathBuf {
        let place = std::env::temp_dir().join(format!("enrichment-corpus-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        place
    }

    fn all(path: &Path) -> (Vec<String>, u64) {
        let (mut at, mut prefixes, mut left_out) = (0, Vec::new(), 0);
        let size = look(path).unwrap().size;
        while at < size {
            let step = step(path, at).unwrap();
            assert!(step.next > at, "no progress at {at}");
            at = step.next;
            left_out += step.left_out;
            prefixes.extend(step.ranges.into_iter().map(|(packed, _)| packed.prefix));
        }
        (prefixes, left_out)
    }

    #[test]
    fn a_directory_is_read_under_each_of_the_names_downloaders_give() {
        let place = place("names");
        let body = format!("{}:3\r\n", "A".repeat(35));
        for name in ["00000.txt", "0000A", "0000b.txt", "fffff", "notes.txt", "000000.txt"] {
            fs::write(place.join(name), &body).unwrap();
        }
        fs::write(place.join("00001.txt"), "<html>").unwrap();
        fs::create_dir(place.join("00002")).unwrap();
        assert_eq!(all(&place), (["00000", "0000A", "0000B", "FFFFF"].map(str::to_string).to_vec(), 2));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn the_single_file_is_read_in_steps_and_not_past_its_end() {
        let place = place("single");
        let path = place.join("pwned.txt");
        // 1,000 ranges of some 20 kB are more than a step
        let range = |n: u32| {
            (0..450)
                .map(move |row| format!("{}{row:035X}:7\r\n", prefix(if n == 999 { RANGES - 1 } else { n })))
                .collect::<String>()
        };
        fs::write(&path, (0..1000).map(range).collect::<String>()).unwrap();
        assert!(look(&path).unwrap().size > PIECE as u64);
        let (prefixes, left_out) = all(&path);
        assert_eq!((prefixes.len(), prefixes[999].as_str(), left_out), (1000, "FFFFF", 0));
        fs::write(&path, "this is no corpus\n".repeat(10)).unwrap();
        assert!(step(&path, 0).unwrap_err().contains("HASH:COUNT"));
        assert!(look(&place.join("missing")).is_err());
        fs::remove_dir_all(place).unwrap();
    }
}
