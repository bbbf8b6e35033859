//! What is compared with what. A group is one capability; its section of the document carries its title.

mod bloat;
mod bookkeeping;
mod bulk_load;
mod cleanup;
mod disk_latency;
mod fetch;
mod fetch_bare;
mod hibp;
mod hibp_load;
mod import;
mod joins;
mod lookup_hot;
mod lookup_random;
mod many;
mod parallel;
mod rivals;
mod selective;
mod size;
mod store;
mod ten_million;
mod wire;
mod write_back;

use crate::bed::Bed;
use crate::data::{main_load, store_load};
use crate::report::findings::Findings;
use crate::Result;

pub use size::like_the_cache;

/// What a group reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The whole cache and the user's tables; it is only read.
    Main,
    /// A smaller cache that is written to.
    Store,
    /// It makes its own.
    Nothing,
}

impl Needs {
    /// Makes the data, unless an earlier group needed them too.
    ///
    /// # Errors
    /// The server's error.
    pub fn prepare(self, bed: &mut Bed) -> Result<()> {
        match self {
            Needs::Main => main_load::prepare(bed),
            Needs::Store => store_load::prepare(bed),
            Needs::Nothing => Ok(()),
        }
    }
}

/// One capability.
pub struct Group {
    /// For BENCH_ONLY.
    pub id: &'static str,
    pub title: &'static str,
    pub needs: Needs,
    /// Part of a run for which no groups were named.
    pub ordinary: bool,
    pub measure: fn(&mut Bed) -> Result<Findings>,
}

const fn group(
    id: &'static str,
    title: &'static str,
    needs: Needs,
    measure: fn(&mut Bed) -> Result<Findings>,
) -> Group {
    Group { id, title, needs, ordinary: true, measure }
}

/// All groups, in the order in which they run and stand in the document.
pub const ALL: &[Group] = &[
    group(
        "lookup-hot",
        "Look-ups in a query, over keys that are in the processor's caches",
        Needs::Main,
        lookup_hot::measure,
    ),
    group(
        "lookup-random",
        "Look-ups in a query, over all sessions in random order",
        Needs::Main,
        lookup_random::measure,
    ),
    group("parallel", "Parallel queries", Needs::Main, parallel::measure),
    group("bookkeeping", "What counting hits costs", Needs::Main, bookkeeping::measure),
    group("wire", "Single look-ups over the wire", Needs::Main, wire::measure),
    group("many", "Many keys in one call", Needs::Main, many::measure),
    group("joins", "Joins of all sessions with the typed views", Needs::Main, joins::measure),
    group("selective", "Joins of a few sessions with a typed view", Needs::Main, selective::measure),
    group("hibp", "All passwords against the cached HIBP ranges", Needs::Main, hibp::measure),
    group("size", "Size on disk", Needs::Main, size::measure),
    group("store", "Storing", Needs::Store, store::measure),
    group("cleanup", "Cleanup, and a reader beside it", Needs::Store, cleanup::measure),
    group("fetch", "Fetching", Needs::Nothing, fetch::measure),
    group(
        "fetch-trouble",
        "Fetching where calls fail, and where there is nothing to do",
        Needs::Nothing,
        fetch::trouble,
    ),
    group(
        "disk-latency",
        "Single look-ups, from the database and from files of a disk cache",
        Needs::Nothing,
        disk_latency::measure,
    ),
    group("import", "Moving in from a disk cache", Needs::Nothing, import::measure),
    group("hibp-load", "Loading a corpus of HIBP", Needs::Nothing, hibp_load::measure),
    group("write-back", "Writing answers into the rows of a table", Needs::Nothing, write_back::measure),
    group("bulk-load", "A bulk load into an attached table", Needs::Nothing, bulk_load::measure),
    group("bloat", "Twenty cycles of expiry and refill", Needs::Store, bloat::measure),
    Group {
        ordinary: false,
        ..group("ten-million", "A single look-up among ten million rows", Needs::Nothing, ten_million::measure)
    },
];

/// The groups of these names, or all of the ordinary run.
///
/// # Errors
/// A name that is none, with those that are.
pub fn chosen(only: &[String]) -> Result<Vec<&'static Group>> {
    if let Some(unknown) = only.iter().find(|name| ALL.iter().all(|group| group.id != **name)) {
        let known = ALL.iter().map(|group| group.id).collect::<Vec<_>>().join(", ");
        return Err(format!("BENCH_ONLY names {unknown:?}; there are {known}").into());
    }
    Ok(ALL
        .iter()
        .filter(|group| if only.is_empty() { group.ordinary } else { only.iter().any(|name| name == group.id) })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinary_run_leaves_out_the_long_one() {
        let ids: Vec<&str> = chosen(&[]).unwrap().iter().map(|group| group.id).collect();
        assert!(ids.contains(&"wire") && !ids.contains(&"ten-million"));
    }

    #[test]
    fn groups_run_in_their_own_order_whatever_was_asked_first() {
        let names = ["wire", "lookup-hot", "ten-million"].map(String::from);
        let ids: Vec<&str> = chosen(&names).unwrap().iter().map(|group| group.id).collect();
        assert_eq!(ids, ["lookup-hot", "wire", "ten-million"]);
    }

    #[test]
    fn an_unknown_group_is_refused_with_the_known_ones() {
        let why = chosen(&["lookups".to_string()]).err().unwrap().to_string();
        assert!(why.contains("lookups") && why.contains("lookup-hot"), "{why}");
    }
}
