//! What goes over the wire, byte for byte. Ids come from the host's seed and times from its clock, both fixed here.

use serde_json::{Value, json};
use serving::engine::EngineError;

use crate::support::{Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, with};

async fn host() -> Host {
    Host::start(byte_model(ScriptedEngine::saying("Grüße!", Ending::Finish))).await
}

async fn json(response: reqwest::Response) -> String {
    serde_json::to_string_pretty(&response.json::<Value>().await.unwrap()).unwrap()
}

/// The id of an answer, of which the host draws a new one every time.
fn id_of(text: &str) -> String {
    let start = text.find("cmpl-").unwrap();
    text[start..].chars().take_while(|character| *character != '"').collect()
}

#[tokio::test]
async fn models_are_listed_and_retrieved() {
    let host = host().await;
    insta::assert_snapshot!("model_list", json(host.get("/v1/models").await).await);
    insta::assert_snapshot!("model", json(host.get("/v1/models/bytes").await).await);
    insta::assert_snapshot!("unknown_model", json(host.get("/v1/models/org%2Fname").await).await);
    assert_eq!(host.get("/v1/models/org/name").await.status(), 404);
    let response = host.get("/v1/models/%ff").await;
    assert_eq!(response.status(), 404);
    let error = response.json::<Value>().await.unwrap()["error"].take();
    assert_eq!(error["code"], "model_not_found");
    assert!(error["message"].as_str().unwrap().contains("'%ff'"), "{error}");
}

#[tokio::test]
async fn completion_in_one_piece() {
    let response = host().await.send("/v1/completions", &completion_body("Hi")).await;
    insta::assert_snapshot!("completion", json(response).await);
}

#[tokio::test]
async fn completion_as_a_stream() {
    let body = with(completion_body("Hi"), json!({"stream": true, "max_tokens": 3}));
    let response = host().await.send("/v1/completions", &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    insta::assert_snapshot!("completion_stream", response.text().await.unwrap());
}

#[tokio::test]
async fn chat_in_one_piece() {
    let response = host().await.send("/v1/chat/completions", &chat_body("Hi")).await;
    insta::assert_snapshot!("chat", json(response).await);
}

#[tokio::test]
async fn chat_as_a_stream() {
    let response = host().await.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": true}))).await;
    insta::assert_snapshot!("chat_stream", response.text().await.unwrap());
}

#[tokio::test]
async fn chat_stream_with_usage() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 2});
    let response = host().await.send("/v1/chat/completions", &with(chat_body("Hi"), options)).await;
    insta::assert_snapshot!("chat_stream_with_usage", response.text().await.unwrap());
}

#[tokio::test]
async fn two_choices_with_log_probabilities() {
    let host = Host::start(byte_model(ScriptedEngine::saying_each(&["Ü", "no"], Ending::Finish))).await;
    for stream in [false, true] {
        let name = if stream { "stream" } else { "whole" };
        let completion = with(completion_body("Hi"), json!({"n": 2, "logprobs": 1, "stream": stream}));
        let chat = with(chat_body("Hi"), json!({"n": 2, "logprobs": true, "top_logprobs": 2, "stream": stream}));
        for (path, kind, body) in [("/v1/completions", "text", completion), ("/v1/chat/completions", "chat", chat)] {
            let response = host.send(path, &body).await;
            let text = if stream { response.text().await.unwrap() } else { json(response).await };
            insta::assert_snapshot!(format!("logprobs_{kind}_{name}"), text.replace(&id_of(&text), "ID"));
        }
    }
}

#[tokio::test]
async fn engine_failure_in_the_middle_of_a_stream() {
    let host = Host::start(byte_model(ScriptedEngine::saying("Hm", Ending::Fail))).await;
    let response = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": true}))).await;
    insta::assert_snapshot!("stream_broken_off", response.text().await.unwrap());
}

#[tokio::test]
async fn refusals_have_openai_s_shape() {
    let host = host().await;
    let refusal = async |body: Value| json(host.send("/v1/chat/completions", &body).await).await;
    insta::assert_snapshot!("wrong_path", json(host.get("/v1/nothing").await).await);
    insta::assert_snapshot!("wrong_method", json(host.get("/v1/chat/completions").await).await);
    insta::assert_snapshot!("model_not_found", refusal(with(chat_body(""), json!({"model": "gpt-5"}))).await);
    insta::assert_snapshot!("unsupported", refusal(with(chat_body(""), json!({"tool_choice": "required"}))).await);
    insta::assert_snapshot!("unknown_field", refusal(with(chat_body(""), json!({"temprature": 1}))).await);
    insta::assert_snapshot!("wrong_type", refusal(with(chat_body(""), json!({"max_tokens": "9"}))).await);
    insta::assert_snapshot!("wrong_value", refusal(with(chat_body(""), json!({"temperature": 3}))).await);
    insta::assert_snapshot!("missing", refusal(json!({"model": "bytes"})).await);
    insta::assert_snapshot!("too_long", refusal(with(chat_body(""), json!({"max_tokens": 1_000_000}))).await);
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]});
    insta::assert_snapshot!("image", refusal(with(chat_body(""), image)).await);
}

#[tokio::test]
async fn full_queue_says_when_to_come_back() {
    let host = Host::start(byte_model(ScriptedEngine::refusing(EngineError::QueueFull { waiting: 9 }))).await;
    let response = host.send("/v1/chat/completions", &chat_body("Hi")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    insta::assert_snapshot!("queue_full", json(response).await);
}

#[tokio::test]
async fn every_response_has_a_request_id_of_its_own() {
    let host = host().await;
    let mut ids = Vec::new();
    for path in ["/v1/models", "/v1/models", "/nowhere"] {
        let response = host.get(path).await;
        ids.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    let response = host.send("/v1/completions", &json!({})).await;
    ids.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    assert!(ids.iter().all(|id| id.starts_with("req_")), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}
