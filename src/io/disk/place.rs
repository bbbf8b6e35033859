//! How a file comes into its place: under a name that nobody reads, whole, with its time and on the disk, and only then
//! under its own. So whoever reads, and whatever ends in between, finds the former file or the new one.

use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use super::tree::{errno, Flush};
use crate::core::{Micros, SECOND};

/// Nothing in a file is run.
const FILE_BITS: u32 = 0o666;

/// The calls of the system that count here; tests look on, and have one fail.
pub(super) trait Calls {
    fn create(&mut self, folder: BorrowedFd, name: &str) -> Result<File, Errno>;
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), Errno>;
    fn stamp(&mut self, file: &File, at: Micros) -> Result<(), Errno>;
    fn sync(&mut self, what: BorrowedFd) -> Result<(), Errno>;
    fn rename(&mut self, folder: BorrowedFd, from: &str, to: &str) -> Result<(), Errno>;
}

/// The system itself.
pub(super) struct Kernel;

impl Calls for Kernel {
    fn create(&mut self, folder: BorrowedFd, name: &str) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), Errno> {
        file.write_all(bytes).map_err(|error| errno(&error))
    }

    fn stamp(&mut self, file: &File, at: Micros) -> Result<(), Errno> {
        let moment = Timespec { tv_sec: at.div_euclid(SECOND), tv_nsec: (at.rem_euclid(SECOND) * 1000) as _ };
        fs::futimens(file, &Timestamps { last_access: moment, last_modification: moment })
    }

    fn sync(&mut self, what: BorrowedFd) -> Result<(), Errno> {
        fs::fsync(what)
    }

    fn rename(&mut self, folder: BorrowedFd, from: &str, to: &str) -> Result<(), Errno> {
        fs::renameat(folder, from, folder, to)
    }
}

/// Puts a file of this name, these bytes and this time of change into a folder, by way of a temporary one.
///
/// # Errors
/// What the system says; what was there before is there still, and the temporary file may be.
pub(super) fn put(
    calls: &mut impl Calls,
    folder: BorrowedFd,
    temporary: &str,
    name: &str,
    bytes: &[u8],
    at: Micros,
    flush: Flush,
) -> Result<(), Errno> {
    let mut file = match calls.create(folder, temporary) {
        // of a process of this number that was killed
        Err(Errno::EXIST) => {
            fs::unlinkat(folder, temporary, AtFlags::empty())?;
            calls.create(folder, temporary)?
        }
        created => created?,
    };
    calls.write(&mut file, bytes)?;
    fs::fchmod(&file, Mode::from_raw_mode(fs::fstat(folder)?.st_mode & FILE_BITS))?;
    calls.stamp(&file, at)?;
    if flush == Flush::Now {
        calls.sync(file.as_fd())?;
    }
    calls.rename(folder, temporary, name)?;
    if flush == Flush::Now {
        calls.sync(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// The system, with somebody who reads the file before each call, and one call that fails.
    struct Watched {
        folder: PathBuf,
        calls: Vec<String>,
        fails_at: usize,
    }

    impl Watched {
        fn new(folder: &str, fails_at: usize) -> Watched {
            let folder = std::env::temp_dir().join(format!("enrichment-place-{}-{folder}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("a.json"), "former").unwrap();
            Watched { folder, calls: Vec::new(), fails_at }
        }

        fn read(&self) -> String {
            std::fs::read_to_string(self.folder.join("a.json")).unwrap()
        }

        fn note(&mut self, call: &str) -> Result<(), Errno> {
            let seen = self.read();
            self.calls.push(format!("{call}, {seen} is read"));
            (self.calls.len() != self.fails_at).then_some(()).ok_or(Errno::IO)
        }

        fn put(&mut self, flush: Flush) -> Result<(), Errno> {
            let folder = File::open(&self.folder).unwrap();
            put(self, folder.as_fd(), ".a.tmp", "a.json", b"whole", 5 * SECOND, flush)
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    impl Calls for Watched {
        fn create(&mut self, folder: BorrowedFd, name: &str) -> Result<File, Errno> {
            self.note(&format!("create {name}"))?;
            Kernel.create(folder, name)
        }

        fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), Errno> {
            self.note(&format!("write {} bytes", bytes.len()))?;
            Kernel.write(file, bytes)
        }

        fn stamp(&mut self, file: &File, at: Micros) -> Result<(), Errno> {
            self.note(&format!("time {}", at / SECOND))?;
            Kernel.stamp(file, at)
        }

        fn sync(&mut self, what: BorrowedFd) -> Result<(), Errno> {
            let stat = fs::fstat(what).unwrap();
            let kind = match fs::FileType::from_raw_mode(stat.st_mode) {
                fs::FileType::Directory => "folder".to_string(),
                _ => format!("file of {} bytes changed at {}", stat.st_size, stat.st_mtime),
            };
            self.note(&format!("fsync {kind}"))?;
            Kernel.sync(what)
        }

        fn rename(&mut self, folder: BorrowedFd, from: &str, to: &str) -> Result<(), Errno> {
            self.note(&format!("rename {from} {to}"))?;
            Kernel.rename(folder, from, to)
        }
    }

    const CALLS: [&str; 6] = [
        "create .a.tmp, former is read",
        "write 5 bytes, former is read",
        "time 5, former is read",
        "fsync file of 5 bytes changed at 5, former is read",
        "rename .a.tmp a.json, former is read",
        "fsync folder, whole is read",
    ];

    #[test]
    fn a_file_is_whole_and_on_the_disk_before_it_has_its_name_and_the_name_is_on_the_disk_then() {
        let mut watched = Watched::new("order", 0);
        watched.put(Flush::Now).unwrap();
        assert_eq!(watched.calls, CALLS);
        assert_eq!(watched.read(), "whole");
        // an export flushes the file system once for many files
        let mut later = Watched::new("later", 0);
        later.put(Flush::Later).unwrap();
        assert_eq!(later.calls, [CALLS[0], CALLS[1], CALLS[2], CALLS[4]]);
    }

    #[test]
    fn whatever_call_fails_the_former_file_stays_until_the_new_one_is_whole() {
        for fails_at in 1..=CALLS.len() {
            let mut watched = Watched::new(&format!("fails-{fails_at}"), fails_at);
            assert_eq!(watched.put(Flush::Now), Err(Errno::IO));
            assert_eq!(watched.calls, CALLS[..fails_at], "nothing is done after a failure");
            assert_eq!(watched.read(), if fails_at < CALLS.len() { "former" } else { "whole" });
            // what was left of it is in nobody's way
            watched.fails_at = 0;
            watched.put(Flush::Now).unwrap();
            assert_eq!(watched.read(), "whole");
        }
    }
}
