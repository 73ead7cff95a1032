//! llama.cpp's own server with a real chat model behind the host; see `peers/llama_server.py` in the shared data.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use model::{SamplingParameters, SpecialTokens, Tokenizer, chat::UnixSeconds};
use serde_json::{Value, json};
use serving::{
    ServedModel,
    engine::{CompletionEvent, Engine, FinishReason, GenerationRequest, upstream::UpstreamSettings},
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task,
};

use super::answers::request;
use crate::support::{Host, MODEL, chat_body, completion_body, content_of, count, shared, with};

/// Requests that it works on at once.
const SLOTS: &str = "4";

fn variable(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests have no command line")]
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn folder() -> PathBuf {
    variable("HALLMARK_SMOLLM2").into()
}

/// The server, on a port of its own. Ends with the test.
struct LlamaServer {
    process: Child,
    url: String,
    /// Several would take the processor from each other, and answers from clients that do not wait for ever.
    _alone: MutexGuard<'static, ()>,
}

impl LlamaServer {
    async fn start() -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(variable("HALLMARK_PYTHON"));
        command.arg(shared("peers/llama_server.py")).arg(folder().join("model.gguf"));
        command.args(["--port", &port.to_string(), "--streams", SLOTS]);
        // It stops with its standard input.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let start = move || {
            let mut process = command.spawn().unwrap();
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let said =
                lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
            Self { process, url: said.expect("the server starts"), _alone: alone }
        };
        task::spawn_blocking(start).await.unwrap()
    }

    fn settings(&self) -> UpstreamSettings {
        UpstreamSettings::new(format!("{}/v1", self.url).parse().unwrap())
    }

    async fn model(&self, settings: &UpstreamSettings) -> ServedModel {
        let model = ServedModel::upstream(MODEL, &folder(), UnixSeconds(1_600_000_000), settings).await.unwrap();
        assert!(model.engine_name.ends_with("upstream llamacpp"), "{}", model.engine_name);
        // 8192 tokens of all slots together, and not the 8192 that the model was made for.
        assert_eq!(model.engine.context_length(), 2048);
        model
    }

    async fn host(&self, settings: &UpstreamSettings) -> Host {
        Host::start(self.model(settings).await).await
    }

    /// Slots that are at work.
    async fn busy(&self, host: &Host) -> usize {
        let slots: Value = host.client.get(format!("{}/slots", self.url)).send().await.unwrap().json().await.unwrap();
        slots.as_array().unwrap().iter().filter(|slot| slot["is_processing"] == true).count()
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs llama.cpp's server and SmolLM2: set HALLMARK_PYTHON, HALLMARK_SMOLLM2"]
async fn real_server_answers_as_it_is_asked() {
    let server = LlamaServer::start().await;
    let host = server.host(&server.settings()).await;
    let question = chat_body("Count from one to five.");
    let greedy = with(question.clone(), json!({"temperature": 0, "max_tokens": 80}));
    let whole: Value = host.send("/v1/chat/completions", &greedy).await.json().await.unwrap();
    assert!(content_of(&whole["choices"][0]).contains("\n3."), "{whole}");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let streamed = host.chat(&with(greedy.clone(), json!({"stream": true}))).await;
    assert_eq!(streamed, content_of(&whole["choices"][0]));

    let cut = host.chat(&with(greedy.clone(), json!({"stop": "\n3."}))).await;
    assert_eq!(cut, streamed.split("\n3.").next().unwrap());
    let short: Value =
        host.send("/v1/chat/completions", &with(greedy, json!({"max_tokens": 3}))).await.json().await.unwrap();
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );

    let hot = |fields: Value| with(with(question.clone(), json!({"max_tokens": 20, "temperature": 1.5})), fields);
    let ask = async |fields: Value| host.chat(&hot(fields)).await;
    let seeds = [json!(1), json!(2), json!(u64::MAX), json!(u64::from(u32::MAX)), json!(1_u64 << 32)];
    let mut answers = Vec::new();
    for seed in &seeds {
        answers.push(ask(json!({"seed": seed})).await);
        assert_eq!(&ask(json!({"seed": seed})).await, answers.last().unwrap(), "{seed}");
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), seeds.len(), "each seed has an answer of its own");
    assert_eq!(ask(json!({"top_k": 1, "seed": 5})).await, ask(json!({"top_p": 0, "seed": 6})).await);

    let sharing = server.host(&UpstreamSettings { share_prompts: true, ..server.settings() }).await;
    for (host, is_shared) in [(&host, false), (&host, false), (&sharing, false), (&sharing, true)] {
        let answer: Value = host.send("/v1/chat/completions", &hot(json!({}))).await.json().await.unwrap();
        let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(cached > 0 || !is_shared, "{answer}");
        assert!(cached == 0 || std::ptr::eq(host, &sharing), "{answer}");
    }

    let several: Value =
        host.send("/v1/chat/completions", &hot(json!({"n": 4, "seed": 1}))).await.json().await.unwrap();
    let mut texts: Vec<_> = several["choices"].as_array().unwrap().iter().map(content_of).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs llama.cpp's server and SmolLM2: set HALLMARK_PYTHON, HALLMARK_SMOLLM2"]
