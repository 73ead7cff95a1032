//! Requests that wait for a slot: bounded, first come first served, and without those that nobody waits for any more.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Something that may lose its reader while it waits.
pub(super) trait Waiting {
    /// Whether nobody wants it any more.
    fn is_abandoned(&self) -> bool;
}

/// Why a request was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full {
        waiting: usize,
    },
    /// The queue has not so many places.
    TooMany {
        capacity: usize,
    },
    Draining,
    Stopped,
}

/// What the queue does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Takes and gives.
    Open,
    /// Gives what it has.
    Draining,
    /// Holds nothing.
    Stopped,
}

impl Phase {
    fn check_open(self) -> Result<(), Refused> {
        match self {
            Self::Open => Ok(()),
            Self::Draining => Err(Refused::Draining),
            Self::Stopped => Err(Refused::Stopped),
        }
    }
}

/// Shared by the host's threads, which push, and the engine's thread, which pops.
#[derive(Debug)]
pub(super) struct Queue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    phase: Phase,
    waiting: VecDeque<T>,
}

impl<T: Waiting> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { phase: Phase::Open, waiting: VecDeque::new() };
        Self { capacity, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends requests in a row: all of them or none. Abandoned ones make room first: clients that hung up must not
    /// keep others out.
    pub(super) fn push_all(&self, items: Vec<T>) -> Result<(), Refused> {
        let mut state = self.lock();
        state.phase.check_open()?;
        let Some(most_before) = self.capacity.checked_sub(items.len()) else {
            // A queue without places is always full; it is no reason to ask for less.
            return Err(if items.len() > 1 {
                Refused::TooMany { capacity: self.capacity }
            } else {
                Refused::Full { waiting: state.waiting.len() }
            });
        };
        if state.waiting.len() > most_before {
            state.waiting.retain(|item| !item.is_abandoned());
        }
        if state.waiting.len() > most_before {
            return Err(Refused::Full { waiting: state.waiting.len() });
        }
        state.waiting.extend(items);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Whether requests are taken, were there room.
    pub(super) fn check_open(&self) -> Result<(), Refused> {
        self.lock().phase.check_open()
    }

    /// Takes the longest waiting request if `fits` says so. Never overtakes: a request that needs much room would
    /// otherwise wait for ever behind small ones.
    pub(super) fn pop_if(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        while state.waiting.front().is_some_and(T::is_abandoned) {
            state.waiting.pop_front();
        }
        if state.waiting.front().is_some_and(fits) { state.waiting.pop_front() } else { None }
    }

    /// Sleeps until there is a request; `false` when there will never be one again.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() {
                return true;
            }
            if state.phase != Phase::Open {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().phase == Phase::Stopped
    }

    /// Takes no more; what waits is still given out.
    pub(super) fn drain(&self) {
        let mut state = self.lock();
        state.phase = state.phase.max(Phase::Draining);
        drop(state);
        self.changed.notify_all();
    }

    /// Takes no more and drops what waits.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.phase = Phase::Stopped;
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        drop(dropped);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under the lock with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Item {
        name: &'static str,
        abandoned: bool,
    }

    impl Waiting for Item {
        fn is_abandoned(&self) -> bool {
            self.abandoned
        }
    }

    fn wanted(name: &'static str) -> Item {
        Item { name, abandoned: false }
    }

    fn abandoned(name: &'static str) -> Item {
        Item { name, abandoned: true }
    }

    fn push(queue: &Queue<Item>, item: Item) -> Result<(), Refused> {
        queue.push_all(vec![item])
    }

    #[test]
    fn requests_that_belong_together_are_queued_together_or_not_at_all() {
        let queue = Queue::new(3);
        push(&queue, wanted("first")).unwrap();
        push(&queue, abandoned("hung up")).unwrap();
        let three = || vec![wanted("a"), wanted("b"), wanted("c")];
        assert_eq!(queue.push_all(three()), Err(Refused::Full { waiting: 1 }));
        assert_eq!(queue.push_all(vec![wanted("a"); 4]), Err(Refused::TooMany { capacity: 3 }));
        queue.push_all(vec![wanted("a"), wanted("b")]).unwrap();
        for name in ["first", "a", "b"] {
            assert_eq!(queue.pop_if(|_| true), Some(wanted(name)));
        }
        queue.push_all(three()).unwrap();
        assert_eq!(push(&Queue::new(0), wanted("first")), Err(Refused::Full { waiting: 0 }));
    }

    #[test]
    fn full_queue_refuses_and_abandoned_requests_make_room() {
        let queue = Queue::new(2);
        push(&queue, wanted("first")).unwrap();
        push(&queue, abandoned("hung up")).unwrap();
        push(&queue, wanted("second")).unwrap();
        assert_eq!(push(&queue, wanted("third")), Err(Refused::Full { waiting: 2 }));
        assert_eq!(queue.pop_if(|_| true), Some(wanted("first")));
        assert_eq!(queue.pop_if(|_| true), Some(wanted("second")));
    }

    #[test]
    fn small_request_does_not_overtake_a_large_one() {
        let queue = Queue::new(2);
        push(&queue, wanted("large")).unwrap();
        push(&queue, wanted("small")).unwrap();
        assert_eq!(queue.pop_if(|item| item.name == "small"), None);
        assert_eq!(queue.pop_if(|_| true), Some(wanted("large")));
    }

    #[test]
    fn draining_queue_gives_what_it_has_and_takes_nothing() {
        let queue = Queue::new(2);
        push(&queue, wanted("first")).unwrap();
        queue.drain();
        assert_eq!(push(&queue, wanted("late")), Err(Refused::Draining));
        assert!(queue.wait());
        assert_eq!(queue.pop_if(|_| true), Some(wanted("first")));
        assert!(!queue.wait());
        assert_eq!(queue.check_open(), Err(Refused::Draining));
    }

    #[test]
    fn stopped_queue_is_empty_and_stays_stopped() {
        let queue = Queue::new(2);
        push(&queue, wanted("first")).unwrap();
        queue.stop();
        queue.drain();
        assert_eq!(push(&queue, wanted("late")), Err(Refused::Stopped));
        assert_eq!(queue.pop_if(|_| true), None);
        assert!(!queue.wait());
    }
}
