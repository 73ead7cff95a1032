//! Several completions of one prompt.

use std::collections::HashMap;

use serde_json::{Value, json};
use serving::engine::{EngineError, builtin::BuiltinSettings};

use crate::support::{
    Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, content_of, count, events, eventually,
    real_model, with,
};

const ENDPOINTS: [&str; 2] = ["/v1/completions", "/v1/chat/completions"];

fn body(path: &str, fields: Value) -> Value {
    with(if path == ENDPOINTS[0] { completion_body("Hi") } else { chat_body("Hi") }, fields)
}

/// Text and finish reason of every choice of a stream, by index, and the last usage.
fn collect(stream: &str) -> (HashMap<u64, (String, Value)>, Value) {
    let mut choices: HashMap<u64, (String, Value)> = HashMap::new();
    let mut usage = Value::Null;
    for event in events(stream) {
        assert!(event["choices"].as_array().unwrap().len() <= 1, "{event}");
        for choice in event["choices"].as_array().unwrap() {
            let (text, finish) = choices.entry(choice["index"].as_u64().unwrap()).or_default();
            assert!(finish.is_null(), "nothing follows the end of a choice: {event}");
            text.push_str(&content_of(choice));
            *finish = choice["finish_reason"].clone();
        }
        usage = event["usage"].clone();
    }
    (choices, usage)
}

#[tokio::test]
async fn every_choice_has_its_index_its_end_and_its_share_of_the_usage() {
    let texts = ["one", "zwei und drei", "три"];
    let engine = ScriptedEngine::saying_each(&texts, Ending::Finish);
    let host = Host::start(byte_model(engine.clone())).await;
    for path in ENDPOINTS {
        let options = json!({"n": 3, "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 8});
        let whole: Value = host.send(path, &body(path, json!({"n": 3, "max_tokens": 8}))).await.json().await.unwrap();
        let stream = host.send(path, &body(path, options)).await.text().await.unwrap();
        let (choices, usage) = collect(&stream);
        assert_eq!(choices.len(), 3);
        for (index, text) in ["one", "zwei und", "три"].iter().enumerate() {
            let reason = if index == 1 { json!("length") } else { json!("stop") };
            let choice = &whole["choices"][index];
            assert_eq!((content_of(choice).as_str(), &choice["finish_reason"]), (*text, &reason));
            assert_eq!(choice["index"], index);
            assert_eq!(choices[&u64::try_from(index).unwrap()], ((*text).to_owned(), reason));
        }
        let prompt = engine.last_request().prompt.len();
        for usage in [&whole["usage"], &usage] {
            assert_eq!(usage["prompt_tokens"], prompt, "once for all choices");
            assert_eq!(usage["completion_tokens"], 3 + 8 + 6);
        }
    }
}

#[tokio::test]
async fn stop_string_of_one_choice_leaves_the_others_alone() {
    let engine = ScriptedEngine::saying_each(&["a STOP b", "a b c"], Ending::Finish);
    let host = Host::start(byte_model(engine)).await;
    let body = with(completion_body("Hi"), json!({"n": 2, "stop": "STOP"}));
    let answer: Value = host.send("/v1/completions", &body).await.json().await.unwrap();
    assert_eq!((&answer["choices"][0]["text"], &answer["choices"][1]["text"]), (&json!("a "), &json!("a b c")));
}

#[tokio::test]
async fn client_that_is_gone_cancels_every_choice() {
    for stream in [false, true] {
        let engine = ScriptedEngine::saying_each(&["some", "text"], Ending::Hang);
        let host = Host::start(byte_model(engine.clone())).await;
        let body = with(completion_body("Hi"), json!({"n": 4, "stream": stream}));
        let call = host.post("/v1/completions", &body).timeout(std::time::Duration::from_millis(200)).send();
        drop(call.await);
        eventually("all four are cancelled", || engine.is_abandoned()).await;
        assert_eq!(engine.hanging.lock().unwrap().len(), 4);
    }
}

#[tokio::test]
async fn queue_without_room_for_all_choices_takes_none() {
    let settings = BuiltinSettings { streams: count(1), queue: 3, ..BuiltinSettings::default() };
    let host = Host::start(real_model("bundled", &settings)).await;
    let ask = async |fields: Value| host.send("/v1/completions", &body(ENDPOINTS[0], fields)).await;
    let refused = ask(json!({"n": 4, "max_tokens": 4})).await;
    assert_eq!(refused.status(), 400, "no waiting would help");
    let error = refused.json::<Value>().await.unwrap()["error"].take();
    assert_eq!((error["param"].as_str(), error["message"].as_str().unwrap().contains("at most 3")), (Some("n"), true));

    let running = ask(json!({"max_tokens": 400, "stream": true, "logit_bias": {"2": -100}})).await;
    let two = ask(json!({"n": 2, "max_tokens": 1, "stream": true}));
    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let refused = ask(json!({"n": 2, "max_tokens": 1})).await;
        // Nothing of the refused one took the last place.
        let fits = ask(json!({"n": 1, "max_tokens": 1})).await.status();
        (refused.status(), refused.headers().contains_key("retry-after"), fits.as_u16())
    };
    let (two, later, running) = tokio::join!(two, later, running.text());
    running.unwrap();
    assert_eq!((two.status().as_u16(), later), (200, (reqwest::StatusCode::TOO_MANY_REQUESTS, true, 200)));
}

#[tokio::test]
async fn refusal_of_the_engine_is_one_answer() {
    let host = Host::start(byte_model(ScriptedEngine::refusing(EngineError::QueueFull { waiting: 9 }))).await;
    assert_eq!(host.send(ENDPOINTS[0], &body(ENDPOINTS[0], json!({"n": 8}))).await.status(), 429);
}

#[tokio::test]
async fn first_choice_is_the_answer_of_a_single_one_and_the_others_differ() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let ask = async |n: usize| -> Vec<String> {
        let fields = json!({"prompt": "First Citizen:", "n": n, "max_tokens": 24, "seed": 5});
        let answer: Value =
            host.send("/v1/completions", &with(completion_body(""), fields)).await.json().await.unwrap();
        answer["choices"].as_array().unwrap().iter().map(content_of).collect()
    };
    let (one, three, eight) = (ask(1).await, ask(3).await, ask(8).await);
    assert_eq!((&one[..], &three[..]), (&eight[..1], &eight[..3]));
    let mut different = eight.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 8, "{eight:?}");
}
