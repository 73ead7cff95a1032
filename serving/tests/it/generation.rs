//! What reaches the engine and what comes back.

use std::{collections::BTreeMap, sync::Arc};

use model::{LogitAdjustments, SamplingParameters};
use serde_json::{Value, json};
use serving::engine::builtin::BuiltinSettings;

use crate::support::{
    END_OF_TURN, Ending, Host, ScriptedEngine, byte_model, bytes, chat_body, completion_body, events, real_model, with,
};

async fn saying(text: &str) -> (Host, Arc<ScriptedEngine>) {
    let engine = ScriptedEngine::saying(text, Ending::Finish);
    (Host::start(byte_model(engine.clone())).await, engine)
}

#[tokio::test]
async fn chat_reaches_the_engine_as_its_template_renders_it() {
    let (host, engine) = saying("ok").await;
    let messages = json!([
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": null, "tool_calls": null, "annotations": []},
        {"role": "user", "content": "é"},
    ]);
    host.chat(&with(chat_body(""), json!({"messages": messages}))).await;
    let turn = |text: &str| [vec![256], bytes(text), vec![END_OF_TURN]].concat();
    let expected = [
        turn("system:be brief"),
        turn("user:a\nb"),
        turn("assistant:c"),
        turn("user:é"),
        vec![256],
        bytes("assistant:"),
    ]
    .concat();
    let request = engine.last_request();
    assert_eq!(*request.prompt, expected);
    assert_eq!(&*request.stop_tokens, &[END_OF_TURN]);
}

#[tokio::test]
async fn prompt_is_a_text_or_ids_or_a_list_of_one() {
    let (host, engine) = saying("ok").await;
    for prompt in [json!("Hi"), json!(["Hi"]), json!([72, 105]), json!([[72, 105]])] {
        host.complete(&with(completion_body(""), json!({"prompt": prompt}))).await;
        assert_eq!(*engine.last_request().prompt, bytes("Hi"), "{prompt}");
    }
}

#[tokio::test]
async fn sampling_parameters_reach_the_engine() {
    let (host, engine) = saying("ok").await;
    let fields = json!({"temperature": 0.5, "top_p": 0.25, "top_k": 3, "seed": 11, "max_tokens": 5});
    host.complete(&with(completion_body("Hi"), fields.clone())).await;
    let request = engine.last_request();
    assert_eq!(request.sampling, SamplingParameters { temperature: 0.5, top_p: 0.25, top_k: 3, seed: 11 });
    assert_eq!(request.max_tokens.get(), 5);
    assert!(request.adjustments.is_neutral());
    assert_eq!((request.choices.get(), request.likeliest, request.cache_scope), (1, None, None));
    let fields = json!({
        "frequency_penalty": -1.5, "presence_penalty": 2, "logit_bias": {"65": -100, "66": 0.5}, "n": 3,
        "logprobs": true, "top_logprobs": 20, "prompt_cache_key": "k",
    });
    host.chat(&with(chat_body("Hi"), fields)).await;
    let request = engine.last_request();
    let adjustments = LogitAdjustments {
        frequency_penalty: -1.5,
        presence_penalty: 2.0,
        bias: Arc::new(BTreeMap::from([(65, -100.0), (66, 0.5)])),
    };
    assert_eq!(request.adjustments, adjustments);
    assert_eq!((request.choices.get(), request.likeliest, request.cache_scope.as_deref()), (3, Some(20), Some("k")));
    host.chat(&with(chat_body("Hi"), json!({"max_completion_tokens": 6}))).await;
    let first = engine.last_request();
    assert_eq!(first.max_tokens.get(), 6);
    assert_eq!((first.sampling.temperature, first.sampling.top_p), (1.0, 1.0));
    host.chat(&chat_body("Hi")).await;
    assert_ne!(engine.last_request().sampling.seed, first.sampling.seed, "requests without a seed get their own");
    assert_eq!(engine.last_request().max_tokens.get(), 2048);
    host.complete(&json!({"model": "bytes", "prompt": "Hi"})).await;
    assert_eq!(engine.last_request().max_tokens.get(), 16);
}

