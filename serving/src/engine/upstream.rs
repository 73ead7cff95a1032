//! An engine that is another server: vLLM, SGLang, TGI, llama.cpp's llama-server, or whatever else has
//! `POST /v1/completions`.
//!
//! The host templates, tokenizes, applies stop strings and counts; the server only continues token ids. Every choice is a
//! request of its own, so that one that is no longer read ends alone, by closing its connection.

mod answer;
mod body;
mod error;
mod events;
mod server;

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::Tokenizer;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use secrecy::SecretString;
use tokio::{
    runtime::Handle,
    select,
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
};
use tokio_util::task::TaskTracker;
use url::Url;

pub use self::error::{UpstreamError, UpstreamStartError};
use self::{
    answer::{Answer, Ending, Step},
    body::Writer,
    server::Server,
};
use super::{CompletionSender, CompletionStream, Engine, EngineError, GenerationRequest, Probe, completion_channel};

/// How prompts are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptForm {
    /// As token ids, with the fields in which vLLM, SGLang and llama-server go beyond OpenAI's API. The registered
    /// tokenizer decides what the model sees.
    #[default]
    Tokens,
    /// As text, for servers that take nothing else (TGI), with OpenAI's own fields. The server's tokenizer makes the ids,
    /// and puts the tokens before it that a text begins with. Requests with `top_k` are refused.
    Text,
}

/// Which server, and what it gets.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where its API begins, `/v1` included.
    pub base: Url,
    /// The model's name there; needed if it serves several.
    pub model: Option<String>,
    /// Sent as a bearer token.
    pub key: Option<SecretString>,
    /// How prompts are sent.
    pub prompt_form: PromptForm,
    /// Shortens the context that the server tells; needed if it tells none.
    pub context_length: Option<NonZeroUsize>,
    /// Lets llama-server reuse the beginnings of prompts, which it then does between all requests: whoever can send one
    /// finds out by time whether a prompt was sent before. Others keep customers apart, and reuse in any case.
    pub share_prompts: bool,
    /// Choices that are open there at once; more are refused. Servers queue without a limit of their own.
    pub open_choices: NonZeroUsize,
    /// For the connection.
    pub connect_timeout: Duration,
    /// For the first event of an answer, a wait in the server's queue included.
    pub first_text_timeout: Duration,
    /// For the next bytes of an answer that has begun, and for the list of models.
    pub stall_timeout: Duration,
    /// Most bytes of one event.
    pub event_bytes: usize,
}

impl UpstreamSettings {
    /// A server on its default terms.
    pub fn new(base: Url) -> Self {
        Self {
            base,
            model: None,
            key: None,
            prompt_form: PromptForm::default(),
            context_length: None,
            share_prompts: false,
            open_choices: NonZeroUsize::MIN.saturating_add(255),
            connect_timeout: Duration::from_secs(5),
            first_text_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(30),
            event_bytes: 256 << 10,
        }
    }
}

/// What a server tells of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerModel {
    /// Its name there.
    pub name: String,
    /// Usually the server's own name: `vllm`, `sglang`, `llamacpp`.
    pub owner: Option<String>,
    /// Most tokens of a prompt and its completion.
    pub context_length: Option<usize>,
}

