//! A box of results with a file descriptor to wait on.
//!
//! Contract: under the lock, one byte stands in the socket exactly while somebody is to look. That is while something
//! waits, unless whoever emptied the box last wanted quiet for a while: then from the end of that time, from when there
//! is a batch of results, or from when a thread says that it has nothing else to do. The end of the quiet is not
//! signalled; whoever wanted it looks by itself then. Whoever takes a portion leaves the byte where what is left is such a
//! reason.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// So many results end the quiet.
pub const BATCH: usize = 400;

pub(super) struct Mailbox<T> {
    inside: Mutex<Inside<T>>,
    read_end: UnixStream,
    write_end: UnixStream,
}

struct Inside<T> {
    waiting: VecDeque<T>,
    signalled: bool,
    /// A thread has said that it has nothing else to do, and what waited then is not all taken.
    hurried: bool,
    quiet_until: Option<Instant>,
}

impl<T> Mailbox<T> {
    /// # Errors
    /// When no two file descriptors are left.
    pub(super) fn new() -> io::Result<Self> {
        let (read_end, write_end) = UnixStream::pair()?;
        read_end.set_nonblocking(true)?;
        write_end.set_nonblocking(true)?;
        let inside = Inside { waiting: VecDeque::new(), signalled: false, hurried: false, quiet_until: None };
        Ok(Mailbox { inside: Mutex::new(inside), read_end, write_end })
    }

    pub(super) fn post(&self, item: T) {
        let mut inside = self.lock();
        inside.waiting.push_back(item);
        if inside.waiting.len() >= BATCH || inside.quiet_left().is_none() {
            self.signal(&mut inside);
        }
    }

    /// Ends the quiet if something waits.
    pub(super) fn hurry(&self) {
        let mut inside = self.lock();
        if !inside.waiting.is_empty() {
            inside.hurried = true;
            self.signal(&mut inside);
        }
    }

    fn signal(&self, inside: &mut Inside<T>) {
        if !inside.signalled {
            // with no byte in the socket there is room for one, so this cannot fail
            let _ = (&self.write_end).write(&[1]);
            inside.signalled = true;
        }
    }

    /// Takes everything, in the order of arrival, and wants quiet for a while.
    pub(super) fn drain(&self, quiet: Duration) -> Vec<T> {
        self.take(usize::MAX, quiet)
    }

    /// As [`Mailbox::drain`], so many at most.
    pub(super) fn take(&self, most: usize, quiet: Duration) -> Vec<T> {
        let mut inside = self.lock();
        let portion = most.min(inside.waiting.len());
        let taken = inside.waiting.drain(..portion).collect();
        inside.hurried &= !inside.waiting.is_empty();
        inside.quiet_until = (!quiet.is_zero()).then(|| Instant::now() + quiet);
        let left = inside.waiting.len();
        if left >= BATCH || inside.hurried || (left > 0 && quiet.is_zero()) {
            self.signal(&mut inside);
        } else if inside.signalled {
            let _ = (&self.read_end).read(&mut [0; 8]);
            inside.signalled = false;
        }
        taken
    }

    /// What is left of the quiet.
    pub(super) fn quiet_left(&self) -> Option<Duration> {
        self.lock().quiet_left()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Readable while somebody is to look; to be polled, never read.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }

    /// Waits until something is there, so long at most.
    pub(super) fn wait(&self, longest: Duration) {
        let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        // one that is interrupted, which signals do not do here, ends early
        let _ = poll(&mut [PollFd::new(&self.read_end, PollFlags::IN)], Some(&timeout));
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
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

impl<T> Inside<T> {
    fn quiet_left(&self) -> Option<Duration> {
        let left = self.quiet_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
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
            assert_eq!(mailbox.drain(Duration::ZERO), [1, 2]);
            assert!(!mailbox.readable_within(0));
            assert!(mailbox.drain(Duration::ZERO).is_empty());
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
        assert_eq!(mailbox.drain(Duration::ZERO).len(), 4 * each);
        assert!(!mailbox.readable_within(0));
    }

    #[test]
    fn quiet_lasts_until_a_batch_is_there_or_somebody_hurries() {
        let mailbox = Mailbox::new().unwrap();
        let long = Duration::from_secs(3600);
        mailbox.hurry();
        assert!(mailbox.drain(long).is_empty() && mailbox.quiet_left().is_some());
        (1..BATCH).for_each(|n| mailbox.post(n));
        mailbox.hurry();
        assert!(mailbox.readable_within(0));
        assert_eq!(mailbox.drain(long).len(), BATCH - 1);
        (1..BATCH).for_each(|n| mailbox.post(n));
        assert!(!mailbox.readable_within(0) && !mailbox.is_empty());
        mailbox.post(0);
        assert!(mailbox.readable_within(0));
        assert_eq!(mailbox.drain(Duration::ZERO).len(), BATCH);
        assert!(mailbox.quiet_left().is_none());
        mailbox.post(1);
        assert!(mailbox.readable_within(0));
    }

    #[test]
    fn what_a_portion_leaves_is_told_if_it_is_a_batch_or_was_hurried_or_nobody_wants_quiet() {
        let mailbox = Mailbox::new().unwrap();
        let long = Duration::from_secs(3600);
        (0..3 * BATCH - 1).for_each(|n| mailbox.post(n));
        assert_eq!(mailbox.take(BATCH, long), (0..BATCH).collect::<Vec<_>>());
        assert!(mailbox.readable_within(0), "a batch is left");
        assert_eq!(mailbox.take(BATCH, long)[0], BATCH);
        assert!(!mailbox.readable_within(0) && !mailbox.is_empty(), "less than a batch gathers");
        mailbox.hurry();
        assert_eq!(mailbox.take(1, long), [2 * BATCH]);
        assert!(mailbox.readable_within(0), "a thread has nothing else to do");
        assert_eq!(mailbox.take(BATCH, long).len(), BATCH - 2);
        mailbox.post(1);
        mailbox.post(2);
        assert!(!mailbox.readable_within(0), "the hurry was about what is taken");
        assert_eq!(mailbox.take(1, Duration::ZERO), [1]);
        assert!(mailbox.readable_within(0), "nobody wants quiet");
        assert_eq!(mailbox.drain(long), [2]);
        assert!(!mailbox.readable_within(0));
    }
}