#[tokio::test]
async fn stop_string_never_leaks_however_it_is_cut() {
    let (host, _) = saying("one two STOP three").await;
    for stop in [json!("STOP"), json!([" STOP", "never"]), json!(["STOP thr", " ST", "OP", "zzz"])] {
        for stream in [false, true] {
            let text = host.chat(&with(chat_body("Hi"), json!({"stop": stop, "stream": stream}))).await;
            assert_eq!(text.trim_end(), "one two", "{stop}");
        }
    }
    let text = host.chat(&with(chat_body("Hi"), json!({"stop": "three!", "stream": true}))).await;
    assert_eq!(text, "one two STOP three", "a beginning of a stop string at the end is text");
}

#[tokio::test]
async fn finish_reason_and_usage_tell_what_happened() {
    let (host, _) = saying("one two STOP three").await;
    let ask = async |fields: Value| -> (Value, Value) {
        let body: Value =
            host.send("/v1/completions", &with(completion_body("Hi"), fields)).await.json().await.unwrap();
        (body["choices"][0]["finish_reason"].clone(), body["usage"].clone())
    };
    let figures = |usage: &Value| {
        (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64(), usage["total_tokens"].as_u64())
    };
    let (reason, usage) = ask(json!({})).await;
    assert_eq!((reason, figures(&usage)), (json!("stop"), (Some(2), Some(18), Some(20))));
    let (reason, usage) = ask(json!({"max_tokens": 4})).await;
    assert_eq!((reason, figures(&usage)), (json!("length"), (Some(2), Some(4), Some(6))));
    // Those of the stop string were generated and not delivered.
    let (reason, usage) = ask(json!({"stop": "STOP"})).await;
    assert_eq!((reason, figures(&usage)), (json!("stop"), (Some(2), Some(8), Some(10))));
}

#[tokio::test]
async fn characters_arrive_whole() {
    let text = "🦀 straße – 水";
    let (host, _) = saying(text).await;
    let response = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": true}))).await;
    let body = response.text().await.unwrap();
    assert!(!body.contains('\u{fffd}'), "{body}");
    let pieces: Vec<_> = events(&body)
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(pieces.concat(), text);
    assert!(pieces.contains(&"🦀".to_owned()));
}

#[tokio::test]
async fn text_of_special_tokens_is_not_shown() {
    let engine = ScriptedEngine::sending(&[bytes("a"), vec![256], bytes("b")].concat(), Ending::Finish);
    let host = Host::start(byte_model(engine)).await;
    for stream in [false, true] {
        assert_eq!(host.chat(&with(chat_body("Hi"), json!({"stream": stream}))).await, "ab");
    }
}

#[tokio::test]
async fn bill_can_be_recomputed_from_the_text() {
    let model = real_model("bundled", &BuiltinSettings::default());
    let tokenizer = model.tokenizer.clone();
    let host = Host::start(model).await;
    let mut shorter = 0;
    for seed in 0..60 {
        // Hot sampling gives texts that the tokenizer writes in other tokens than the model did.
        let most = 1 + seed % 40;
        let fields = json!({"prompt": "ROMEO:", "max_tokens": most, "temperature": 2, "seed": seed, "n": 2});
        let body = with(completion_body(""), fields);
        let answer: Value = host.send("/v1/completions", &body).await.json().await.unwrap();
        let choices = answer["choices"].as_array().unwrap();
        let recount = |choice: &Value| {
            let text = choice["text"].as_str().unwrap();
            let ids = tokenizer.encode(text, model::SpecialTokens::Omit).unwrap().len();
            ids.min(usize::try_from(most).unwrap())
        };
        let recounted: usize = choices.iter().map(recount).sum();
        let billed = usize::try_from(answer["usage"]["completion_tokens"].as_u64().unwrap()).unwrap();
        assert!(billed <= recounted, "{answer}");
        if choices.iter().all(|choice| choice["finish_reason"] == "length") {
            assert_eq!(billed, recounted, "{answer}");
            shorter += usize::from(recounted < 2 * usize::try_from(most).unwrap());
        }
    }
    assert!(shorter > 0, "some texts have fewer tokens than the model took");
}