/// The engine. Dropping it leaves what is running to its readers.
#[derive(Debug)]
pub struct UpstreamEngine {
    server: Arc<Server>,
    model: ServerModel,
    context_length: usize,
    writer: Arc<Writer>,
    vocabulary: usize,
    longest_token_bytes: usize,
    prompt_form: PromptForm,
    /// Closed when the engine drains.
    places: Arc<Semaphore>,
    open_choices: NonZeroUsize,
    /// For prompts that may share nothing.
    salts: Mutex<ChaCha8Rng>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl UpstreamEngine {
    /// Asks the server whether it has the model. `tokenizer` is the registered model's.
    ///
    /// # Errors
    /// When the address is wrong, the server does not answer or has no such model, or the context length is not known.
    pub async fn connect(settings: &UpstreamSettings, tokenizer: Tokenizer) -> Result<Self, UpstreamStartError> {
        let server = Server::new(settings)?;
        let model = server.model(settings.model.as_deref()).await?;
        let given = settings.context_length.map(NonZeroUsize::get);
        let context_length = match (model.context_length, given) {
            (Some(told), Some(given)) => told.min(given),
            (Some(length), None) | (None, Some(length)) => length,
            (None, None) => {
                let (server, model) = (server.base().clone(), model.name);
                return Err(UpstreamStartError::ContextLength { server, model });
            }
        };
        let (vocabulary, longest_token_bytes) = (tokenizer.vocab_size(), tokenizer.longest_token_bytes());
        let open_choices = settings.open_choices.min(NonZeroUsize::MIN.saturating_add(Semaphore::MAX_PERMITS - 1));
        let writer = Writer::new(model.name.clone(), settings.prompt_form, settings.share_prompts, tokenizer);
        let writer =
            writer.map_err(|source| UpstreamStartError::Tokenizer { server: server.base().clone(), source })?;
        Ok(Self {
            server: Arc::new(server),
            model,
            context_length,
            writer: Arc::new(writer),
            vocabulary,
            longest_token_bytes,
            prompt_form: settings.prompt_form,
            places: Arc::new(Semaphore::new(open_choices.get())),
            open_choices,
            salts: Mutex::new(ChaCha8Rng::from_os_rng()),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        })
    }

    /// What the server told when it was asked first.
    pub fn model(&self) -> &ServerModel {
        &self.model
    }

    /// Asks the server again whether it has the model.
    ///
    /// # Errors
    /// When it does not answer, or has it no longer.
    pub async fn check(&self) -> Result<ServerModel, UpstreamStartError> {
        self.server.model(Some(&self.model.name)).await
    }

    /// Refuses new requests and returns when those that were accepted are finished.
    pub async fn join(&self) {
        self.drain();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place for each choice, or none.
    fn take_places(&self, choices: NonZeroU16) -> Result<Vec<OwnedSemaphorePermit>, EngineError> {
        let (choices, most) = (u32::from(choices.get()), self.open_choices.get());
        let too_many = usize::try_from(choices).map_or(true, |choices| choices > most);
        if too_many && !self.places.is_closed() {
            return Err(EngineError::TooManyChoices { choices: usize::try_from(choices).unwrap_or(usize::MAX), most });
        }
        let mut places = self.places.clone().try_acquire_many_owned(choices).map_err(|error| match error {
            TryAcquireError::Closed => EngineError::Draining,
            TryAcquireError::NoPermits => EngineError::QueueFull { waiting: self.open() },
        })?;
        Ok(std::iter::from_fn(|| places.split(1)).collect())
    }

    /// Choices that are open.
    fn open(&self) -> usize {
        self.open_choices.get().saturating_sub(self.places.available_permits())
    }

    fn draw_salt(&self) -> u128 {
        let mut salts = self.salts.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(salts.next_u64()) << 64) | u128::from(salts.next_u64())
    }
}

impl Engine for UpstreamEngine {
    fn context_length(&self) -> usize {
        self.context_length
    }

    fn yields_tokens(&self) -> bool {
        false
    }

    fn submit(&self, request: GenerationRequest) -> Result<Vec<CompletionStream>, EngineError> {
        request.check(self.context_length, self.vocabulary)?;
        if self.prompt_form == PromptForm::Text && request.sampling.top_k > 0 {
            return Err(EngineError::Unsupported { parameter: "top_k" });
        }
        let places = self.take_places(request.choices)?;
        let open = self.open();
        let max_tokens = request.max_tokens;
        let text_bytes = max_tokens.get().saturating_mul(self.longest_token_bytes);
        let asked = self.writer.ask(request, self.draw_salt());
        let mut streams = Vec::with_capacity(places.len());
        for (choice, place) in (0..).zip(places) {
            let body = self.writer.write(&asked, choice);
            let body = body.map_err(|error| UpstreamError::from(&error).for_request(open))?;
            let (sender, stream) = completion_channel(max_tokens);
            let relay = Relay { server: self.server.clone(), body, text_bytes, open, place };
            self.tasks.spawn_on(relay.run(sender), &self.runtime);
            streams.push(stream);
        }
        Ok(streams)
    }

    fn drain(&self) {
        self.places.close();
    }

    fn probe(&self) -> Probe<'_> {
        Box::pin(async {
            if self.places.is_closed() {
                return Err(EngineError::Draining);
            }
            match self.check().await {
                // A server that is busy is there.
                Ok(_) | Err(UpstreamStartError::Models { source: UpstreamError::Busy, .. }) => Ok(()),
                Err(error) => Err(EngineError::Unreachable { source: Arc::new(error) }),
            }
        })
    }
}

/// Brings one choice from the server to its reader.
struct Relay {
    server: Arc<Server>,
    body: Vec<u8>,
    /// Most bytes of text.
    text_bytes: usize,
    /// Choices that were open when this one began.
    open: usize,
    place: OwnedSemaphorePermit,
}

impl Relay {
    async fn run(self, sender: CompletionSender) {
        let Self { server, body, text_bytes, open, place } = self;
        let relayed = select! {
            // In order: for whom nobody reads, nothing more is asked of the server.
            biased;
            () = sender.abandoned() => return,
            relayed = relay(&server, body, text_bytes, &sender) => relayed,
        };
        // The server has done with it. Who has read the end may ask again at once.
        drop(place);
        match relayed {
            Ok(Ending { finish, cached }) => {
                if let Some(cached) = cached {
                    sender.cached_of_text(cached).await;
                }
                sender.finish_text(finish).await;
            }
            Err(error) => sender.fail(error.for_request(open)),
        }
    }
}

async fn relay(
    server: &Server,
    body: Vec<u8>,
    text_bytes: usize,
    sender: &CompletionSender,
) -> Result<Ending, UpstreamError> {
    let mut events = server.complete(body).await?;
    let mut answer = Answer::new(text_bytes);
    while let Some(event) = events.next().await? {
        match answer.take(&event)? {
            Step::Said(text) if text.is_empty() => {}
            Step::Said(text) => sender.text(text).await,
            Step::Done(ending) => return Ok(ending),
        }
    }
    Err(answer.cut_off())
}
