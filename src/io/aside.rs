//! A thread for what may take for ever, as reading from a disk that does not answer, so that whoever wants it done need not wait.
//!
//! Contract: one piece of work at a time, in the order given. Work that nobody waits for any more is not begun. While
//! work that was waited for in vain goes on, no other is taken: it would wait behind it.

use crate::io::signals::AllBlocked;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Enough for a few paths and what they lead to.
const STACK_BYTES: usize = 256 * 1024;
/// How long a cancelled session may take to notice.
const SLICE: Duration = Duration::from_millis(20);

type Work = Box<dyn FnOnce() + Send>;

/// Why work has brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It took longer than it may, or what was begun before it still does.
    TooLong,
    /// No thread could be made, or the work ended by a panic: why.
    Failed(String),
}

/// The thread, started with the first work.
#[derive(Default)]
pub struct Aside {
    work: Option<mpsc::Sender<Work>>,
    /// Pieces of work that are not over.
    open: Arc<AtomicUsize>,
    /// One of them was waited for in vain.
    in_vain: bool,
}

/// Takes work off the list when it ends, and also when it panics.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Tells the thread that nobody waits any more; also when the wait ends by an error.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Aside {
    /// Whether work that was waited for in vain still goes on.
    pub fn stuck(&self) -> bool {
        self.in_vain && self.open.load(Ordering::Acquire) > 0
    }

    /// Has the thread do something and waits for it, so long at most; `idle` is called now and then and may end the wait by a panic.
    ///
    /// # Errors
    /// [`Unanswered`]; the work may be done later all the same, if it was begun.
    pub fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        longest: Option<Duration>,
        idle: impl FnMut(),
    ) -> Result<T, Unanswered> {
        self.run_in_steps(move |_| work(), longest, idle)
    }

    /// As [`Aside::run`], for work that can end early: it is told whether somebody still waits.
    ///
    /// # Errors
    /// As [`Aside::run`].
    pub fn run_in_steps<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
        longest: Option<Duration>,
        mut idle: impl FnMut(),
    ) -> Result<T, Unanswered> {
        if self.stuck() {
            return Err(Unanswered::TooLong);
        }
        self.in_vain = false;
        let (send, receive) = mpsc::sync_channel(1);
        let waits = Waits(Arc::new(AtomicBool::new(true)));
        let (waited_for, open) = (waits.0.clone(), Open(self.open.clone()));
        self.open.fetch_add(1, Ordering::Acquire);
        self.hand_over(Box::new(move || {
            let _open = open;
            if waited_for.load(Ordering::Relaxed) {
                // nobody there any more: nobody wants it
                let _ = send.send(work(&waited_for));
            }
        }))?;
        let begun = Instant::now();
        loop {
            let left = longest.map_or(SLICE, |longest| longest.saturating_sub(begun.elapsed()).min(SLICE));
            match receive.recv_timeout(left) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Unanswered::Failed("the thread that was to do it panicked".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) if longest.is_some_and(|longest| begun.elapsed() >= longest) => {
                    self.in_vain = true;
                    return Err(Unanswered::TooLong);
                }
                Err(RecvTimeoutError::Timeout) => idle(),
            }
        }
    }

    fn hand_over(&mut self, work: Work) -> Result<(), Unanswered> {
        let work = match &self.work {
            Some(thread) => match thread.send(work) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(work)) => work,
            },
            None => work,
        };
        let (send, receive) = mpsc::channel::<Work>();
        let _blocked = AllBlocked::here();
        let thread = thread::Builder::new().name("enrichment aside".to_owned()).stack_size(STACK_BYTES);
        let no_thread = |error: std::io::Error| Unanswered::Failed(format!("no thread can be made: {error}"));
        let all = move || {
            for work in receive {
                // told by what it did not send; the thread is there for the next
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        };
        thread.spawn(all).map_err(no_thread)?;
        send.send(work).map_err(|_| Unanswered::Failed("the thread has ended".to_owned()))?;
        self.work = Some(send);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Option<Duration> = Some(Duration::from_millis(30));
    /// Longer than any of it takes.
    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    /// Work that goes on until it is told to end.
    fn stuck(aside: &mut Aside) -> mpsc::Sender<()> {
        let (end, ends) = mpsc::channel::<()>();
        assert_eq!(aside.run(move || ends.recv().is_ok(), SHORT, || {}), Err(Unanswered::TooLong));
        end
    }

    #[test]
    fn work_in_steps_sees_that_nobody_waits_any_more() {
        let mut aside = Aside::default();
        let (seen, sees) = mpsc::channel();
        let steps = move |waited_for: &AtomicBool| {
            while waited_for.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            seen.send(()).expect("the test waits");
        };
        assert_eq!(aside.run_in_steps(steps, SHORT, || {}), Err(Unanswered::TooLong));
        sees.recv_timeout(Duration::from_secs(60)).expect("it has ended");
    }

    fn until_free(aside: &Aside) {
        let begun = Instant::now();
        while aside.open.load(Ordering::Acquire) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the thread does not come back");
            thread::yield_now();
        }
    }

    #[test]
    fn work_that_does_not_end_holds_up_nobody_and_takes_no_second_thread() {
        let mut aside = Aside::default();
        assert_eq!(aside.run(|| 7, LONG, || {}), Ok(7));
        let end = stuck(&mut aside);
        assert!(aside.stuck());
        // at once, and not after the longest time
        let refused = aside.run(|| panic!("it must not be begun"), None::<Duration>, || panic!("nothing to wait for"));
        assert_eq!(refused, Err::<(), _>(Unanswered::TooLong));
        end.send(()).unwrap();
        until_free(&aside);
        assert!(!aside.stuck());
        assert_eq!(aside.run(|| 8, LONG, || {}), Ok(8));
    }

    #[test]
    fn a_wait_that_is_broken_off_is_over_and_the_next_work_waits_for_the_thread() {
        let mut aside = Aside::default();
        let (end, ends) = mpsc::channel::<()>();
        let broken =
            catch_unwind(AssertUnwindSafe(|| aside.run(move || ends.recv().is_ok(), None, || panic!("cancelled"))));
        assert!(broken.is_err());
        assert!(!aside.stuck(), "it was not waited for in vain");
        let mut rounds = 0;
        let next = aside.run(
            || 9,
            LONG,
            || {
                rounds += 1;
                if rounds == 2 {
                    end.send(()).unwrap();
                }
            },
        );
        assert_eq!((next, rounds), (Ok(9), 2));
    }

    #[test]
    fn work_that_nobody_waits_for_is_not_begun() {
        let mut aside = Aside::default();
        let (end, ends) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel::<()>();
        let broken =
            catch_unwind(AssertUnwindSafe(|| aside.run(move || ends.recv().is_ok(), None, || panic!("cancelled"))));
        assert!(broken.is_err());
        assert_eq!(aside.run(move || begun.send(()).is_ok(), SHORT, || {}), Err(Unanswered::TooLong));
        end.send(()).unwrap();
        until_free(&aside);
        assert!(begins.try_recv().is_err());
    }

    #[test]
    fn work_that_panics_is_told_and_the_thread_goes_on() {
        let mut aside = Aside::default();
        let died = aside.run(|| panic!("on purpose"), LONG, || {});
        assert!(matches!(died, Err::<(), _>(Unanswered::Failed(why)) if why.contains("panicked")));
        assert_eq!(aside.run(|| 1, LONG, || {}), Ok(1));
    }
}
