//! An answer depends on its request alone.

use serde_json::{Value, json};
use serving::engine::builtin::BuiltinSettings;
use tokio::task::JoinSet;

use crate::support::{Host, completion_body, count, real_model, shared, with};

/// Requests of every kind: short and long prompts, greedy and sampled, whole and streamed, with and without stops.
fn requests() -> Vec<Value> {
    let words = ["the", "king", "was", "a", "little", "girl", "and", "there", "went", "to", "play", "with"];
    let prompt = |index: usize| {
        let length = [3, 40, 9, 120][index % 4];
        (0..length).map(|word| words[(word * (index + 3) + index) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let request = |index: usize| {
        let temperature = [0.0, 0.7, 1.0, 1.5][(index / 4) % 4];
        let top_p = [1.0, 0.9][index % 2];
        let stop = if index.is_multiple_of(5) { json!(["an", ".\n"]) } else { Value::Null };
        let fields = json!({
            "max_tokens": 8 + 3 * (index % 9),
            "temperature": temperature,
            "top_p": top_p,
            "seed": index,
            "stream": index.is_multiple_of(3),
            "stop": stop,
        });
        with(completion_body(&prompt(index)), fields)
    };
    (0..32).map(request).collect()
}

async fn same_bytes_alone_and_together(reference: &str) {
    let requests = requests();
    let mut alone = Vec::new();
    {
        // Whole prompts at once, and never two streams.
        let settings =
            BuiltinSettings { streams: count(1), prompt_tokens_per_step: count(4096), ..BuiltinSettings::default() };
        let host = Host::start(real_model(reference, &settings)).await;
        for request in &requests {
            alone.push(host.complete(request).await);
        }
    }
    assert!(alone.iter().filter(|text| !text.is_empty()).count() > 24, "{alone:?}");

    for (streams, piece) in [(32, 256), (5, 7)] {
        let settings = BuiltinSettings {
            streams: count(streams),
            prompt_tokens_per_step: count(piece),
            prompt_tokens_beside_streams: count(piece),
            ..BuiltinSettings::default()
        };
        let host = Host::start(real_model(reference, &settings)).await;
        let mut running = JoinSet::new();
        for (index, request) in requests.iter().cloned().enumerate() {
            let call = host.post("/v1/completions", &request);
            running.spawn(async move { (index, crate::support::answer(call.send().await.unwrap()).await) });
        }
        while let Some(done) = running.join_next().await {
            let (index, text) = done.unwrap();
            assert_eq!(text, alone[index], "request {index} with {streams} streams and prompts in pieces of {piece}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundled_model_gives_the_same_bytes_alone_and_together() {
    same_bytes_alone_and_together("bundled").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs shared data"]
async fn stories_model_gives_the_same_bytes_alone_and_together() {
    same_bytes_alone_and_together(&shared("data/models/stories260K")).await;
}
