//! What a request adds to the model's logits.

use serde_json::{Value, json};
use serving::engine::builtin::BuiltinSettings;

use crate::support::{Host, completion_body, real_model, with};

async fn greedy(host: &Host, fields: Value) -> String {
    let fields = with(fields, json!({"temperature": 0, "max_tokens": 40, "prompt": "First Citizen:"}));
    host.complete(&with(completion_body(""), fields)).await
}

#[tokio::test]
async fn bias_forces_and_forbids_tokens() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let tokenizer = real_model("bundled", &BuiltinSettings::default()).tokenizer;
    let only = tokenizer.token_text(300).unwrap();
    assert_eq!(greedy(&host, json!({"logit_bias": {"300": 100}})).await, only.repeat(40));
    let plain = greedy(&host, json!({})).await;
    let first = tokenizer.encode(&plain, model::SpecialTokens::Omit).unwrap()[0];
    let without = greedy(&host, json!({"logit_bias": {first.to_string(): -100}})).await;
    assert_ne!(tokenizer.encode(&without, model::SpecialTokens::Omit).unwrap()[0], first);
    // With every other token at -100, what is left is what is said.
    let all_but_one: serde_json::Map<String, Value> =
        (0..1024).filter(|id| *id != 300).map(|id| (id.to_string(), json!(-100))).collect();
    assert_eq!(greedy(&host, json!({"logit_bias": all_but_one})).await, only.repeat(40));
    let unknown = host
        .send("/v1/completions", &with(completion_body("Hi"), json!({"logit_bias": {"1024": 1}, "max_tokens": 1})))
        .await;
    assert_eq!(unknown.status(), 400);
    assert_eq!(unknown.json::<Value>().await.unwrap()["error"]["param"], "logit_bias");
}

#[tokio::test]
async fn penalties_break_repetition_and_rewards_make_it() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    // A token that is forced repeats until its penalty outweighs the bias.
    let forced = |fields: Value| with(fields, json!({"logit_bias": {"300": 20}}));
    let tokenizer = real_model("bundled", &BuiltinSettings::default()).tokenizer;
    let only = tokenizer.token_text(300).unwrap();
    let run = |text: &str| text.split(&only).take_while(|rest| rest.is_empty()).count();
    let plain = run(&greedy(&host, forced(json!({}))).await);
    let frequency = run(&greedy(&host, forced(json!({"frequency_penalty": 2}))).await);
    let presence = run(&greedy(&host, forced(json!({"presence_penalty": 2}))).await);
    assert!(frequency < plain && frequency > 1, "{frequency} {plain}");
    assert!(presence >= frequency, "{presence} {frequency}");
    assert_ne!(greedy(&host, json!({"frequency_penalty": 2})).await, greedy(&host, json!({})).await);
    assert_ne!(greedy(&host, json!({"presence_penalty": -2})).await, greedy(&host, json!({})).await);
}
