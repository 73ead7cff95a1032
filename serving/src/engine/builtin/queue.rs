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
    Full { waiting: usize },
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

    /// Appends a request. Abandoned ones make room first: clients that hung up must not keep others out.
    pub(super) fn push(&self, item: T) -> Result<(), Refused> {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => {}
            Phase::Draining => return Err(Refused::Draining),
            Phase::Stopped => return Err(Refused::Stopped),
        }
        if state.waiting.len() >= self.capacity {
            state.waiting.retain(|item| !item.is_abandoned());
        }
        if state.waiting.len() >= self.capacity {
            return Err(Refused::Full { waiting: state.waiting.len() });
        }
        state.waiting.push_back(item);
        drop(state);
        self.changed.notify_one();
        Ok(())
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

    #[derive(Debug, PartialEq, Eq)]
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

    #[test]
    fn full_queue_refuses_and_abandoned_requests_make_room() {
        let queue = Queue::new(2);
        queue.push(wanted("first")).unwrap();
        queue.push(abandoned("hung up")).unwrap();
        queue.push(wanted("second")).unwrap();
        assert_eq!(queue.push(wanted("third")), Err(Refused::Full { waiting: 2 }));
        assert_eq!(queue.pop_if(|_| true), Some(wanted("first")));
        assert_eq!(queue.pop_if(|_| true), Some(wanted("second")));
    }

    #[test]
    fn small_request_does_not_overtake_a_large_one() {
        let queue = Queue::new(2);
        queue.push(wanted("large")).unwrap();
        queue.push(wanted("small")).unwrap();
        assert_eq!(queue.pop_if(|item| item.name == "small"), None);
        assert_eq!(queue.pop_if(|_| true), Some(wanted("large")));
    }

    #[test]
    fn draining_queue_gives_what_it_has_and_takes_nothing() {
        let queue = Queue::new(2);
        queue.push(wanted("first")).unwrap();
        queue.drain();
        assert_eq!(queue.push(wanted("late")), Err(Refused::Draining));
        assert!(queue.wait());
        assert_eq!(queue.pop_if(|_| true), Some(wanted("first")));
        assert!(!queue.wait());
    }

    #[test]
    fn stopped_queue_is_empty_and_stays_stopped() {
        let queue = Queue::new(2);
        queue.push(wanted("first")).unwrap();
        queue.stop();
        queue.drain();
        assert_eq!(queue.push(wanted("late")), Err(Refused::Stopped));
        assert_eq!(queue.pop_if(|_| true), None);
        assert!(!queue.wait());
    }
}
