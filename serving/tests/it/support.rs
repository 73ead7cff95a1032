//! A model folder whose tokens are bytes, an engine that says what it is told, and a running host.

use std::{
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, Once},
    task::{Context, Waker},
    time::Duration,
};

use model::{ChatTemplate, Likelihood, Model, Tokenizer, chat::UnixSeconds};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Map, Value, json};
use serving::{
    AppState, Limits, ServedModel,
    engine::{
        CompletionEvent, CompletionSender, CompletionStream, Engine, EngineError, Finish, FinishReason, GeneratedToken,
        GenerationRequest, ReportedUsage, builtin::BuiltinSettings, completion_channel,
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::task::TaskTracker;

/// Ends a turn in [`byte_model`]. Its other tokens are the 256 bytes.
pub(crate) const END_OF_TURN: u32 = 257;
pub(crate) const MODEL: &str = "bytes";

/// The tokenizer and the chat template of a model whose token ids are the bytes of its text.
pub(crate) fn byte_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // GPT-2's alphabet: printable Latin-1 stands for itself, the rest for U+0100 onwards.
    let mut next = 0x100;
    let vocabulary: Map<String, Value> = (0..=255_u32)
        .map(|byte| {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable { byte } else { next };
            next += u32::from(!printable);
            (char::from_u32(code).unwrap().to_string(), json!(byte))
        })
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(256, "<|turn|>"), special(END_OF_TURN, "<|end|>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    let template = "{% for m in messages %}<|turn|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}\
                    {% if add_generation_prompt %}<|turn|>assistant:{% endif %}";
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), json!({"chat_template": template}).to_string()).unwrap();
    folder
}

/// A model whose token ids are the bytes of its text, in front of `engine`.
pub(crate) fn byte_model(engine: Arc<dyn Engine>) -> ServedModel {
    let folder = byte_folder();
    ServedModel {
        id: MODEL.to_owned(),
        created: UnixSeconds(1_600_000_000),
        system_fingerprint: Some("fp_bytes".to_owned()),
        tokenizer: Tokenizer::load(folder.path()).unwrap(),
        chat_template: ChatTemplate::load(folder.path()).unwrap(),
        stop_tokens: Arc::from([END_OF_TURN]),
        engine,
        engine_name: "scripted".to_owned(),
        manifest: None,
        lease: None,
    }
}

/// How a scripted stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finish,
    /// With an error.
    Fail,
    /// Without a word, as when the engine's thread dies.
    Die,
    /// Never.
    Hang,
}

/// Says the same to everybody.
#[derive(Debug)]
pub(crate) struct ScriptedEngine {
    /// What each choice says; more choices begin again with the first.
    pub(crate) says: Vec<Vec<CompletionEvent>>,
    pub(crate) ending: Ending,
    /// What the engine says that it used.
    pub(crate) reported: Option<ReportedUsage>,
    pub(crate) refusal: Option<EngineError>,
    pub(crate) requests: Mutex<Vec<GenerationRequest>>,
    pub(crate) hanging: Mutex<Vec<CompletionSender>>,
}

impl ScriptedEngine {
    /// One token per byte.
    pub(crate) fn saying(text: &str, ending: Ending) -> Arc<Self> {
        Self::saying_each(&[text], ending)
    }

    /// A text for each choice, one token per byte.
    pub(crate) fn saying_each(texts: &[&str], ending: Ending) -> Arc<Self> {
        Arc::new(Self::of(texts.iter().map(|text| tokens(&bytes(text))).collect(), ending))
    }

    pub(crate) fn sending(ids: &[u32], ending: Ending) -> Arc<Self> {
        Arc::new(Self::of(vec![tokens(ids)], ending))
    }

    /// As an engine in front of another server does.
    pub(crate) fn speaking(pieces: &[&str], ending: Ending) -> Self {
        Self::of(vec![pieces.iter().map(|piece| CompletionEvent::Text((*piece).to_owned())).collect()], ending)
    }

    pub(crate) fn refusing(error: EngineError) -> Arc<Self> {
        Arc::new(Self { refusal: Some(error), ..Self::of(Vec::new(), Ending::Finish) })
    }

    fn of(says: Vec<Vec<CompletionEvent>>, ending: Ending) -> Self {
        Self { says, ending, reported: None, refusal: None, requests: Mutex::default(), hanging: Mutex::default() }
    }

    async fn write(sender: &CompletionSender, event: CompletionEvent, likeliest: Option<usize>) {
        match event {
            CompletionEvent::Cached(tokens) => sender.cached(tokens),
            CompletionEvent::Text(text) => sender.text(text).await,
            CompletionEvent::Token(GeneratedToken { id, .. }) => {
                let rank = |rank: u32| ((id + rank) % 256, -0.5 - rank as f32);
                let likelihood = likeliest.map(|count| {
                    Box::new(Likelihood { chosen: -0.5, likeliest: (0..).map(rank).take(count).collect() })
                });
                sender.token(GeneratedToken { id, likelihood });
            }
            CompletionEvent::Finished(_) => panic!("that is what `ending` is for"),
        }
    }

    pub(crate) fn last_request(&self) -> GenerationRequest {
        self.requests.lock().unwrap().last().unwrap().clone()
    }

