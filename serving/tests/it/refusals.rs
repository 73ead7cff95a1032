//! Nothing that would change the answer is ignored.

use serde_json::{Value, json};

use crate::support::{Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, with};

async fn host() -> Host {
    Host::start(byte_model(ScriptedEngine::saying("ok", Ending::Finish))).await
}

async fn assert_refused(host: &Host, path: &str, body: &Value, code: &str, param: &str) {
    let response = host.send(path, body).await;
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 400, "{body}: {answer}");
    assert_eq!(
        (answer["error"]["code"].as_str(), answer["error"]["param"].as_str()),
        (Some(code), Some(param)),
        "{body}"
    );
}

#[tokio::test]
async fn unsupported_chat_fields_are_refused_by_name() {
    let host = host().await;
    for (field, value) in [
        ("response_format", json!({"type": "json_object"})),
        ("modalities", json!(["text", "audio"])),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("tool_choice", json!("required")),
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!({"name": "f"})),
        ("audio", json!({"voice": "alloy", "format": "wav"})),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("reasoning_effort", json!("high")),
        ("verbosity", json!("low")),
        ("web_search_options", json!({})),
    ] {
        let body = with(chat_body("Hi"), json!({ field: value }));
        assert_refused(&host, "/v1/chat/completions", &body, "unsupported_parameter", field).await;
    }
}

#[tokio::test]
async fn unsupported_completion_fields_are_refused_by_name() {
    let host = host().await;
    for (field, value) in [
        ("best_of", json!(2)),
        ("echo", json!(true)),
        ("suffix", json!("the end")),
        ("prompt", json!(["one", "two"])),
        ("prompt", json!([[1], [2]])),
    ] {
        let body = with(completion_body("Hi"), json!({ field: value }));
        assert_refused(&host, "/v1/completions", &body, "unsupported_parameter", field).await;
    }
    let body = with(completion_body("Hi"), json!({"max_completion_tokens": 9}));
    assert_refused(&host, "/v1/completions", &body, "unknown_parameter", "max_completion_tokens").await;
}

#[tokio::test]
async fn sampling_fields_are_refused_by_name_when_they_are_out_of_range() {
    let host = host().await;
    for (field, value, code) in [
        ("n", json!(0), "invalid_value"),
        ("n", json!(9), "invalid_value"),
        ("n", json!(true), "invalid_type"),
        ("top_logprobs", json!(1), "invalid_value"),
        ("top_logprobs", json!(21), "invalid_value"),
        ("logprobs", json!(5), "invalid_type"),
        ("frequency_penalty", json!(-2.5), "invalid_value"),
        ("presence_penalty", json!("high"), "invalid_type"),
        ("logit_bias", json!({"the": 1}), "invalid_value"),
        ("logit_bias", json!({"1": "1"}), "invalid_type"),
        ("prompt_cache_key", json!({}), "invalid_type"),
    ] {
        let body = with(chat_body("Hi"), json!({ field: value }));
        assert_refused(&host, "/v1/chat/completions", &body, code, field).await;
    }
    for (value, code) in [(json!(6), "invalid_value"), (json!(-1), "invalid_value"), (json!(true), "invalid_type")] {
        let body = with(completion_body("Hi"), json!({"logprobs": value}));
        assert_refused(&host, "/v1/completions", &body, code, "logprobs").await;
    }
}

#[tokio::test]
async fn messages_are_refused_for_what_cannot_be_rendered() {
    let host = host().await;
    for (message, code, param) in [
        (json!({"role": "tool", "content": "4"}), "unsupported_parameter", "messages[0].role"),
        (json!({"role": "king", "content": "4"}), "invalid_value", "messages[0].role"),
        (json!({"content": "4"}), "missing_required_parameter", "messages[0].role"),
        (json!({"role": "user"}), "missing_required_parameter", "messages[0].content"),
        (json!({"role": "user", "content": null}), "missing_required_parameter", "messages[0].content"),
        (json!({"role": "user", "content": 4}), "invalid_type", "messages[0].content"),
        (json!({"role": "user", "content": "4", "name": "Ann"}), "unsupported_parameter", "messages[0].name"),
        (json!({"role": "user", "content": "4", "nmae": "Ann"}), "unknown_parameter", "messages[0].nmae"),
        (
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}),
            "unsupported_parameter",
            "messages[0].tool_calls",
        ),
        (
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}),
            "unsupported_parameter",
            "messages[0].content[1].type",
        ),
        (
            json!({"role": "user", "content": [{"type": "text"}]}),
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        (json!("Hi"), "invalid_type", "messages[0]"),
    ] {
        let body = with(chat_body(""), json!({"messages": [message]}));
        assert_refused(&host, "/v1/chat/completions", &body, code, param).await;
    }
    let body = with(chat_body(""), json!({"messages": []}));
    assert_refused(&host, "/v1/chat/completions", &body, "invalid_value", "messages").await;
}

#[tokio::test]
async fn fields_that_ask_for_nothing_are_accepted() {
    let host = host().await;
    let harmless = json!({
        "user": "u-1", "metadata": {"deep": {"er": [1, 2, 3]}}, "store": true, "service_tier": "auto",
        "safety_identifier": "s", "prompt_cache_key": "k", "parallel_tool_calls": true,
        "n": 1, "logit_bias": {}, "frequency_penalty": 0, "presence_penalty": 0.0, "seed": null, "stop": null,
        "stream": false, "stream_options": null, "temperature": null, "top_p": null, "logprobs": null,
    });
    assert_eq!(host.complete(&with(completion_body("Hi"), harmless.clone())).await, "ok");
    let chat = json!({
        "logprobs": false, "top_logprobs": 0, "tools": [], "tool_choice": "none", "modalities": ["text"],
        "response_format": {"type": "text"}, "reasoning_effort": null,
    });
    assert_eq!(host.chat(&with(with(chat_body("Hi"), harmless), chat)).await, "ok");
}

#[tokio::test]
async fn model_without_a_template_says_where_to_go() {
    let model = byte_model(ScriptedEngine::saying("ok", Ending::Finish));
    let host = Host::start(serving::ServedModel { chat_template: None, ..model }).await;
    assert_refused(&host, "/v1/chat/completions", &chat_body("Hi"), "chat_not_supported", "model").await;
    assert_eq!(host.complete(&completion_body("Hi")).await, "ok");
}

#[tokio::test]
async fn bodies_that_are_not_json_by_name_get_415() {
    let host = host().await;
    let post = |kind: &str| host.client.post(format!("{}/v1/completions", host.url)).header("content-type", kind);
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        assert_eq!(post(kind).body(completion_body("Hi").to_string()).send().await.unwrap().status(), 415, "{kind}");
    }
    let kind = "Application/JSON; charset=utf-8";
    assert_eq!(post(kind).body(completion_body("Hi").to_string()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn wrong_method_names_the_right_one() {
    let host = host().await;
    let response = host.get("/v1/completions").await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "POST");
}
