//! Caches of finished streams that are kept with what they hold, because a later prompt may begin with the same tokens.

use std::{collections::BTreeMap, iter::zip, sync::Arc};

use super::cache_pool::Lent;

/// Shorter prefixes are computed again: that is as quick as looking for them.
pub(super) const SHORTEST: usize = 16;
/// Bounds the time of a search.
const MOST: usize = 1024;

/// What a stream leaves in its cache.
#[derive(Debug)]
pub(super) struct Held {
    /// Who may reuse it: requests that give the same scope, and nobody else.
    pub(super) scope: Arc<str>,
    pub(super) ids: Vec<u32>,
}

/// Kept caches by their last use.
#[derive(Debug)]
pub(super) struct Prefixes<C> {
    kept: BTreeMap<u64, (Held, Lent<C>)>,
    uses: u64,
}

impl<C> Prefixes<C> {
    pub(super) fn new() -> Self {
        Self { kept: BTreeMap::new(), uses: 0 }
    }

    /// The kept cache that shares the longest beginning with a prompt, and how many tokens that is. It counts as used.
    pub(super) fn find(&mut self, scope: &str, prompt: &[u32]) -> Option<(&C, usize)> {
        let in_scope = self.kept.iter().filter(|(_, (held, _))| *held.scope == *scope);
        let (tokens, key) = in_scope.map(|(key, (held, _))| (reusable(&held.ids, prompt), *key)).max()?;
        if tokens < SHORTEST {
            return None;
        }
        let found = self.kept.remove(&key)?;
        let (_, lent) = self.insert(found);
        Some((&lent.cache, tokens))
    }

    /// Keeps a cache. Returns those that need not be kept any more: whatever holds only a beginning of what another one
    /// of its scope holds, and what was used longest ago if there are too many.
    pub(super) fn keep(&mut self, held: Held, lent: Lent<C>) -> Vec<Lent<C>> {
        let covers = |long: &Held, short: &Held| long.scope == short.scope && long.ids.starts_with(&short.ids);
        if self.kept.values().any(|(other, _)| covers(other, &held)) {
            return vec![lent];
        }
        let mut released: Vec<_> =
            self.kept.extract_if(.., |_, (other, _)| covers(&held, other)).map(|(_, (_, lent))| lent).collect();
        self.insert((held, lent));
        if self.kept.len() > MOST {
            released.extend(self.evict());
        }
        released
    }

    /// Gives up what was used longest ago.
    pub(super) fn evict(&mut self) -> Option<Lent<C>> {
        self.kept.pop_first().map(|(_, (_, lent))| lent)
    }

    fn insert(&mut self, entry: (Held, Lent<C>)) -> &(Held, Lent<C>) {
        self.uses = self.uses.saturating_add(1);
        self.kept.entry(self.uses).or_insert(entry)
    }
}

/// How many tokens of a prompt need not be computed if `held` is in a cache. Never all: the logits after the last one
/// are what the first token is drawn from.
pub(super) fn reusable(held: &[u32], prompt: &[u32]) -> usize {
    let most = prompt.len().saturating_sub(1);
    zip(held, prompt).take(most).take_while(|(held, token)| held == token).count()
}
