//! Log-probabilities, and what they are attributed to.

use model::SpecialTokens;
use serde_json::{Value, json};
use serving::engine::builtin::BuiltinSettings;

use crate::support::{
    Ending, Host, ScriptedEngine, byte_model, bytes, chat_body, completion_body, content_of, events, real_model, with,
};

/// The `logprobs` of all pieces of an answer in a row, each with the text that came with it.
async fn pieces(host: &Host, path: &str, body: &Value) -> Vec<(String, Value)> {
    let text = host.send(path, body).await.text().await.unwrap();
    let bodies = if text.starts_with("data:") { events(&text) } else { vec![serde_json::from_str(&text).unwrap()] };
    bodies.iter().map(|body| (content_of(&body["choices"][0]), body["choices"][0]["logprobs"].clone())).collect()
}

fn entries(pieces: &[(String, Value)]) -> Vec<Value> {
    pieces.iter().flat_map(|(_, logprobs)| logprobs["content"].as_array().cloned().unwrap_or_default()).collect()
}

/// The bytes of entries, joined.
fn joined(entries: &[Value]) -> Vec<u8> {
    entries.iter().flat_map(|entry| serde_json::from_value::<Vec<u8>>(entry["bytes"].clone()).unwrap()).collect()
}

#[tokio::test]
async fn tokens_go_out_with_the_text_that_they_end() {
    let host = Host::start(byte_model(ScriptedEngine::saying("aß🦀 STOP", Ending::Finish))).await;
    for stop in [json!(null), json!("STOP!"), json!("🦀🦀"), json!("STOP"), json!(" ST"), json!("ß🦀 S")] {
        let whole = with(chat_body("Hi"), json!({"logprobs": true, "top_logprobs": 2, "stop": stop}));
        let streamed = with(whole.clone(), json!({"stream": true}));
        let (whole, streamed) = (
            pieces(&host, "/v1/chat/completions", &whole).await,
            pieces(&host, "/v1/chat/completions", &streamed).await,
        );
        assert_eq!(entries(&whole), entries(&streamed), "{stop}");
        assert_eq!(joined(&entries(&whole)), whole[0].0.as_bytes(), "{stop}: the text and nothing else");
        for (text, logprobs) in &streamed {
            let content = logprobs["content"].as_array().cloned().unwrap_or_default();
            assert_eq!(joined(&content), text.as_bytes(), "{stop}");
        }
    }
}

#[tokio::test]
async fn token_that_a_stop_string_cuts_goes_out_with_what_is_left_of_it() {
    // Of "the" in one token, "t" is text and "he" belongs to the stop string.
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let tokenizer = real_model("bundled", &BuiltinSettings::default()).tokenizer;
    let [id] = tokenizer.encode(" the", SpecialTokens::Omit).unwrap()[..] else { panic!("not one token") };
    let fields =
        json!({"logprobs": 0, "logit_bias": {id.to_string(): 100}, "stop": "he", "temperature": 0, "max_tokens": 5});
    let answer = pieces(&host, "/v1/completions", &with(completion_body("First"), fields)).await;
    assert_eq!(answer[0].0, " t");
    assert_eq!(answer[0].1["tokens"], json!([" the"]));
}

#[tokio::test]
async fn characters_in_parts_have_names_of_their_own() {
    let host = Host::start(byte_model(ScriptedEngine::saying("aß", Ending::Finish))).await;
    let body = with(completion_body("Hi"), json!({"logprobs": 1}));
    let logprobs = pieces(&host, "/v1/completions", &body).await.remove(0).1;
    assert_eq!(logprobs["tokens"], json!(["a", "bytes:\\xc3", "bytes:\\x9f"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 1]));
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5, -0.5]));
    assert_eq!(logprobs["top_logprobs"][1], json!({"bytes:\\xc3": -0.5}));
    let body = with(chat_body("Hi"), json!({"logprobs": true}));
    let logprobs = pieces(&host, "/v1/chat/completions", &body).await.remove(0).1;
    assert_eq!(logprobs["content"][1], json!({"token": "\\xc3", "logprob": -0.5, "bytes": [195], "top_logprobs": []}));
}

#[tokio::test]
async fn tokens_without_text_and_answers_without_tokens_are_told() {
    let engine = ScriptedEngine::sending(&[bytes("a"), vec![256], bytes("b"), vec![256]].concat(), Ending::Finish);
    let host = Host::start(byte_model(engine)).await;
    for stream in [false, true] {
        let body = with(chat_body("Hi"), json!({"logprobs": true, "stream": stream}));
        let names: Vec<_> =
            entries(&pieces(&host, "/v1/chat/completions", &body).await).iter().map(|e| e["token"].clone()).collect();
        assert_eq!(names, ["a", "<|turn|>", "b", "<|turn|>"]);
    }
    let host = Host::start(byte_model(ScriptedEngine::saying("", Ending::Finish))).await;
    let body = with(chat_body("Hi"), json!({"logprobs": true}));
    assert_eq!(pieces(&host, "/v1/chat/completions", &body).await[0].1, json!({"content": [], "refusal": null}));
}

#[tokio::test]
async fn log_probabilities_are_the_model_s_own_whatever_the_request_adds() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let ask = async |fields: Value| {
        let fields = with(fields, json!({"prompt": "First Citizen:", "logprobs": 5, "max_tokens": 1, "seed": 1}));
        pieces(&host, "/v1/completions", &with(completion_body(""), fields)).await.remove(0)
    };
    let (text, plain) = ask(json!({"temperature": 0})).await;
    let top = plain["top_logprobs"][0].as_object().unwrap();
    assert_eq!(top.len(), 5);
    let sum: f64 = top.values().map(|value| value.as_f64().unwrap().exp()).sum();
    assert!(sum > 0.1 && sum <= 1.0, "{plain}");
    assert!(
        top.values().all(|value| value.as_f64() <= plain["token_logprobs"][0].as_f64()),
        "greedy takes the likeliest"
    );
    let (other, biased) = ask(json!({"temperature": 2, "logit_bias": {"300": 100}, "presence_penalty": 2})).await;
    assert_ne!(other, text);
    let chosen = biased["tokens"][0].as_str().unwrap();
    let mut with_chosen = top.clone();
    with_chosen.entry(chosen).or_insert_with(|| biased["token_logprobs"][0].clone());
    assert_eq!(biased["top_logprobs"][0], Value::Object(with_chosen));
    assert!(biased["token_logprobs"][0].as_f64().unwrap() < plain["token_logprobs"][0].as_f64().unwrap());
}
