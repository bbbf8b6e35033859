//! The machine, as far as it matters for figures; nothing that names it.

use std::fs;

/// The processor's name, from proc(5), /proc/cpuinfo.
pub fn processor() -> Option<String> {
    named(&fs::read_to_string("/proc/cpuinfo").ok()?, "model name")
}

/// Bytes of memory, from proc(5), /proc/meminfo.
pub fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = named(&text, "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Processors this program may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn named(text: &str, name: &str) -> Option<String> {
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(known, _)| known.trim() == name)?;
    Some(value.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_name() {
        let text = "processor\t: 0\nmodel name\t: A B 7\n\nprocessor\t: 1\n";
        assert_eq!(named(text, "model name").as_deref(), Some("A B 7"));
        assert_eq!(named(text, "name"), None);
    }
}
