//! The built-in engine: one thread that owns a decoder and runs all its streams together.
//!
//! Every step is one forward pass over all streams (continuous batching): streams that are generating append one token,
//! and beside them the prompts of new streams are read in pieces, so that a long prompt does not make the others wait
//! for long. A stream's tokens depend on its own request alone: the decoder promises that a row of a batch does not
//! depend on the rest of it, and each stream has a sampler of its own.

mod cache_pool;
mod forward;
mod prefixes;
mod queue;
mod scheduler;
mod slot;

use std::{io, num::NonZeroUsize, sync::Arc, thread};

use model::{Config, DeviceDecoder, Model};
use rayon::ThreadPoolBuilder;

use self::{
    cache_pool::CachePool,
    forward::Forward,
    queue::{Queue, Refused},
    scheduler::{Admission, Scheduler, StepLimits},
};
use super::{CompletionStream, Engine, EngineError, GenerationRequest, Probe, completion_channel};

/// Sizes of a [`BuiltinEngine`].
#[derive(Clone, Debug)]
pub struct BuiltinSettings {
    /// Streams that run at once.
    pub streams: NonZeroUsize,
    /// Requests that may wait for a slot; more are refused.
    pub queue: usize,
    /// Shortens the model's context, and with it the memory of one stream.
    pub context_length: Option<NonZeroUsize>,
    /// Prompt tokens in one step while no stream is generating.
    pub prompt_tokens_per_step: NonZeroUsize,
    /// Prompt tokens in one step while streams are generating: each of them waits for the whole step.
    pub prompt_tokens_beside_streams: NonZeroUsize,
    /// Memory for key-value caches. One stream of the whole context is always allowed, even if it needs more.
    pub cache_bytes: usize,
    /// Whether prompts are kept, within `cache_bytes`, for later requests of the same
    /// [`cache_scope`](GenerationRequest::cache_scope) that begin in the same way. Changes no byte of an answer.
    pub reuse_prefixes: bool,
    /// Threads that compute; without a number all cores, shared with everything else in the process. Changes no byte of
    /// an answer.
    pub threads: Option<NonZeroUsize>,
}

impl Default for BuiltinSettings {
    fn default() -> Self {
        const fn at_least_one(count: usize) -> NonZeroUsize {
            NonZeroUsize::MIN.saturating_add(count.saturating_sub(1))
        }
        Self {
            streams: at_least_one(32),
            queue: 256,
            context_length: None,
            prompt_tokens_per_step: at_least_one(256),
            prompt_tokens_beside_streams: at_least_one(64),
            cache_bytes: 2 << 30,
            reuse_prefixes: true,
            threads: None,
        }
    }
}

/// The built-in engine. Dropping it breaks off what is running and waits for the thread, at most one step;
/// [`drain`](Engine::drain) and [`join`](Self::join) finish first.
#[derive(Debug)]
pub struct BuiltinEngine {
    queue: Arc<Queue<Admission>>,
    context_length: usize,
    vocabulary: usize,
    thread: Option<thread::JoinHandle<()>>,
}

impl BuiltinEngine {
    /// Starts the thread. Fails only if the system has no threads to give.
    pub fn start(model: Arc<Model>, settings: &BuiltinSettings) -> io::Result<Self> {
        Self::start_model(model, settings)
    }

    /// The same with a decoder on another device, whose memory `cache_bytes` is then of.
    pub fn start_on_device(model: Arc<Model<DeviceDecoder>>, settings: &BuiltinSettings) -> io::Result<Self> {
        Self::start_model(model, settings)
    }

    fn start_model<D>(model: Arc<Model<D>>, settings: &BuiltinSettings) -> io::Result<Self>
    where
        Arc<Model<D>>: Forward,
    {
        let config = &model.config;
        let context =
            settings.context_length.map_or(config.max_positions, |limit| limit.get().min(config.max_positions));
        let positions = settings.cache_bytes / cache_bytes_per_position(config).max(1);
        let vocabulary = config.vocab_size;
        Self::start_forward(model, CachePool::new(context, positions), context, vocabulary, settings)
    }

    fn start_forward<F: Forward>(
        decoder: F,
        pool: CachePool<F::Cache>,
        context_length: usize,
        vocabulary: usize,
        settings: &BuiltinSettings,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(settings.queue));
        let limits = StepLimits {
            streams: settings.streams.get(),
            prompt_tokens: settings.prompt_tokens_per_step.get(),
            prompt_tokens_beside_streams: settings.prompt_tokens_beside_streams.get(),
            reuse_prefixes: settings.reuse_prefixes,
        };
        let scheduler = Scheduler::new(decoder, queue.clone(), pool, limits);
        // The engine's thread is then one of the pool's own while it runs.
        let pool = settings.threads.map(|threads| ThreadPoolBuilder::new().num_threads(threads.get()).build());
        let pool = pool.transpose().map_err(io::Error::other)?;
        let run = move || match pool {
            Some(pool) => pool.install(|| scheduler.run()),
            None => scheduler.run(),
        };
        let thread = thread::Builder::new().name("hallmark-engine".to_owned()).spawn(run)?;
        Ok(Self { queue, context_length, vocabulary, thread: Some(thread) })
    }

    /// Refuses new requests, finishes what was accepted and returns when the thread has ended. Blocks.
    pub fn join(mut self) {
        self.drain();
        self.wait_for_thread();
    }

    fn wait_for_thread(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread panicked");
        }
    }
}

impl Engine for BuiltinEngine {
    fn context_length(&self) -> usize {
        self.context_length
    }

    fn submit(&self, request: GenerationRequest) -> Result<Vec<CompletionStream>, EngineError> {
        request.check(self.context_length, self.vocabulary)?;
        let choices = request.choices.get();
        let request = Arc::new(request);
        let (admissions, streams) = (0..choices)
            .map(|choice| {
                let (sender, stream) = completion_channel(request.max_tokens);
                (Admission { request: request.clone(), choice, sender }, stream)
            })
            .unzip();
        self.queue.push_all(admissions).map_err(|refused| error(&refused, choices))?;
        Ok(streams)
    }

    fn drain(&self) {
        self.queue.drain();
    }

    /// A thread that died has stopped its queue.
    fn probe(&self) -> Probe<'_> {
        Box::pin(async { self.queue.check_open().map_err(|refused| error(&refused, 1)) })
    }
}

fn error(refused: &Refused, choices: u16) -> EngineError {
    match *refused {
        Refused::Full { waiting } => EngineError::QueueFull { waiting },
        Refused::TooMany { capacity } => EngineError::TooManyChoices { choices: usize::from(choices), most: capacity },
        Refused::Draining => EngineError::Draining,
        Refused::Stopped => EngineError::Stopped,
    }
}

impl Drop for BuiltinEngine {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.queue.stop();
        }
        self.wait_for_thread();
    }
}

/// Keys and values of one position in every layer, as `f32`.
fn cache_bytes_per_position(config: &Config) -> usize {
    let numbers = [2, config.layers, config.kv_heads, config.head_dim, size_of::<f32>()];
    numbers.into_iter().fold(1, usize::saturating_mul)
}
