//! Opening what stands in a tree that others may change: never through a symbolic link, never out of the tree, never
//! waiting for the other end of a FIFO.

use crate::core::Micros;
use nix::errno::Errno;
use nix::fcntl::{openat, openat2, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{fstat, FileStat, Mode, SFlag};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a file that changes while it is read is read again.
const TRIES: u32 = 3;

/// The kernel does not know `openat2`, or a filter forbids it.
static STEP_BY_STEP: AtomicBool = AtomicBool::new(false);

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY
}

/// Opens the root of a tree. A symbolic link is followed here: whoever names it means it.
///
/// # Errors
/// What the system says.
pub fn open_root(directory: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(Path::new(directory), flags, Mode::empty())
}

/// Opens a directory in another one.
pub(super) fn open_directory(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(parent, name, flags() | OFlag::O_DIRECTORY, Mode::empty())
}

/// Opens a path below the root.
fn open_below(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    if !STEP_BY_STEP.load(Ordering::Relaxed) {
        let how = OpenHow::new().flags(flags()).resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        match openat2(root, path, how) {
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => STEP_BY_STEP.store(true, Ordering::Relaxed),
            result => return result,
        }
    }
    step_by_step(root, path)
}

pub(super) fn step_by_step(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut parts = path.split(|&byte| byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let parent = held.as_ref().unwrap_or(root);
        if parts.peek().is_none() {
            return openat(parent, part, flags(), Mode::empty());
        }
        held = Some(open_directory(parent, part)?);
    }
    Err(Errno::ENOENT)
}

/// Reads a file below the root into `bytes`, in place of what they held, and tells when it was changed; `most` is the size up to
/// which that is done.
///
/// # Errors
/// Why it could not be read, as the end of a sentence that begins with "the file".
pub fn read(root: &OwnedFd, path: &[u8], most: u64, bytes: &mut Vec<u8>) -> Result<Micros, String> {
    for _ in 0..TRIES {
        let fd = open_below(root, path).map_err(why)?;
        let before = fstat(&fd).map_err(why)?;
        if let Some(kind) = other_than_file(&before) {
            return Err(format!("is {kind}"));
        }
        let size = before.st_size.max(0) as u64;
        if size > most {
            return Err(format!("has {size} bytes, more than {most}"));
        }
        let file = File::from(fd);
        bytes.clear();
        bytes.reserve(size as usize);
        // one that grows meanwhile shows it by its size afterwards
        let read = (&file).take(size).read_to_end(bytes);
        read.map_err(|error| why(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        let after = fstat(&file).map_err(why)?;
        if bytes.len() as i64 == after.st_size && moment(&before) == moment(&after) {
            return Ok(moment(&after));
        }
    }
    Err("changed while it was read, several times".to_owned())
}

/// The time of change, in microseconds.
fn moment(stat: &FileStat) -> Micros {
    stat.st_mtime.saturating_mul(1_000_000).saturating_add(stat.st_mtime_nsec / 1000)
}

/// What it is when it is no ordinary file.
pub(super) fn other_than_file(stat: &FileStat) -> Option<&'static str> {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => None,
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFLNK => Some("a symbolic link"),
        SFlag::S_IFIFO => Some("a FIFO"),
        SFlag::S_IFSOCK => Some("a socket"),
        _ => Some("a device"),
    }
}

/// What an error of the system says of a file.
pub(super) fn why(errno: Errno) -> String {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => "is gone".to_owned(),
        Errno::ELOOP => "is a symbolic link, or lies behind one".to_owned(),
        Errno::EXDEV => "lies outside of the directory".to_owned(),
        Errno::EACCES | Errno::EPERM => "may not be read by the server".to_owned(),
        Errno::ENXIO => "is a socket or a device".to_owned(),
        other => format!("could not be read: {}", other.desc()),
    }
}
