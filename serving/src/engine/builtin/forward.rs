//! The one thing that the scheduler needs of a decoder, so that its tests can make it fail.

use std::{
    any::Any,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use model::{DeviceCache, DeviceDecoder, KvCache, Model, Stream};

/// A failure that can be told to every stream of a batch.
pub(super) type Failure = Arc<dyn Error + Send + Sync>;

/// Tokens to append to one stream, and its cache.
pub(super) type Append<'a, C> = (&'a [u32], &'a mut C);

/// A decoder as the scheduler sees it.
pub(super) trait Forward: Send + 'static {
    type Cache: Send;

    fn new_cache(&self, capacity: usize) -> Result<Self::Cache, Failure>;

    /// Makes a used cache as good as new.
    fn clear(&self, cache: &mut Self::Cache);

    /// Makes a cache hold the first `tokens` tokens of another one, and nothing else.
    fn copy_prefix(&self, from: &Self::Cache, to: &mut Self::Cache, tokens: usize) -> Result<(), Failure>;

    /// Appends to every stream; one row of logits (vocab) for each, in order. A stream's row does not depend on the
    /// other streams.
    fn forward(&self, streams: &mut [Append<'_, Self::Cache>]) -> Result<Vec<Vec<f32>>, Failure>;
}

impl Forward for Arc<Model> {
    type Cache = KvCache;

    fn new_cache(&self, capacity: usize) -> Result<KvCache, Failure> {
        self.decoder.new_cache(capacity).map_err(failure)
    }

    fn clear(&self, cache: &mut KvCache) {
        cache.clear();
    }

    fn copy_prefix(&self, from: &KvCache, to: &mut KvCache, tokens: usize) -> Result<(), Failure> {
        to.copy_prefix(from, tokens).map_err(failure)
    }

    fn forward(&self, streams: &mut [Append<'_, KvCache>]) -> Result<Vec<Vec<f32>>, Failure> {
        let mut batch: Vec<Stream<'_>> =
            streams.iter_mut().map(|(tokens, cache)| Stream { tokens, cache: &mut **cache }).collect();
        self.decoder.forward(&mut batch).map_err(failure)?.to_vec2().map_err(failure)
    }
}

impl Forward for Arc<Model<DeviceDecoder>> {
    type Cache = DeviceCache;

    fn new_cache(&self, capacity: usize) -> Result<DeviceCache, Failure> {
        self.decoder.new_cache(capacity).map_err(failure)
    }

    fn clear(&self, cache: &mut DeviceCache) {
        cache.clear();
    }

    fn copy_prefix(&self, from: &DeviceCache, to: &mut DeviceCache, tokens: usize) -> Result<(), Failure> {
        to.copy_prefix(from, tokens).map_err(failure)
    }

    fn forward(&self, streams: &mut [Append<'_, DeviceCache>]) -> Result<Vec<Vec<f32>>, Failure> {
        let mut batch: Vec<Stream<'_, DeviceCache>> =
            streams.iter_mut().map(|(tokens, cache)| Stream { tokens, cache: &mut **cache }).collect();
        self.decoder.forward(&mut batch).map_err(failure)?.to_vec2().map_err(failure)
    }
}

/// What can be wrong with a step although the decoder reported no error.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenStep {
    #[error("the decoder panicked: {message}")]
    Panicked { message: String },
    #[error("the decoder returned {rows} rows of logits for {streams} streams")]
    Rows { rows: usize, streams: usize },
    #[error("the decoder's logits are not numbers")]
    NotNumbers,
}

/// [`Forward::forward`], with panics and wrong row counts as failures: one bad batch must not take the engine with it.
pub(super) fn forward_guarded<F: Forward>(
    decoder: &F,
    streams: &mut [Append<'_, F::Cache>],
) -> Result<Vec<Vec<f32>>, Failure> {
    let expected = streams.len();
    // Unwind safe: after a failure the caches of this batch are thrown away, and the decoder is never changed by a step.
    let outcome = catch_unwind(AssertUnwindSafe(|| decoder.forward(streams)))
        .unwrap_or_else(|panic| Err(failure(BrokenStep::Panicked { message: panic_message(panic.as_ref()) })))?;
    if outcome.len() == expected {
        Ok(outcome)
    } else {
        Err(failure(BrokenStep::Rows { rows: outcome.len(), streams: expected }))
    }
}

fn failure(error: impl Error + Send + Sync + 'static) -> Failure {
    Arc::new(error)
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
