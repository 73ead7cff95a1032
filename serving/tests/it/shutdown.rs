//! The end of a host.

use std::time::Duration;

use serde_json::json;
use serving::{Limits, engine::builtin::BuiltinSettings};

use crate::support::{Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, events, real_model, with};

#[tokio::test]
async fn running_stream_is_finished_and_new_connections_are_refused() {
    let mut host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let body = with(completion_body("First Citizen:"), json!({"stream": true, "max_tokens": 60, "seed": 3}));
    let response = host.send("/v1/completions", &body).await;
    host.begin_shutdown();
    let text = response.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(host.stops_within(Duration::from_secs(10)).await);
    assert!(host.post("/v1/completions", &body).send().await.is_err());
}

#[tokio::test]
async fn stream_that_does_not_end_is_broken_off_with_an_error() {
    let engine = ScriptedEngine::saying("some text", Ending::Hang);
    let limits = Limits { drain_timeout: Duration::from_millis(200), ..Limits::default() };
    let mut host = Host::start_with(vec![byte_model(engine.clone())], limits).await;
    let response = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": true}))).await;
    host.begin_shutdown();
    let text = response.text().await.unwrap();
    assert_eq!(events(&text).last().unwrap()["error"]["code"], "shutting_down");
    assert!(host.stops_within(Duration::from_secs(10)).await);
    assert!(engine.is_abandoned());
}

#[tokio::test]
async fn idle_host_stops_at_once() {
    let mut host = Host::start(byte_model(ScriptedEngine::saying("ok", Ending::Finish))).await;
    assert_eq!(host.chat(&chat_body("Hi")).await, "ok");
    host.begin_shutdown();
    assert!(host.stops_within(Duration::from_secs(5)).await);
}
