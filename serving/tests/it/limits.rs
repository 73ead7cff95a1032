//! What one client can take, whether or not it is still there.

use std::time::Duration;

use model::ChatTemplate;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use serving::{Limits, ServedModel, engine::builtin::BuiltinSettings};
use tokio::{io::AsyncWriteExt, net::TcpStream, time};

use crate::support::{
    Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, count, events, eventually, real_model, with,
};

/// A host whose chats take seconds to render, and a chat that does.
async fn slow_host(limits: Limits) -> (Host, Value) {
    // Comparing texts takes time and few of a template's steps.
    let source = "{% for i in range(200) %}{% set same = ([messages[0].content] * 1000)|sort %}{% endfor %}x";
    let template = ChatTemplate::new(source, Map::new()).unwrap();
    let model = byte_model(ScriptedEngine::saying("ok", Ending::Finish));
    let host = Host::start_with(vec![ServedModel { chat_template: Some(template), ..model }], limits).await;
    (host, chat_body(&"é".repeat(50_000)))
}

/// Sends a chat and is gone before there can be an answer. Returns when the host has had time to notice.
async fn hang_up(host: &Host, chat: &Value) {
    let request = host.post("/v1/chat/completions", chat).timeout(Duration::from_millis(300));
    assert!(request.send().await.unwrap_err().is_timeout());
    time::sleep(Duration::from_millis(200)).await;
}

async fn status(host: &Host, body: &Value) -> StatusCode {
    host.send("/v1/completions", body).await.status()
}

/// Sends a request byte by byte as it is given.
async fn send_raw(host: &Host, declared: usize, body: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(host.address()).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {declared}\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    socket
}

#[tokio::test]
async fn prompt_that_is_worked_on_counts_although_its_client_hung_up() {
    let (host, chat) = slow_host(Limits { open_requests: 1, ..Limits::default() }).await;
    hang_up(&host, &chat).await;
    assert_eq!(status(&host, &completion_body("Hi")).await, 429);
}

#[tokio::test]
async fn prompt_that_waits_for_an_encoder_leaves_with_its_client() {
    let (host, chat) = slow_host(Limits { open_requests: 3, encoders: count(1), ..Limits::default() }).await;
    tokio::join!(hang_up(&host, &chat), hang_up(&host, &chat), hang_up(&host, &chat));
    // The first still holds the encoder. The others would be refused here if they held their places.
    let body = completion_body("Hi");
    let statuses = tokio::join!(status(&host, &body), status(&host, &body));
    assert_eq!(statuses, (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn text_that_cannot_fit_is_refused_before_it_is_tokenized() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let text = "a word ".repeat(100_000);
    for (path, body) in [("/v1/completions", completion_body(&text)), ("/v1/chat/completions", chat_body(&text))] {
        let response = host.send(path, &body).await;
        assert_eq!(response.status(), 400);
        let error = response.json::<Value>().await.unwrap()["error"].take();
        assert_eq!(error["code"], "context_length_exceeded");
        // Its tokens were never counted.
        assert!(error["message"].as_str().unwrap().contains(" bytes"), "{error}");
    }
    // One that may fit is judged by its tokens.
    let response = host.send("/v1/completions", &completion_body(&"a".repeat(2000))).await;
    let error = response.json::<Value>().await.unwrap()["error"].take();
    assert!(error["message"].as_str().unwrap().contains("in the prompt"), "{error}");
}

#[tokio::test]
async fn bodies_share_a_limit_until_they_are_tokens() {
    let engine = ScriptedEngine::saying("some text", Ending::Hang);
    let limits = Limits { body_bytes: 1000, text_bytes: 1000, ..Limits::default() };
    let host = Host::start_with(vec![byte_model(engine)], limits).await;
    let body = with(completion_body(&"a".repeat(500)), json!({"stream": true}));

    // A body that is announced takes nothing, one that comes and does not end takes what has come.
    let announced = send_raw(&host, 900, b"{").await;
    let running = host.send("/v1/completions", &body).await;
    assert_eq!(running.status(), 200);
    let unfinished = send_raw(&host, 900, &[b' '; 800]).await;
    time::sleep(Duration::from_millis(200)).await;
    assert_eq!(status(&host, &body).await, 429);
    drop((announced, unfinished));
    time::sleep(Duration::from_millis(200)).await;
    // The first stream still runs; its text is gone.
    assert_eq!(status(&host, &body).await, 200);
    drop(running);
}

#[tokio::test]
async fn longest_completion_is_the_host_s_to_say() {
    let engine = ScriptedEngine::saying("ok", Ending::Finish);
    let limits = Limits { max_completion_tokens: count(50), ..Limits::default() };
    let host = Host::start_with(vec![byte_model(engine.clone())], limits).await;
    for field in ["max_tokens", "max_completion_tokens"] {
        assert_eq!(host.chat(&with(chat_body("Hi"), json!({field: 50}))).await, "ok");
        let refused = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({field: 51}))).await;
        assert_eq!(refused.status(), 400);
        let error = refused.json::<Value>().await.unwrap()["error"].take();
        assert!(error["message"].as_str().unwrap().contains("at most 50 tokens"), "{error}");
        assert_eq!(error["param"], field);
    }
    // Who names no number gets no more either.
    host.chat(&chat_body("Hi")).await;
    assert_eq!(engine.last_request().max_tokens.get(), 50);
}

