//! The entries of a tree in the order of their names' bytes, directory by directory, so that a walk can go on behind any
//! path. Of a directory at most [`PAGE`] names are held at a time; a larger one is listed again for the next ones.

use super::safe;
use crate::core::disk::recognise::recognise;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use std::collections::{BTreeSet, BinaryHeap};
use std::os::fd::OwnedFd;

/// The most names of one directory in memory.
const PAGE: usize = 100_000;
/// Levels of directories; the deepest layout has five.
const DEEPEST: usize = 16;

/// Something that stands in the tree and is no directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// An ordinary file, as the directory says.
    File(Vec<u8>),
    /// Something else, or a directory that cannot be read: its path and why, as the end of a sentence that begins with
    /// "the file".
    Other(Vec<u8>, String),
}

impl Entry {
    pub fn path(&self) -> &[u8] {
        match self {
            Entry::File(path) | Entry::Other(path, _) => path,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    File,
    Directory,
    Other(&'static str),
}

impl Kind {
    fn of(kind: Type) -> Kind {
        match kind {
            Type::File => Kind::File,
            Type::Directory => Kind::Directory,
            Type::Symlink => Kind::Other("a symbolic link"),
            Type::Fifo => Kind::Other("a FIFO"),
            Type::Socket => Kind::Other("a socket"),
            Type::CharacterDevice | Type::BlockDevice => Kind::Other("a device"),
        }
    }
}

/// A name, and what it is where the directory says that.
type Name = (Vec<u8>, Option<Kind>);

struct Level {
    directory: Dir,
    path: Vec<u8>,
    /// The next names, the last one first.
    names: Vec<Name>,
    /// The last name that was taken; where the next page begins.
    last: Vec<u8>,
    more: bool,
}

/// A walk over a tree.
pub struct Walk {
    levels: Vec<Level>,
    /// The parts of the path behind which it begins.
    after: Vec<Vec<u8>>,
    /// Names of the directories in the root that are looked into; all when there is no list.
    only: Option<BTreeSet<String>>,
    page: usize,
}

impl Walk {
    /// Walks the entries behind the path `after`, in the root's directories of these names.
    ///
    /// # Errors
    /// What the system says of the root.
    pub fn new(root: &OwnedFd, after: Option<&[u8]>, only: Option<BTreeSet<String>>) -> Result<Walk, Errno> {
        Walk::with_page(root, after, only, PAGE)
    }

    pub(super) fn with_page(
        root: &OwnedFd,
        after: Option<&[u8]>,
        only: Option<BTreeSet<String>>,
        page: usize,
    ) -> Result<Walk, Errno> {
        let after = after.map_or_else(Vec::new, |path| path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect());
        let mut walk = Walk { levels: Vec::new(), after, only, page };
        walk.enter(safe::open_directory(root, b".")?, Vec::new())?;
        Ok(walk)
    }

    fn enter(&mut self, directory: OwnedFd, path: Vec<u8>) -> Result<(), Errno> {
        let depth = self.levels.len();
        let from = self.after.get(depth).cloned().unwrap_or_default();
        let directory = Dir::from_fd(directory)?;
        // the path itself is taken, unless the walk begins within the directory of that name
        let within = depth + 1 < self.after.len();
        let mut level = Level { directory, path, names: Vec::new(), last: Vec::new(), more: false };
        level.list(&from, within, self.page)?;
        self.levels.push(level);
        Ok(())
    }

    /// Goes into a directory; what is wrong with it otherwise.
    fn descend(&mut self, path: &[u8], name: &[u8]) -> Option<String> {
        if self.levels.len() >= DEEPEST {
            return Some(format!("is a directory more than {DEEPEST} levels deep"));
        }
        let parent = &self.levels.last()?.directory;
        let entered = safe::open_directory(parent, name).and_then(|directory| self.enter(directory, path.to_vec()));
        entered.err().map(safe::why)
    }
}

impl Level {
    /// Takes the first names behind `from` (or from it on) in order.
    fn list(&mut self, from: &[u8], with_it: bool, page: usize) -> Result<(), Errno> {
        let mut least: BinaryHeap<Name> = BinaryHeap::new();
        self.more = false;
        for entry in self.directory.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || name < from || (name == from && !with_it) {
                continue;
            }
            if least.len() == page {
                self.more = true;
                if least.peek().is_some_and(|largest| name > largest.0.as_slice()) {
                    continue;
                }
                least.pop();
            }
            least.push((name.to_vec(), entry.file_type().map(Kind::of)));
        }
        self.names = least.into_sorted_vec();
        self.names.reverse();
        Ok(())
    }

    fn next(&mut self, page: usize) -> Result<Option<Name>, Errno> {
        if self.names.is_empty() && self.more {
            let last = self.last.clone();
            self.list(&last, false, page)?;
        }
        let next = self.names.pop();
        if let Some((name, _)) = &next {
            self.last.clone_from(name);
        }
        Ok(next)
    }

    /// What a name is, asked for where the directory does not say it.
    fn kind(&self, name: &[u8]) -> Result<Kind, Errno> {
        let stat = fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(match safe::other_than_file(&stat) {
            None => Kind::File,
            Some("a directory") => Kind::Directory,
            Some(other) => Kind::Other(other),
        })
    }
}

impl Iterator for Walk {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let page = self.page;
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            let (name, kind) = match level.next(page) {
                Ok(Some(next)) => next,
                Ok(None) => {
                    self.levels.pop();
                    continue;
                }
                Err(errno) => {
                    let path = level.path.clone();
                    self.levels.pop();
                    return Some(Entry::Other(path, safe::why(errno)));
                }
            };
            let path = if level.path.is_empty() { name.clone() } else { [&level.path[..], b"/", &name].concat() };
            let kind = match kind.map_or_else(|| level.kind(&name), Ok) {
                Ok(kind) => kind,
                Err(errno) => return Some(Entry::Other(path, safe::why(errno))),
            };
            // only the way to where the walk begins is special, and only once
            if self.after.get(depth - 1).is_some_and(|part| *part != name) {
                self.after.truncate(depth - 1);
            }
            let other = match kind {
                Kind::File => {
                    self.after.truncate(depth - 1);
                    if depth == 1 && self.only.as_ref().is_some_and(|only| !is_of(&path, only)) {
                        continue;
                    }
                    return Some(Entry::File(path));
                }
                Kind::Directory => {
                    let left_out = depth == 1
                        && self.only.as_ref().is_some_and(|only| !only.iter().any(|known| known.as_bytes() == name));
                    if left_out {
                        continue;
                    }
                    match self.descend(&path, &name) {
                        None => continue,
                        Some(why) => why,
                    }
                }
                Kind::Other(what) => format!("is {what}"),
            };
            return Some(Entry::Other(path, other));
        }
    }
}

/// Whether a file in the root is of one of these services.
fn is_of(path: &[u8], only: &BTreeSet<String>) -> bool {
    recognise(path).is_ok_and(|found| only.contains(&found.service))
}
