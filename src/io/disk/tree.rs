//! One directory tree and nothing outside of it: no symbolic link below the root is followed, only regular files are read,
//! and a file is there whole or not at all.

use super::place::{put, Kernel};
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::core::{Micros, SECOND};

/// Permissions are those of the folder that a file or folder is put into: whoever may use that one may use the new one.
const BITS: u32 = 0o7777;
/// A file that is changed while it is read is read again, so often at most.
const READS: usize = 3;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The tree cannot be used: it is not there, full, read-only, broken. Every other file would fail as well.
    Tree(String),
    /// One file, or the folder it should lie in.
    File(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Tree(why) | Trouble::File(why) => f.write_str(why),
        }
    }
}

/// Whether a written file is on the disk when `write` returns, or only after [`Tree::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    Now,
    Later,
}

/// An open directory.
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens the directory. It may itself be reached through symbolic links.
    ///
    /// # Errors
    /// [`Trouble::Tree`].
    pub fn open(root: &Path) -> Result<Tree, Trouble> {
        if !root.is_absolute() {
            return Err(Trouble::Tree("the directory of the disk cache is not an absolute path".to_owned()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(root, flags, Mode::empty())
            .map_err(|errno| Trouble::Tree(format!("the directory of the disk cache cannot be opened: {errno}")))?;
        Ok(Tree { root })
    }

    /// The bytes of a file and its time of change; `None` when there is none, or it changes all the time.
    ///
    /// # Errors
    /// [`Trouble::File`] also for what is no regular file, or has more than `most` bytes.
    pub fn read(&self, path: &str, most: u64) -> Result<Option<(Vec<u8>, Micros)>, Trouble> {
        for _ in 0..READS {
            // a FIFO would wait for its writer
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let Some(file) = found(beneath(self.root.as_fd(), path, flags), path)? else { return Ok(None) };
            let mut file = File::from(file);
            let before = file.metadata().map_err(|error| trouble(path, "read", errno(&error)))?;
            if !before.is_file() {
                return Err(Trouble::File(format!("\"{path}\" is not a regular file")));
            }
            if before.len() > most {
                let size = before.len();
                return Err(Trouble::File(format!("\"{path}\" has {size} bytes, more than the {most} that are taken")));
            }
            let mut bytes = Vec::with_capacity(before.len() as usize + 1);
            let read = (&mut file).take(most + 1).read_to_end(&mut bytes);
            read.map_err(|error| trouble(path, "read", errno(&error)))?;
            let after = file.metadata().map_err(|error| trouble(path, "read", errno(&error)))?;
            if bytes.len() as u64 == after.len() && changed(&before) == changed(&after) {
                return Ok(Some((bytes, changed(&after))));
            }
        }
        Ok(None)
    }

    /// When a file was last changed; `None` when there is none.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn changed(&self, path: &str) -> Result<Option<Micros>, Trouble> {
        let Some(file) = found(beneath(self.root.as_fd(), path, OFlags::PATH), path)? else { return Ok(None) };
        let stat = fs::fstat(&file).map_err(|errno| trouble(path, "read", errno))?;
        Ok(Some(micros(stat.st_mtime, stat.st_mtime_nsec as i64)))
    }

    /// Puts a file in place in one step, with this time of change, making the folders it needs.
    ///
    /// # Errors
    /// What was there before is there still then.
    pub fn write(&self, path: &str, bytes: &[u8], at: Micros, flush: Flush) -> Result<(), Trouble> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.folder(folders, flush)?;
        let temporary = format!(".{name}.{}.tmp", std::process::id());
        let result = put(&mut Kernel, folder.as_fd(), &temporary, name, bytes, at, flush);
        result.map_err(|errno| {
            // what is left of it is in nobody's way, and tried again
            let _ = fs::unlinkat(&folder, temporary.as_str(), AtFlags::empty());
            trouble(path, "written", errno)
        })
    }

    /// Takes a file away that was not changed after `not_after`; says whether there was one.
    ///
    /// # Errors
    /// The file is there still then.
    pub fn remove(&self, path: &str, not_after: Micros) -> Result<bool, Trouble> {
        let there = self.changed(path)?;
        if there.is_none_or(|at| at > not_after) {
            return Ok(false);
        }
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = if folders.is_empty() { ".".to_owned() } else { folders.to_owned() };
        let Some(folder) = found(beneath(self.root.as_fd(), &folder, flags), path)? else { return Ok(false) };
        match fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(trouble(path, "removed", errno)),
        }
    }

    /// Has everything that was written reach the disk.
    ///
    /// # Errors
    /// [`Trouble::Tree`].
    pub fn flush(&self) -> Result<(), Trouble> {
        fs::syncfs(&self.root).map_err(|errno| Trouble::Tree(format!("the disk cache cannot be flushed: {errno}")))
    }

    /// Opens a folder below the root, making what is missing of the way to it.
    fn folder(&self, path: &str, flush: Flush) -> Result<OwnedFd, Trouble> {
        let open = |folder: BorrowedFd, part: &str| {
            fs::openat(
                folder,
                part,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let mut folder = open(self.root.as_fd(), ".").map_err(|errno| trouble(path, "opened", errno))?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let next = match open(folder.as_fd(), part) {
                Err(Errno::NOENT) => {
                    let made = make_folder(folder.as_fd(), part, flush).and_then(|()| open(folder.as_fd(), part));
                    made.map_err(|errno| trouble(path, "made", errno))?
                }
                opened => opened.map_err(|errno| trouble(path, "opened", errno))?,
            };
            folder = next;
        }
        Ok(folder)
    }
}

