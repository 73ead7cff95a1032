//! What is asked of a server, and what becomes of its answers.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use model::{LogitAdjustments, SamplingParameters, Tokenizer};
use serde_json::{Value, json};
use serving::{
    Limits,
    engine::{
        CompletionEvent, Engine, EngineError, FinishReason, GenerationRequest,
        upstream::{PromptForm, UpstreamEngine, UpstreamSettings},
    },
};

use super::scripted::{Piece, Reply, ScriptedServer, done, ended, saying, text, usage};
use crate::support::{
    Host, MODEL, byte_folder, bytes, chat_body, completion_body, content_of, count, eventually, install_tls, with,
};

pub(super) fn request(prompt: &str, choices: u16) -> GenerationRequest {
    GenerationRequest {
        prompt: bytes(prompt).into(),
        choices: NonZeroU16::new(choices).unwrap(),
        max_tokens: count(100),
        stop_tokens: Arc::from([]),
        sampling: SamplingParameters { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 7 },
        adjustments: LogitAdjustments::default(),
        likeliest: None,
        cache_scope: None,
    }
}

async fn engine(settings: &UpstreamSettings) -> UpstreamEngine {
    install_tls();
    UpstreamEngine::connect(settings, Tokenizer::load(byte_folder().path()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn text_arrives_whole_however_it_is_cut() {
    let words = "🦀 straße – 水";
    let Reply::Stream(pieces) = saying(words) else { panic!("not a stream") };
    let all: Vec<u8> = pieces
        .into_iter()
        .flat_map(|piece| match piece {
            Piece::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    let windows = String::from_utf8(all.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    for stream in [all, windows] {
        let pings = Piece::Bytes(b": ping\n\n".to_vec());
        let cut = stream.iter().map(|byte| Piece::Bytes(vec![*byte]));
        let server = ScriptedServer::start(Reply::Stream([pings].into_iter().chain(cut).collect())).await;
        let host = Host::start(server.model().await).await;
        for stream in [false, true] {
            assert_eq!(host.chat(&with(chat_body("Hi"), json!({"stream": stream}))).await, words);
        }
    }
}

#[tokio::test]
async fn host_counts_and_the_server_s_figure_is_not_billed() {
    let pieces = vec![text("one"), text(" two"), ended("length"), usage(99, 99, 1), done()];
    let server = ScriptedServer::start(Reply::Stream(pieces)).await;
    let host = Host::start(server.model().await).await;
    let answer: Value = host.send("/v1/completions", &completion_body("Hi")).await.json().await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(2), &json!(7)));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 1);
}

#[tokio::test]
async fn nobody_is_billed_for_more_than_was_asked_for() {
    // Four tokens of the byte tokenizer, which may have up to 32 bytes.
    let server = ScriptedServer::start(saying("twelve bytes")).await;
    let host = Host::start(server.model().await).await;
    let body = with(completion_body("Hi"), json!({"max_tokens": 4}));
    let answer: Value = host.send("/v1/completions", &body).await.json().await.unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn server_gets_the_templated_ids_and_every_parameter() {
    let server = ScriptedServer::start(saying("one")).await;
    let settings = UpstreamSettings { key: Some("the key".into()), ..server.settings() };
    let host = Host::start(server.model_with(&settings).await).await;
    let fields = json!({
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "seed": 7, "stop": "unsaid",
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "logit_bias": {"65": -100},
    });
    host.chat(&with(chat_body("Hi"), fields)).await;
    let body = server.bodies().remove(0);
    let templated = [vec![256], bytes("user:Hi"), vec![257, 256], bytes("assistant:")].concat();
    let expected = json!({
        "model": MODEL, "prompt": templated, "max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 3,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "logit_bias": {"65": -100.0}, "stream": true,
        "stream_options": {"include_usage": true},
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
    assert!(body.get("stop").is_none() && body.get("n").is_none(), "the host's own business");
    assert_eq!(*server.heard.keys.lock().unwrap(), ["Bearer the key"]);
}

#[tokio::test]
async fn choices_are_requests_with_seeds_that_repeat() {
    let server = ScriptedServer::start(saying("one")).await;
    let host = Host::start(server.model().await).await;
    let body = with(completion_body("Hi"), json!({"n": 3, "seed": 7}));
    let answer: Value = host.send("/v1/completions", &body).await.json().await.unwrap();
    let texts: Vec<_> = answer["choices"].as_array().unwrap().iter().map(content_of).collect();
    assert_eq!(texts, ["one"; 3]);
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&json!(2), &json!(9)));
    let field =
        |name: &str| -> BTreeSet<String> { server.bodies().iter().map(|body| body[name].to_string()).collect() };
    let seeds = field("seed");
    assert_eq!((seeds.len(), field("cache_salt").len()), (3, 1), "they share the prompt and nothing else");
    host.complete(&body).await;
    assert_eq!((field("seed"), field("cache_salt").len()), (seeds.clone(), 2), "and nobody else shares it");
    host.complete(&with(body, json!({"n": 1}))).await;
    assert!(seeds.contains(&server.bodies()[6]["seed"].to_string()), "the first of several is the only one");
}

#[tokio::test]
async fn servers_of_text_get_text_and_what_openai_has() {
    let server = ScriptedServer::start(saying("one")).await;
    let settings = UpstreamSettings { prompt_form: PromptForm::Text, ..server.settings() };
    let host = Host::start(server.model_with(&settings).await).await;
    host.chat(&chat_body("Hi")).await;
    assert_eq!(server.bodies()[0]["prompt"], "<|turn|>user:Hi<|end|><|turn|>assistant:");
    let refused = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"top_k": 3}))).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], "top_k");
}

