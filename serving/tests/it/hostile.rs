//! Bodies that were not written by a friend. Every one gets an answer below 500, quickly.

use std::time::{Duration, Instant};

use proptest::{prelude::*, test_runner::TestRunner};
use reqwest::StatusCode;
use serde_json::{Value, json};
use serving::Limits;
use tokio::runtime::Runtime;

use crate::support::{Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body};

const ENDPOINTS: [&str; 2] = ["/v1/completions", "/v1/chat/completions"];
const BODY_LIMIT: usize = 1 << 20;

async fn host() -> Host {
    let limits = Limits { body_bytes: BODY_LIMIT, ..Limits::default() };
    Host::start_with(vec![byte_model(ScriptedEngine::saying("ok", Ending::Finish))], limits).await
}

async fn status(host: &Host, path: &str, body: Vec<u8>) -> StatusCode {
    let request = host.client.post(format!("{}{path}", host.url)).header("content-type", "application/json");
    let begun = Instant::now();
    let response = request.body(body).send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{status} after {:?}", begun.elapsed());
    if status != 200 {
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["error"]["message"].is_string(), "{text}");
    }
    status
}

#[tokio::test]
async fn known_attacks_are_refused() {
    let host = host().await;
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    let nested = deep("[", "]", 400_000);
    let objects = deep(r#"{"a":"#, "}", 100_000);
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe{}".to_vec(),
        b"{\"model\": \"\xc3\x28\"}".to_vec(),
        br#"{"model": "bytes", "prompt": "\ud800", "messages": []}"#.to_vec(),
        nested.clone().into_bytes(),
        objects.clone().into_bytes(),
        "[".repeat(1_000_000).into_bytes(),
        format!(r#"{{"model": {nested}}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "prompt": {nested}}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "messages": {nested}}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "messages": [{objects}]}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "messages": [{{"role": "user", "content": {nested}}}]}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "prompt": "", "stop": {nested}}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "prompt": "Hi", "tools": {nested}}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "prompt": [{}-1]}}"#, "1,".repeat(400_000)).into_bytes(),
        format!(r#"{{"model": "bytes", "messages": [{}1]}}"#, "0,".repeat(400_000)).into_bytes(),
        format!("{{{}\"z\":1}}", (0..50_000).map(|i| format!("\"f{i}\":1,")).collect::<String>()).into_bytes(),
        br#"{"model": "bytes", "prompt": "Hi", "temperature": NaN}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "temperature": Infinity}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "temperature": 1e400}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "max_tokens": -1}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "max_tokens": 18446744073709551615}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "max_tokens": 1e3}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "max_tokens": true}"#.to_vec(),
        br#"{"model": "bytes", "prompt": [4294967296]}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "n": 18446744073709551616}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "n": [1]}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "logprobs": 6}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "logprobs": true}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "frequency_penalty": 1e39}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi", "logit_bias": {"1": -1e39}}"#.to_vec(),
        format!(r#"{{"model": "bytes", "prompt": "Hi", "logit_bias": {nested}}}"#).into_bytes(),
        format!(r#"{{"model": "bytes", "prompt": "Hi", "logit_bias": {objects}}}"#).into_bytes(),
        format!(
            r#"{{"model": "bytes", "prompt": "Hi", "logit_bias": {{{}"z": 1}}}}"#,
            (0..90_000).map(|id| format!("\"{id}\":1,")).collect::<String>()
        )
        .into_bytes(),
        format!(r#"{{"model": "bytes", "prompt": "Hi", "prompt_cache_key": "{}"}}"#, "k".repeat(900_000)).into_bytes(),
        br#"{"model": "bytes", "prompt": []}"#.to_vec(),
        br#"{"model": "bytes", "prompt": {}}"#.to_vec(),
        br#"{"model": "bytes", "prompt": "Hi"} trailing"#.to_vec(),
        br#"{"model": "bytes", "model": "bytes", "prompt": "Hi"}"#.to_vec(),
    ];
    for path in ENDPOINTS {
        for body in &bodies {
            let status = status(&host, path, body.clone()).await;
            let shown = String::from_utf8_lossy(body.get(..80).unwrap_or(body)).into_owned();
            assert!(status.is_client_error(), "{path} answered {status} to {shown}");
        }
    }
}

#[tokio::test]
async fn body_over_the_limit_gets_413() {
    let host = host().await;
    for path in ENDPOINTS {
        for bytes in [BODY_LIMIT + 1, 3 * BODY_LIMIT] {
            assert_eq!(status(&host, path, vec![b' '; bytes]).await, 413, "{bytes}");
        }
    }
    let declared = host.client.post(format!("{}/v1/completions", host.url)).header("content-type", "application/json");
    let response = declared.body(vec![b' '; 20 * BODY_LIMIT]).send().await;
    // A client that looks for the answer only after writing everything may see the closed connection instead.
    assert!(response.is_err() || response.is_ok_and(|response| response.status() == 413));
}

#[tokio::test]
async fn long_prompt_of_one_character_is_tokenized_in_time() {
    let host = host().await;
    // JSON writes a line feed in two bytes.
    for (character, bytes) in
        [("a", 900_000), (" ", 900_000), ("\n", 450_000), ("\u{1F980}", 900_000), ("!", 900_000), ("'", 900_000)]
    {
        let prompt = character.repeat(bytes / character.len());
        let body = json!({"model": "bytes", "prompt": prompt, "max_tokens": 1}).to_string();
        assert!(body.len() <= BODY_LIMIT, "{character:?}");
        assert_eq!(status(&host, "/v1/completions", body.into_bytes()).await, 200, "{character:?}");
    }
}

/// Any JSON value, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2_i64..5).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["bytes", "text", "user", "assistant", "<|end|>", "auto"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field_name(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field_name() -> impl Strategy<Value = String> {
    let known = vec![
        "model",
        "prompt",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "stop",
        "stream",
        "stream_options",
        "include_usage",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "n",
        "tools",
        "logprobs",
        "top_logprobs",
        "response_format",
        "user",
        "metadata",
        "logit_bias",
        "frequency_penalty",
        "presence_penalty",
        "prompt_cache_key",
    ];
    prop_oneof![4 => prop::sample::select(known).prop_map(str::to_owned), 1 => "[a-z_]{0,8}"]
}

/// Mostly a request, with some fields replaced by anything.
fn almost_a_request() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![Just(completion_body("Hi")), Just(chat_body("Hi"))];
    (base, prop::collection::vec((field_name(), any_json()), 0..3)).prop_map(|(mut body, fields)| {
        body.as_object_mut().unwrap().extend(fields);
        body.to_string().into_bytes()
    })
}

/// A request with some bytes overwritten.
fn damaged_request() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    (almost_a_request(), damage).prop_map(|(mut bytes, damage)| {
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

#[test]
fn no_body_gives_a_server_error() {
    let runtime = Runtime::new().unwrap();
    let host = runtime.block_on(host());
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        almost_a_request(),
        damaged_request(),
    ];
    let mut runner = TestRunner::new(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() });
    runner
        .run(&(prop::sample::select(&ENDPOINTS[..]), bodies), |(path, body)| {
            let status = runtime.block_on(status(&host, path, body));
            prop_assert!(!status.is_server_error(), "{}", status);
            Ok(())
        })
        .unwrap();
}
