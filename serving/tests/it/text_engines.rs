//! Engines that speak text and not tokens: those in front of another server.

use std::sync::Arc;

use protocol::units::TokenCount;
use serde_json::{Value, json};
use serving::engine::ReportedUsage;

use crate::support::{Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, events, with};

const PIECES: [&str; 5] = ["one t", "wo ST", "", "OP th", "ree 🦀"];

#[tokio::test]
async fn text_passes_with_stop_strings_and_is_counted_by_the_host() {
    let reported = ReportedUsage { prompt: TokenCount::new(99), completion: TokenCount::new(99) };
    let engine = ScriptedEngine { reported: Some(reported), ..ScriptedEngine::speaking(&PIECES, Ending::Finish) };
    let host = Host::start(byte_model(Arc::new(engine))).await;
    for (stop, text) in [(json!(null), "one two STOP three 🦀"), (json!("STOP"), "one two ")] {
        let body = with(completion_body("Hi"), json!({"stop": stop}));
        let answer: Value = host.send("/v1/completions", &body).await.json().await.unwrap();
        assert_eq!(answer["choices"][0]["text"], text);
        assert_eq!(answer["usage"]["prompt_tokens"], 2, "the engine's own figure is not billed");
        assert_eq!(answer["usage"]["completion_tokens"], text.len());
        assert_eq!(host.complete(&with(body, json!({"stream": true}))).await, text);
    }
}

#[tokio::test]
async fn log_probabilities_of_text_are_refused() {
    let host = Host::start(byte_model(Arc::new(ScriptedEngine::speaking(&PIECES, Ending::Finish)))).await;
    let refused = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"logprobs": true}))).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], "logprobs");
}

#[tokio::test]
async fn failure_in_the_middle_of_text_is_an_error_event() {
    for ending in [Ending::Fail, Ending::Die] {
        let host = Host::start(byte_model(Arc::new(ScriptedEngine::speaking(&PIECES, ending)))).await;
        let body = with(completion_body("Hi"), json!({"stream": true}));
        let text = host.send("/v1/completions", &body).await.text().await.unwrap();
        let events = events(&text);
        assert_eq!(events.last().unwrap()["error"]["code"], "engine_error");
        let said: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(said, PIECES.concat(), "what came before is delivered");
    }
}
