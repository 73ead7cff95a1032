//! What tests of single parts need of the rest: a model without an engine, and a meter that remembers.

use std::{
    num::NonZeroUsize,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use model::{SpecialTokens, Tokenizer, chat::UnixSeconds};
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    account::{Account, Closing, Ending, Settle, Subject},
    error::ApiError,
    generation::Generation,
    text::TextStream,
};
use crate::{
    engine::{
        CompletionSender, CompletionStream, Engine, EngineError, GeneratedToken, GenerationRequest, completion_channel,
    },
    state::{AppState, Limits, ServedModel},
    usage::token_count,
};

#[derive(Debug)]
struct NoEngine;

impl Engine for NoEngine {
    fn context_length(&self) -> usize {
        0
    }

    fn submit(&self, _request: GenerationRequest) -> Result<Vec<CompletionStream>, EngineError> {
        Err(EngineError::Stopped)
    }

    fn drain(&self) {}
}

/// The bundled model's tokenizer.
pub(super) fn tokenizer() -> Tokenizer {
    static BUNDLED: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::load(&model::bundled::directory().unwrap()).unwrap());
    BUNDLED.clone()
}

pub(super) fn ids(text: &str) -> Vec<u32> {
    tokenizer().encode(text, SpecialTokens::Omit).unwrap()
}

pub(super) fn state(limits: Limits) -> AppState {
    AppState::new(Vec::new(), limits, || UnixSeconds(0), 0)
}

/// A meter that remembers what it was told.
#[derive(Clone)]
pub(super) struct Recorder {
    endings: Arc<Mutex<Vec<Ending>>>,
    answer: fn() -> Result<Option<Value>, ApiError>,
    /// Closing waits for a permit.
    pub(super) gate: Arc<Semaphore>,
}

impl Recorder {
    pub(super) fn new(answer: fn() -> Result<Option<Value>, ApiError>) -> Self {
        Self { endings: Arc::default(), answer, gate: Arc::new(Semaphore::new(100)) }
    }

    /// One that closes nothing before its gate gets a permit.
    pub(super) fn waiting() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::new(|| Ok(None)) }
    }

    /// The only ending that was recorded, once there is one.
    pub(super) async fn ending(&self) -> Ending {
        for _ in 0..500 {
            let ending = self.endings.lock().unwrap().pop();
            if let Some(ending) = ending {
                // Whatever might still come would come now.
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(self.endings.lock().unwrap().is_empty(), "closed more than once");
                return ending;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not closed after 5 s");
    }
}

impl Settle for Recorder {
    fn close(self: Box<Self>, ending: Ending) -> Closing {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.endings.lock().unwrap().push(ending);
            (self.answer)()
        })
    }
}

pub(super) fn account(state: &AppState, recorder: &Recorder, choices: usize) -> Account {
    let model = Arc::new(ServedModel {
        id: "bundled".to_owned(),
        created: UnixSeconds(0),
        system_fingerprint: None,
        tokenizer: tokenizer(),
        chat_template: None,
        stop_tokens: Arc::from([]),
        engine_name: "scripted".to_owned(),
        manifest: None,
        lease: None,
        engine: Arc::new(NoEngine),
    });
    let subject = Subject { request: "cmpl-1".to_owned(), model, prompt: token_count(7), choices };
    Account::open(state, subject, Box::new(recorder.clone()))
}

/// A request with so many choices, and the engine's ends of them.
pub(super) fn generation(state: &AppState, recorder: &Recorder, choices: usize) -> (Vec<CompletionSender>, Generation) {
    let (senders, streams): (Vec<_>, Vec<_>) =
        (0..choices).map(|_| completion_channel(NonZeroUsize::new(1000).unwrap())).unzip();
    let texts = streams.into_iter().map(|stream| TextStream::new(&tokenizer(), stream, Vec::new(), false)).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    (senders, Generation::new(state.clone(), texts, account(state, recorder, choices), deadline))
}

pub(super) fn send(sender: &CompletionSender, text: &str) {
    ids(text).into_iter().for_each(|id| sender.token(GeneratedToken { id, likelihood: None }));
}
