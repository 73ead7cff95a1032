//! What all handlers share.

use std::{
    io,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{ChatTemplate, DeviceDecoder, Model, Tokenizer, chat::UnixSeconds};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use alloy_primitives::{B256, keccak256};
use protocol::ids::{ManifestDigest, TemplateDigest};

use crate::{
    engine::{
        Engine,
        builtin::{BuiltinEngine, BuiltinSettings},
        upstream::{UpstreamEngine, UpstreamSettings, UpstreamStartError},
    },
    metering::{Metering, lease::ServedLease},
    metrics::Metrics,
    operator::EngineHealth,
};

/// A model under the name that clients ask for.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// The name: `model` in requests.
    pub id: String,
    /// When it was put up.
    pub created: UnixSeconds,
    /// Changes when the weights do; clients see it as `system_fingerprint`.
    pub system_fingerprint: Option<String>,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Chats to text. Without one the model only completes text.
    pub chat_template: Option<ChatTemplate>,
    /// Tokens with which the model ends an answer.
    pub stop_tokens: Arc<[u32]>,
    /// What generates.
    pub engine: Arc<dyn Engine>,
    /// The engine with its version, and what kind of device it runs on: two that have the same name give the same answers.
    pub engine_name: String,
    /// The weights, tokenizer and chat template; none where an engine of somebody else has them.
    pub manifest: Option<ManifestDigest>,
    /// The lease that it is served under; none where no bills are sent.
    pub lease: Option<Arc<ServedLease>>,
}

impl ServedModel {
    /// Puts a model up with an engine of its own.
    pub fn builtin(
        id: impl Into<String>,
        model: Arc<Model>,
        created: UnixSeconds,
        settings: &BuiltinSettings,
    ) -> io::Result<Self> {
        let engine = BuiltinEngine::start(model.clone(), settings)?;
        Ok(Self::of_model(id.into(), &model, created, engine, "cpu f32"))
    }

    /// Puts a model up with an engine of its own on another device than the CPU.
    pub fn on_device(
        id: impl Into<String>,
        model: Arc<Model<DeviceDecoder>>,
        created: UnixSeconds,
        settings: &BuiltinSettings,
    ) -> io::Result<Self> {
        let engine = BuiltinEngine::start_on_device(model.clone(), settings)?;
        Ok(Self::of_model(id.into(), &model, created, engine, model.decoder.class()))
    }

    fn of_model<D>(id: String, model: &Model<D>, created: UnixSeconds, engine: BuiltinEngine, device: &str) -> Self {
        let digest: String = model.manifest_digest.to_string().chars().skip("0x".len()).take(12).collect();
        Self {
            id,
            created,
            system_fingerprint: Some(format!("fp_{digest}")),
            tokenizer: model.tokenizer.clone(),
            chat_template: model.chat.clone(),
            stop_tokens: model.config.eos_token_ids.clone().into(),
            engine_name: format!("hallmark {} {device}", env!("CARGO_PKG_VERSION")),
            manifest: Some(model.manifest_digest),
            lease: None,
            engine: Arc::new(engine),
        }
    }

    /// Digest of the chat template, as licences name it; zero for a model without one.
    pub fn template_digest(&self) -> TemplateDigest {
        self.chat_template.as_ref().map_or(B256::ZERO, |template| keccak256(template.source())).into()
    }

    /// Puts a model up that another server runs. Its tokenizer and chat template are those in `folder`, where no weights
    /// are needed; the server knows itself which tokens end an answer.
    ///
    /// # Errors
    /// When a file cannot be used, or the server is not there, does not have the model, or does not say what it must.
    pub async fn upstream(
        id: impl Into<String>,
        folder: &Path,
        created: UnixSeconds,
        settings: &UpstreamSettings,
    ) -> Result<Self, UpstreamStartError> {
        let server = || Arc::new(settings.base.clone());
        let tokenizer =
            Tokenizer::load(folder).map_err(|source| UpstreamStartError::Tokenizer { server: server(), source })?;
        let chat_template = ChatTemplate::load(folder)
            .map_err(|source| UpstreamStartError::ChatTemplate { server: server(), source })?;
        let engine = UpstreamEngine::connect(settings, tokenizer.clone()).await?;
        let name = engine.model().owner.as_deref().unwrap_or("unknown");
        Ok(Self {
            id: id.into(),
            created,
            // Nobody tells whether the weights change.
            system_fingerprint: None,
            tokenizer,
            chat_template,
            stop_tokens: Arc::from([]),
            engine_name: format!("hallmark {} upstream {name}", env!("CARGO_PKG_VERSION")),
            manifest: None,
            lease: None,
            engine: Arc::new(engine),
        })
    }
}

/// What a client may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request body.
    pub body_bytes: usize,
    /// A body that takes longer to arrive is refused.
    pub body_timeout: Duration,
    /// Requests from the arrival of their headers until their answer is made, over all models; more are refused with
    /// 429. Whole answers and the last events of a stream may still wait for a slow reader. A job that works on a
    /// request counts until it has ended, even if the client hung up.
    pub open_requests: usize,
    /// Bytes of all request bodies together from their arrival until they are token ids; what exceeds them is refused
    /// with 429. Not to be less than `body_bytes`.
    pub text_bytes: usize,
    /// Prompts that are rendered and tokenized at the same time; more wait.
    pub encoders: NonZeroUsize,
    /// Tokens of a chat answer that names no limit, if the context has room for as many. It bounds the memory that such a
    /// request reserves; an answer that reaches it ends with `length`.
    pub default_completion_tokens: usize,
    /// Most tokens that a client may ask for in one choice. An engine reserves memory for all of them.
    pub max_completion_tokens: NonZeroUsize,
    /// An answer that is not complete so long after its prompt was queued is broken off with an error. It bounds for how
    /// long a client can hold a slot, even one whose absence does not show.
    pub generation_timeout: Duration,
    /// A reader that takes nothing for so long while text waits for it has hung up.
    pub stalled_reader_timeout: Duration,
    /// How long running requests may go on after shutdown begins.
    pub drain_timeout: Duration,
    /// What a refused client is told to wait.
    pub retry_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            body_timeout: Duration::from_secs(30),
            open_requests: 1024,
            text_bytes: 256 << 20,
            encoders: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            default_completion_tokens: 2048,
            max_completion_tokens: NonZeroUsize::MIN.saturating_add(4095),
            generation_timeout: Duration::from_secs(600),
            stalled_reader_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// Reads the time.
