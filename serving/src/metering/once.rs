//! Requests with an idempotency key: one at a time for each key of a payer.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::B256;

/// Keys of requests that run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<HashSet<(B256, String)>>>);

impl Running {
    /// Leave to work on the request of an owner's key; `None` while another works on it.
    pub(crate) fn begin(&self, owner: B256, key: String, body_hash: B256) -> Option<Once> {
        let is_new = self.lock().insert((owner, key.clone()));
        is_new.then(|| Once { running: self.clone(), owner, key, body_hash })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(B256, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request with a key. While it lives, no other one with the same key is worked on.
#[derive(Debug)]
pub(crate) struct Once {
    running: Running,
    owner: B256,
    pub(crate) key: String,
    pub(crate) body_hash: B256,
}

impl Drop for Once {
    fn drop(&mut self) {
        self.running.lock().remove(&(self.owner, mem::take(&mut self.key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_free_again_when_its_request_ends() {
        let (running, hash) = (Running::default(), B256::ZERO);
        let begin = |owner, key: &str| running.begin(B256::repeat_byte(owner), key.to_owned(), hash);
        let first = begin(1, "a").unwrap();
        assert!(begin(1, "a").is_none());
        assert!(begin(2, "a").is_some() && begin(1, "b").is_some(), "keys are their owner's");
        drop(first);
        assert!(begin(1, "a").is_some());
    }
}
