//! A box of results with a file descriptor to wait on.
//!
//! Contract: under the lock, one byte stands in the socket exactly when the box is not empty. So the descriptor is
//! readable exactly while something waits, however many results come or however often the box is emptied.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{epoll, poll, PollFd, PollFlags, Timespec};

/// One descriptor to wait on for several boxes.
pub struct Any(OwnedFd);

impl Any {
    /// # Errors
    /// When no file descriptor is left.
    pub fn of(several: &[BorrowedFd]) -> io::Result<Any> {
        let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for one in several {
            epoll::add(&all, one, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Any(all))
    }

    /// Readable while one of them is. Those must live as long as this; one that was closed is never readable again.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

pub(super) struct Mailbox<T> {
    waiting: Mutex<Vec<T>>,
    read_end: UnixStream,
    write_end: UnixStream,
}

impl<T> Mailbox<T> {
    /// # Errors
    /// When no two file descriptors are left.
    pub(super) fn new() -> io::Result<Self> {
        let (read_end, write_end) = UnixStream::pair()?;
        read_end.set_nonblocking(true)?;
        write_end.set_nonblocking(true)?;
        Ok(Mailbox { waiting: Mutex::new(Vec::new()), read_end, write_end })
    }

    pub(super) fn post(&self, item: T) {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            // with no byte in the socket there is room for one, so this cannot fail
            let _ = (&self.write_end).write(&[1]);
        }
        waiting.push(item);
    }

    /// Takes everything, in the order of arrival.
    pub(super) fn drain(&self) -> Vec<T> {
        let mut waiting = self.lock();
        if !waiting.is_empty() {
            let _ = (&self.read_end).read(&mut [0; 8]);
        }
        std::mem::take(&mut *waiting)
    }

    /// Readable while something waits; to be polled, never read.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }

    /// Waits until something is there, so long at most.
    pub(super) fn wait(&self, longest: Duration) {
        let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        // one that is interrupted, which signals do not do here, ends early
        let _ = poll(&mut [PollFd::new(&self.read_end, PollFlags::IN)], Some(&timeout));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is there, at most `timeout_ms`; says whether it is.
    #[cfg(test)]
    pub(super) fn readable_within(&self, timeout_ms: u16) -> bool {
        use nix::poll::{poll, PollFd, PollFlags};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.read_end.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout_ms).unwrap() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_readable_exactly_while_a_result_waits() {
        let mailbox = Mailbox::new().unwrap();
        for _ in 0..3 {
            assert!(!mailbox.readable_within(0));
            mailbox.post(1);
            mailbox.post(2);
            assert!(mailbox.readable_within(0));
            assert_eq!(mailbox.drain(), [1, 2]);
            assert!(!mailbox.readable_within(0));
            assert!(mailbox.drain().is_empty());
        }
    }

    #[test]
    fn results_of_many_threads_all_arrive_and_never_fill_the_socket() {
        let mailbox = Mailbox::new().unwrap();
        let each = 100_000;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..each).for_each(|n| mailbox.post(n)));
            }
        });
        assert!(mailbox.readable_within(0));
        assert_eq!(mailbox.drain().len(), 4 * each);
        assert!(!mailbox.readable_within(0));
    }
}