pub type Clock = fn() -> UnixSeconds;

/// The system's clock.
pub fn system_clock() -> UnixSeconds {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others take as an argument")]
    let now = SystemTime::now();
    UnixSeconds(now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The host's state. Cloning is cheap; clones share it.
#[derive(Clone, Debug)]
pub struct AppState {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    models: Vec<Arc<ServedModel>>,
    limits: Limits,
    clock: Clock,
    /// Request ids, and seeds for requests that bring none.
    random: Mutex<ChaCha8Rng>,
    open_requests: Arc<Semaphore>,
    text_bytes: Arc<Semaphore>,
    encoders: Arc<Semaphore>,
    tasks: TaskTracker,
    abort: CancellationToken,
    metering: Option<Arc<Metering>>,
    metrics: Metrics,
    /// One for each model.
    engines: Vec<EngineHealth>,
    stopping: CancellationToken,
}

impl AppState {
    /// A host of these models. Of two models with one id the first is served. `seed` is for request ids and for the
    /// sampling of requests that bring no seed: take it from the operating system, unless runs must be repeatable.
    pub fn new(models: Vec<ServedModel>, limits: Limits, clock: Clock, seed: u64) -> Self {
        Self::with_metering(models, limits, clock, seed, None)
    }

    /// The same, with bills for the models that are served under leases.
    pub fn metered(models: Vec<ServedModel>, limits: Limits, clock: Clock, seed: u64, metering: Arc<Metering>) -> Self {
        Self::with_metering(models, limits, clock, seed, Some(metering))
    }

    fn with_metering(
        models: Vec<ServedModel>,
        limits: Limits,
        clock: Clock,
        seed: u64,
        metering: Option<Arc<Metering>>,
    ) -> Self {
        let engines = models.iter().map(|_| EngineHealth::new()).collect();
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            shared: Arc::new(Shared {
                models: models.into_iter().map(Arc::new).collect(),
                open_requests: semaphore(limits.open_requests),
                text_bytes: semaphore(limits.text_bytes),
                encoders: semaphore(limits.encoders.get()),
                limits,
                clock,
                random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
                tasks: TaskTracker::new(),
                abort: CancellationToken::new(),
                metering,
                metrics: Metrics::new(),
                engines,
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// All models, in the order in which they were given.
    pub(crate) fn models(&self) -> &[Arc<ServedModel>] {
        &self.shared.models
    }

    /// Why the engine of the model at this place would take no request, if it would not.
    pub(crate) async fn engine_trouble(&self, place: usize) -> Option<String> {
        let (model, engine) = (self.shared.models.get(place)?, self.shared.engines.get(place)?);
        engine.trouble(model).await
    }

    /// The model that clients know by this id.
    pub(crate) fn model(&self, id: &str) -> Option<&Arc<ServedModel>> {
        self.shared.models.iter().find(|model| model.id == id)
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Requests that are open.
    pub(crate) fn open_requests(&self) -> usize {
        let most = self.shared.limits.open_requests.min(Semaphore::MAX_PERMITS);
        most.saturating_sub(self.shared.open_requests.available_permits())
    }

    /// Says that nothing new is taken from now on.
    pub(crate) fn begin_to_stop(&self) {
        self.shared.stopping.cancel();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.stopping.is_cancelled()
    }

    /// What requests of leased models are admitted and billed by.
    pub(crate) fn metering(&self) -> Option<&Arc<Metering>> {
        self.shared.metering.as_ref()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        (self.shared.clock)()
    }

    /// An id that no other request of this host has, `prefix` included.
    pub(crate) fn draw_id(&self, prefix: &str) -> String {
        let mut random = self.shared.random.lock().unwrap_or_else(PoisonError::into_inner);
        let (high, low) = (random.next_u64(), random.next_u64());
        format!("{prefix}{high:016x}{low:016x}")
    }

    /// A seed for a request that brings none.
    pub(crate) fn draw_seed(&self) -> u64 {
        self.shared.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// Leave to have one more request open, until it is dropped; `None` when there are too many.
    pub(crate) fn open_request(&self) -> Option<OwnedSemaphorePermit> {
        self.shared.open_requests.clone().try_acquire_owned().ok()
    }

    /// Room for so many more bytes of a body, until it is dropped; `None` when there is none.
    pub(crate) fn reserve_text(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.shared.text_bytes.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    /// Waits for its turn to render and tokenize a prompt. The turn lasts until it is dropped.
    pub(crate) async fn encoder(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes the semaphore, so there is always a turn.
        self.shared.encoders.clone().acquire_owned().await.ok()
    }

    /// Runs what outlives a handler.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Cancelled when shutdown has waited long enough: what still runs ends with an error.
    pub(crate) fn abort(&self) -> &CancellationToken {
        &self.shared.abort
    }
}
