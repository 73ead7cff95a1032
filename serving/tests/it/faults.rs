//! Engines that fail, readers that hang up or do not read.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use serving::{Limits, engine::EngineError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, count, events, eventually, with,
};

#[tokio::test]
async fn failure_before_the_first_text_has_a_status_of_its_own() {
    for ending in [Ending::Fail, Ending::Die] {
        let host = Host::start(byte_model(ScriptedEngine::saying("", ending))).await;
        for stream in [false, true] {
            let response = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": stream}))).await;
            assert_eq!(response.status(), 500);
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["code"], "engine_error");
            assert!(!body.to_string().contains("secret"), "{body}");
        }
    }
}

#[tokio::test]
async fn engine_death_in_the_middle_is_an_error_event_and_no_end() {
    for ending in [Ending::Fail, Ending::Die] {
        let host = Host::start(byte_model(ScriptedEngine::saying("some text", ending))).await;
        let body = with(completion_body("Hi"), json!({"stream": true}));
        let text = host.send("/v1/completions", &body).await.text().await.unwrap();
        assert!(!text.contains("[DONE]") && !text.contains("secret"), "{text}");
        let events = events(&text);
        assert_eq!(events.last().unwrap()["error"]["code"], "engine_error");
        assert!(events.iter().all(|event| event["choices"][0]["finish_reason"].is_null()), "{text}");
        // In one piece there is nothing to keep: half an answer would look whole.
        assert_eq!(host.send("/v1/completions", &completion_body("Hi")).await.status(), 500);
    }
}

#[tokio::test]
async fn engine_refusals_have_their_statuses() {
    for (error, status) in [
        (EngineError::QueueFull { waiting: 1 }, 429),
        (EngineError::Draining, 503),
        (EngineError::Stopped, 500),
        (EngineError::UnknownToken { id: 9, vocabulary: 8 }, 400),
    ] {
        let host = Host::start(byte_model(ScriptedEngine::refusing(error))).await;
        assert_eq!(host.send("/v1/completions", &completion_body("Hi")).await.status(), status);
    }
}

#[tokio::test]
async fn reader_that_hangs_up_cancels_the_engine() {
    for stream in [false, true] {
        for text in ["", "some text"] {
            let engine = ScriptedEngine::saying(text, Ending::Hang);
            let host = Host::start(byte_model(engine.clone())).await;
            let body = with(chat_body("Hi"), json!({"stream": stream}));
            let request = host.post("/v1/chat/completions", &body).timeout(Duration::from_millis(200)).send();
            // With a text and a stream the headers arrive, and the body times out.
            let response = request.await;
            assert_eq!(response.is_ok(), stream && !text.is_empty());
            drop(response);
            eventually("the stream is cancelled", || engine.is_abandoned()).await;
        }
    }
}

#[tokio::test]
async fn slow_reader_holds_up_nobody_and_is_given_up() {
    // More than the sockets' buffers can swallow.
    let engine = ScriptedEngine::saying(&"x".repeat(200_000), Ending::Hang);
    let limits = Limits {
        stalled_reader_timeout: Duration::from_millis(500),
        max_completion_tokens: count(1_000_000),
        ..Limits::default()
    };
    let host = Host::start_with(vec![byte_model(engine.clone())], limits).await;
    let body = with(completion_body("Hi"), json!({"stream": true, "max_tokens": 900_000})).to_string();
    let mut sleeper = TcpStream::connect(host.address()).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    sleeper.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut first = [0; 16];
    sleeper.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK\r");

    let other = with(completion_body("Hi"), json!({"max_tokens": 5}));
    assert_eq!(host.complete(&other).await, "xxxxx");
    eventually("the sleeper is given up", || engine.is_abandoned()).await;
}

#[tokio::test]
async fn too_many_open_requests_are_refused_until_one_ends() {
    let engine = ScriptedEngine::saying("some text", Ending::Hang);
    let limits = Limits { open_requests: 1, ..Limits::default() };
    let host = Host::start_with(vec![byte_model(engine.clone())], limits).await;
    let body = with(chat_body("Hi"), json!({"stream": true}));
    let open = host.send("/v1/chat/completions", &body).await;
    let refused = host.send("/v1/chat/completions", &body).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    drop(open);
    eventually("the stream is cancelled", || engine.is_abandoned()).await;
    // The permit goes back with the task that held it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(host.send("/v1/chat/completions", &body).await.status(), 200);
}

#[tokio::test]
async fn body_that_does_not_arrive_is_not_waited_for() {
    let limits = Limits { body_timeout: Duration::from_millis(200), ..Limits::default() };
    let engine = ScriptedEngine::saying("ok", Ending::Finish);
    let host = Host::start_with(vec![byte_model(engine)], limits).await;
    let mut socket = TcpStream::connect(host.address()).await.unwrap();
    let head =
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn failing_engine_of_one_model_leaves_the_other_alone() {
    let broken =
        serving::ServedModel { id: "broken".to_owned(), ..byte_model(ScriptedEngine::saying("", Ending::Die)) };
    let sound = byte_model(ScriptedEngine::saying("ok", Ending::Finish));
    let host = Arc::new(Host::start_with(vec![broken, sound], Limits::default()).await);
    let body = with(completion_body("Hi"), json!({"model": "broken"}));
    assert_eq!(host.send("/v1/completions", &body).await.status(), 500);
    assert_eq!(host.complete(&completion_body("Hi")).await, "ok");
}