async fn real_server_is_left_alone_when_nobody_reads() {
    let server = LlamaServer::start().await;
    let host = server.host(&server.settings()).await;
    // The end of a turn is forbidden, so that they last.
    let long =
        with(completion_body("Once upon a time"), json!({"max_tokens": 2000, "logit_bias": {"2": -100}, "n": 3}));
    let response = host.send("/v1/completions", &with(long.clone(), json!({"stream": true}))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.busy(&host).await, 3);
    drop(response);
    for (what, request) in [
        ("hung up", None),
        ("whole and hung up", Some(host.post("/v1/completions", &long).timeout(Duration::from_millis(500)))),
        ("stop string", Some(host.post("/v1/completions", &with(long.clone(), json!({"stop": [" ", "\n"]}))))),
    ] {
        if let Some(request) = request {
            request.send().await.ok();
        }
        let mut patience = 30;
        while server.busy(&host).await > 0 {
            assert!(patience > 0, "slots are still busy: {what}");
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A hot answer, and how many tokens the server counts beyond those that its text has.
async fn surplus(engine: &dyn Engine, tokenizer: &Tokenizer, seed: u64) -> i64 {
    let text = "<|im_start|>user\nSay something about straße, 水 and 🦀.<|im_end|>\n<|im_start|>assistant\n";
    let prompt = tokenizer.encode(text, SpecialTokens::Omit).unwrap();
    let request = GenerationRequest {
        prompt: prompt.clone().into(),
        max_tokens: count(48),
        sampling: SamplingParameters { temperature: 1.2, top_p: 1.0, top_k: 0, seed },
        ..request("", 1)
    };
    let mut stream = engine.submit(request).unwrap().remove(0);
    let mut said = String::new();
    let finish = loop {
        match stream.next().await.unwrap() {
            CompletionEvent::Text(text) => said += &text,
            CompletionEvent::Finished(finish) => break finish,
            CompletionEvent::Cached(tokens) => assert_eq!(tokens.get(), 0, "nobody shares this prompt"),
            CompletionEvent::Token(_) => panic!("a server knows no tokens"),
        }
    };
    let reported = finish.reported.unwrap();
    assert_eq!(usize::try_from(reported.prompt.get()).unwrap(), prompt.len());
    let counted = i64::try_from(tokenizer.encode(&said, SpecialTokens::Omit).unwrap().len()).unwrap();
    i64::try_from(reported.completion.get()).unwrap() - i64::from(finish.reason == FinishReason::Stop) - counted
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs llama.cpp's server and SmolLM2: set HALLMARK_PYTHON, HALLMARK_SMOLLM2"]
async fn server_counts_as_the_host_does_where_the_text_has_its_usual_tokens() {
    let server = LlamaServer::start().await;
    let model = server.model(&server.settings()).await;
    let mut differences = BTreeMap::new();
    for seed in 0..40 {
        *differences.entry(surplus(&*model.engine, &model.tokenizer, seed).await).or_insert(0) += 1;
    }
    // Hot sampling takes tokens that the tokenizer would not: usually more of them, sometimes fewer.
    assert!(differences[&0] > 20, "{differences:?}");
    assert!(differences.keys().all(|difference| (-3..=6).contains(difference)), "{differences:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs llama.cpp's server and SmolLM2: set HALLMARK_PYTHON, HALLMARK_SMOLLM2"]
async fn official_client_finds_what_it_expects_in_front_of_a_real_server() {
    let server = LlamaServer::start().await;
    let host = server.host(&server.settings()).await;
    let small = server.host(&UpstreamSettings { open_choices: count(2), ..server.settings() }).await;
    let mut command = Command::new(variable("HALLMARK_PYTHON"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai_client/check.py"));
    command.args([&host, &small].map(|host| format!("{}/v1", host.url))).arg("--upstream");
    let output = task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}