    /// Whether the readers of all streams that hang are gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        let hanging = self.hanging.lock().unwrap();
        !hanging.is_empty() && hanging.iter().all(CompletionSender::is_abandoned)
    }
}

/// Ids of a text in [`byte_model`].
pub(crate) fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// Runs what does not have to wait.
fn at_once(future: impl Future<Output = ()>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(future).poll(&mut context).is_ready());
}

fn tokens(ids: &[u32]) -> Vec<CompletionEvent> {
    ids.iter().map(|id| CompletionEvent::Token(GeneratedToken { id: *id, likelihood: None })).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("secret words of the engine")]
struct Scripted;

impl Engine for ScriptedEngine {
    fn context_length(&self) -> usize {
        1_000_000
    }

    fn yields_tokens(&self) -> bool {
        !self.says.iter().flatten().any(|event| matches!(event, CompletionEvent::Text(_)))
    }

    fn submit(&self, request: GenerationRequest) -> Result<Vec<CompletionStream>, EngineError> {
        if let Some(error) = &self.refusal {
            return Err(error.clone());
        }
        let limit = request.max_tokens.get();
        let choices = self.says.iter().cycle().take(usize::from(request.choices.get()));
        let streams = choices.map(|says| {
            let (sender, stream) = completion_channel(request.max_tokens);
            // The channel holds all of it, so nothing waits here.
            let now: Vec<_> = says.iter().take(limit).cloned().collect();
            let likeliest = request.likeliest;
            at_once(async {
                for event in now {
                    Self::write(&sender, event, likeliest).await;
                }
            });
            match self.ending {
                _ if says.len() > limit => sender.finish(FinishReason::Length),
                Ending::Finish => {
                    at_once(sender.finish_text(Finish { reason: FinishReason::Stop, reported: self.reported }))
                }
                Ending::Fail => sender.fail(EngineError::Compute { source: Arc::new(Scripted) }),
                Ending::Die => drop(sender),
                Ending::Hang => self.hanging.lock().unwrap().push(sender),
            }
            stream
        });
        let streams = streams.collect();
        self.requests.lock().unwrap().push(request);
        Ok(streams)
    }

    fn drain(&self) {}
}

/// A real model behind the built-in engine.
pub(crate) fn real_model(reference: &str, settings: &BuiltinSettings) -> ServedModel {
    let model = Arc::new(Model::load(reference).unwrap());
    ServedModel::builtin(MODEL, model, UnixSeconds(1_600_000_000), settings).unwrap()
}

/// A folder of the shared data.
pub(crate) fn shared(path: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests have no command line")]
    let root = std::env::var("HALLMARK_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    PathBuf::from(root).join(path).to_str().unwrap().to_owned()
}

/// A host on a free port.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) url: String,
    pub(crate) client: Client,
    shutdown: Option<oneshot::Sender<()>>,
    tasks: TaskTracker,
}

impl Host {
    pub(crate) async fn start(model: ServedModel) -> Self {
        Self::start_with(vec![model], Limits::default()).await
    }

    pub(crate) async fn start_with(models: Vec<ServedModel>, limits: Limits) -> Self {
        install_tls();
        let state = AppState::new(models, limits, || UnixSeconds(1_700_000_000), 7);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (shutdown, stopped) = oneshot::channel();
        let tasks = TaskTracker::new();
        let serving = serving::serve(listener, state, async {
            stopped.await.ok();
        });
        tasks.spawn(async { serving.await.unwrap() });
        let client = Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        Self { url, client, shutdown: Some(shutdown), tasks }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> Response {
        self.post(path, body).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// The text of a chat answer, whole or streamed.
    pub(crate) async fn chat(&self, body: &Value) -> String {
        answer(self.send("/v1/chat/completions", body).await).await
    }

    /// The text of a completion, whole or streamed.
    pub(crate) async fn complete(&self, body: &Value) -> String {
        answer(self.send("/v1/completions", body).await).await
    }

    pub(crate) fn begin_shutdown(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
        self.tasks.close();
    }

    /// Whether `serve` returned within `patience`.
    pub(crate) async fn stops_within(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}

pub(crate) async fn answer(response: Response) -> String {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    if !text.starts_with("data:") {
        return content(&serde_json::from_str(&text).unwrap());
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    events(&text).iter().map(content).collect()
}

/// TLS that nobody uses here must be chosen all the same.
pub(crate) fn install_tls() {
    static PROVIDER: Once = Once::new();
    // An engine in front of another server may have been faster.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// The JSON events of a stream, without `[DONE]`.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let data = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn content(body: &Value) -> String {
    content_of(&body["choices"][0])
}

/// The text of a choice, whole or a piece.
pub(crate) fn content_of(choice: &Value) -> String {
    let places = [&choice["text"], &choice["message"]["content"], &choice["delta"]["content"]];
    places.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned()
}

pub(crate) fn chat_body(content: &str) -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": content}]})
}

pub(crate) fn completion_body(prompt: &str) -> Value {
    json!({"model": MODEL, "prompt": prompt, "max_tokens": 1000})
}

pub(crate) fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("not an object: {fields}") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

pub(crate) fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not so after 10 s: {what}");
}