fn make_folder(parent: BorrowedFd, name: &str, flush: Flush) -> Result<(), Errno> {
    let bits = Mode::from_raw_mode(fs::fstat(parent)?.st_mode & BITS);
    match fs::mkdirat(parent, name, bits) {
        // somebody else was faster, which is as well
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    // the process's own mask has taken bits away
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::fchmod(fs::openat(parent, name, flags, Mode::empty())?, bits)?;
    if flush == Flush::Now {
        fs::fsync(parent)?;
    }
    Ok(())
}

/// Opens what lies under a relative path below a folder, without following a symbolic link anywhere.
fn beneath(root: BorrowedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // a kernel before 5.6, or a sandbox that does not know the call
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(root, path, flags),
        opened => opened,
    }
}

fn step_by_step(root: BorrowedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder: Option<OwnedFd> = None;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(Errno::XDEV);
        }
        let from = folder.as_ref().map_or(root, |folder| folder.as_fd());
        // of a symbolic link a directory is asked for: ENOTDIR
        folder = Some(fs::openat(from, part, way, Mode::empty())?);
    }
    let from = folder.as_ref().map_or(root, |folder| folder.as_fd());
    let file = fs::openat(from, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    // with O_PATH a link itself is opened
    match fs::FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
        fs::FileType::Symlink => Err(Errno::LOOP),
        _ => Ok(file),
    }
}

fn found(opened: Result<OwnedFd, Errno>, path: &str) -> Result<Option<OwnedFd>, Trouble> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(trouble(path, "read", errno)),
    }
}

/// Whether one file is the trouble or all of them are.
fn trouble(path: &str, done: &str, errno: Errno) -> Trouble {
    match errno {
        Errno::LOOP => Trouble::File(format!("\"{path}\" is or lies behind a symbolic link, which is not followed")),
        Errno::NOTDIR => Trouble::File(format!("on the way to \"{path}\" stands what is no folder")),
        Errno::ACCESS
        | Errno::PERM
        | Errno::ISDIR
        | Errno::EXIST
        | Errno::NAMETOOLONG
        | Errno::XDEV
        | Errno::NXIO
        | Errno::NOENT
        | Errno::NOTEMPTY
        | Errno::TXTBSY
        | Errno::BUSY => Trouble::File(format!("\"{path}\" cannot be {done}: {errno}")),
        _ => Trouble::Tree(format!("\"{path}\" cannot be {done}: {errno}")),
    }
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn changed(metadata: &std::fs::Metadata) -> Micros {
    use std::os::unix::fs::MetadataExt;
    micros(metadata.mtime(), metadata.mtime_nsec())
}

fn micros(seconds: i64, nanos: i64) -> Micros {
    seconds.saturating_mul(SECOND).saturating_add(nanos / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_openat2_the_same_is_found_and_refused() {
        let root = std::env::temp_dir().join(format!("enrichment-tree-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/c.json"), "{}").unwrap();
        std::os::unix::fs::symlink("c.json", root.join("a/b/link")).unwrap();
        std::os::unix::fs::symlink("b", root.join("a/way")).unwrap();
        let tree = Tree::open(&root).unwrap();
        let (old, new) = (step_by_step, beneath);
        for path in ["a/b/c.json", "a/b/none", "a/b/link", "a/way/c.json", "../x", "a/b/c.json/d"] {
            for flags in [OFlags::RDONLY, OFlags::PATH] {
                let step = old(tree.root.as_fd(), path, flags | OFlags::CLOEXEC).map(drop);
                let at_once = new(tree.root.as_fd(), path, flags).map(drop);
                assert_eq!(step.is_ok(), at_once.is_ok(), "{path}: {step:?} {at_once:?}");
                assert_eq!(step.err() == Some(Errno::NOENT), at_once.err() == Some(Errno::NOENT), "{path}");
            }
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