#[tokio::test]
async fn requests_that_cannot_work_do_not_reach_the_server() {
    let server = ScriptedServer::start(saying("one")).await;
    let host = Host::start_with(
        vec![server.model().await],
        Limits { max_completion_tokens: count(9000), ..Limits::default() },
    )
    .await;
    for (fields, param) in [
        (json!({"max_tokens": 4095}), Value::Null),
        (json!({"prompt": [1, 258]}), json!("prompt")),
        (json!({"logit_bias": {"258": 1}}), json!("logit_bias")),
        (json!({"logprobs": 1}), json!("logprobs")),
    ] {
        let refused = host.send("/v1/completions", &with(completion_body("Hi"), fields.clone())).await;
        assert_eq!(refused.status(), 400, "{fields}");
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], param);
    }
    assert!(server.bodies().is_empty());
}

#[tokio::test]
async fn open_choices_are_bounded_and_places_come_back() {
    let server = ScriptedServer::start(Reply::Stream(vec![text("one"), Piece::Hang])).await;
    let settings = UpstreamSettings { open_choices: count(2), ..server.settings() };
    let host = Host::start(server.model_with(&settings).await).await;
    let body = |n: u64| with(completion_body("Hi"), json!({"n": n, "stream": true}));
    let refused = host.send("/v1/completions", &body(3)).await;
    assert_eq!(
        (refused.status().as_u16(), refused.json::<Value>().await.unwrap()["error"]["param"].clone()),
        (400, json!("n"))
    );
    let open = host.send("/v1/completions", &body(1)).await;
    let refused = host.send("/v1/completions", &body(2)).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(server.bodies().len(), 1, "all choices or none");
    drop(open);
    eventually("the stream is cancelled", || server.open() == 0).await;
    assert_eq!(host.send("/v1/completions", &body(2)).await.status(), 200);
}

#[tokio::test]
async fn place_is_free_when_the_answer_is_there() {
    let server = ScriptedServer::start(saying("one")).await;
    let settings = UpstreamSettings { open_choices: NonZeroUsize::MIN, ..server.settings() };
    let host = Host::start(server.model_with(&settings).await).await;
    for _ in 0..100 {
        assert_eq!(host.complete(&completion_body("Hi")).await, "one");
    }
}

#[tokio::test]
async fn draining_engine_finishes_what_it_has() {
    let slow = vec![text("one"), Piece::Wait(Duration::from_millis(300)), text(" two"), ended("stop"), done()];
    let server = ScriptedServer::start(Reply::Stream(slow)).await;
    let engine = engine(&server.settings()).await;
    let mut stream = engine.submit(request("Hi", 1)).unwrap().remove(0);
    assert_eq!(stream.next().await.unwrap(), CompletionEvent::Text("one".to_owned()));
    engine.drain();
    assert!(matches!(engine.submit(request("Hi", 1)), Err(EngineError::Draining)));
    engine.join().await;
    assert_eq!(stream.next().await.unwrap(), CompletionEvent::Text(" two".to_owned()));
    let Ok(CompletionEvent::Finished(finish)) = stream.next().await else { panic!("no end") };
    assert_eq!(finish.reason, FinishReason::Stop);
}

#[tokio::test]
async fn reader_that_does_not_read_holds_up_nobody_and_keeps_its_text() {
    let words: Vec<Piece> = (0..2000).map(|number| text(&format!("{:3}", number % 1000))).collect();
    let words = words.into_iter().chain([ended("stop"), usage(2, 6000, 1), done()]).collect();
    let server = ScriptedServer::start(Reply::Stream(words)).await;
    let engine = engine(&server.settings()).await;
    // A channel of a hundred and two events: far fewer than come.
    let most = GenerationRequest { max_tokens: count(800), ..request("Hi", 1) };
    let mut sleeper = engine.submit(most.clone()).unwrap().remove(0);
    let mut other = engine.submit(most).unwrap().remove(0);
    for stream in [&mut other, &mut sleeper] {
        let (mut said, mut cached) = (String::new(), false);
        loop {
            match stream.next().await.unwrap() {
                CompletionEvent::Text(text) => said += &text,
                CompletionEvent::Cached(_) => cached = true,
                CompletionEvent::Token(_) => panic!("a server knows no tokens"),
                CompletionEvent::Finished(_) => break,
            }
        }
        assert_eq!((said.len(), cached), (6000, true));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn connections_of_answers_that_are_over_are_not_met_again() {
    let server = ScriptedServer::start(saying("one")).await;
    let host = Host::start(server.model().await).await;
    let before = server.connections();
    for _ in 0..10 {
        assert_eq!(host.complete(&completion_body("Hi")).await, "one");
    }
    assert_eq!(server.connections(), before + 10);
}