#[tokio::test]
async fn generation_that_takes_too_long_is_broken_off() {
    let limits = Limits { generation_timeout: Duration::from_millis(300), ..Limits::default() };
    for (text, stream) in [("", false), ("", true), ("some text", false)] {
        let engine = ScriptedEngine::saying(text, Ending::Hang);
        let host = Host::start_with(vec![byte_model(engine.clone())], limits.clone()).await;
        let response = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": stream}))).await;
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "generation_timeout");
        eventually("the stream is cancelled", || engine.is_abandoned()).await;
    }
    let engine = ScriptedEngine::saying("some text", Ending::Hang);
    let host = Host::start_with(vec![byte_model(engine.clone())], limits).await;
    let response = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": true}))).await;
    let text = response.text().await.unwrap();
    assert!(!text.contains("[DONE]"), "{text}");
    assert_eq!(events(&text).last().unwrap()["error"]["code"], "generation_timeout");
    eventually("the stream is cancelled", || engine.is_abandoned()).await;
}

#[tokio::test]
async fn client_that_pipelines_and_vanishes_is_given_up_in_time() {
    // The HTTP library does not look for the end of a connection while it has bytes of a next request to parse.
    let engine = ScriptedEngine::saying("", Ending::Hang);
    let limits = Limits { generation_timeout: Duration::from_secs(1), ..Limits::default() };
    let host = Host::start_with(vec![byte_model(engine.clone())], limits).await;
    let body = completion_body("Hi").to_string();
    let socket = send_raw(&host, body.len(), format!("{body}P").as_bytes()).await;
    eventually("the request is running", || !engine.requests.lock().unwrap().is_empty()).await;
    drop(socket);
    eventually("the stream is cancelled", || engine.is_abandoned()).await;
}

#[tokio::test]
async fn template_reads_the_clock_for_every_request() {
    let engine = ScriptedEngine::saying("ok", Ending::Finish);
    let template = ChatTemplate::new("{{ strftime_now('%H:%M:%S') }}", Map::new()).unwrap();
    let host = Host::start(ServedModel { chat_template: Some(template), ..byte_model(engine.clone()) }).await;
    host.chat(&chat_body("Hi")).await;
    let first = engine.last_request().prompt;
    time::sleep(Duration::from_millis(1100)).await;
    host.chat(&chat_body("Hi")).await;
    assert_eq!(first.len(), 8);
    assert_ne!(engine.last_request().prompt, first);
}
