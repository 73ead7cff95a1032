//! An answer depends on its request alone: not on what else the engine does, nor on how it is set up.

use std::time::Duration;

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use serving::{ServedModel, engine::builtin::BuiltinSettings};
use tokio::task::JoinSet;

use crate::support::{Host, MODEL, count, real_model, shared};

const WORDS: [&str; 12] = ["the", "king", "was", "a", "little", "girl", "and", "there", "went", "to", "play", "with"];

/// Requests of every kind: short and long prompts, many with a beginning in common, greedy and sampled, with penalties,
/// biases, several choices, log-probabilities, stop strings, with and without leave to share prompts.
fn requests(number: usize) -> Vec<Value> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..number).map(|_| request(&mut random)).collect()
}

fn request(random: &mut ChaCha8Rng) -> Value {
    let beginning = random.random_range(0..4);
    let mut words: Vec<&str> =
        (0..random.random_range(0..40)).map(|word| WORDS[(word * (beginning + 3)) % WORDS.len()]).collect();
    words.extend((0..random.random_range(1..12)).map(|_| WORDS[random.random_range(0..WORDS.len())]));
    let mut body = json!({
        "model": MODEL,
        "prompt": words.join(" "),
        "max_tokens": random.random_range(1..10),
        "temperature": one_of(random, &[0.0, 0.7, 1.0, 1.5]),
        "top_p": one_of(random, &[1.0, 0.9]),
        "top_k": one_of(random, &[0, 0, 5]),
        "seed": random.random::<u32>(),
        "n": one_of(random, &[1, 1, 1, 2, 3]),
    });
    let mut sometimes = |chance: f64, field: &str, value: Value| {
        if random.random_bool(chance) {
            body[field] = value;
        }
    };
    sometimes(0.3, "frequency_penalty", json!(1.25));
    sometimes(0.3, "presence_penalty", json!(-0.5));
    sometimes(0.2, "logit_bias", json!({"300": 4, "2": -100, "500": -1.5}));
    sometimes(0.2, "logprobs", json!(3));
    sometimes(0.2, "stop", json!(["an", ".\n"]));
    sometimes(0.7, "prompt_cache_key", json!(format!("customer {}", beginning % 2)));
    body
}

fn one_of<T: Copy>(random: &mut ChaCha8Rng, values: &[T]) -> T {
    values[random.random_range(0..values.len())]
}

/// Everything in an answer that may not vary, and the tokens of the prompt that came from a cache.
fn comparable(mut answer: Value) -> (String, u64) {
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].take();
    (format!("{} {}", answer["choices"], answer["usage"]), cached.as_u64().unwrap())
}

async fn alone(model: impl Fn(&BuiltinSettings) -> ServedModel, requests: &[Value]) -> Vec<String> {
    let settings = BuiltinSettings {
        streams: count(1),
        queue: 8,
        prompt_tokens_per_step: count(4096),
        reuse_prefixes: false,
        threads: Some(count(1)),
        ..BuiltinSettings::default()
    };
    let host = Host::start(model(&settings)).await;
    let mut answers = Vec::new();
    for request in requests {
        let answer = host.send("/v1/completions", request).await.json().await.unwrap();
        let (answer, cached) = comparable(answer);
        assert_eq!(cached, 0);
        answers.push(answer);
    }
    answers
}

/// All requests in random order, in batches of random sizes that overlap. Returns the tokens that came from caches.
async fn in_batches(host: &Host, requests: &[Value], expected: &[String], seed: u64) -> u64 {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.shuffle(&mut random);
    let mut running = JoinSet::new();
    let mut cached = 0;
    let mut batch = 0;
    for index in order {
        let call = host.post("/v1/completions", &requests[index]).timeout(Duration::from_secs(60));
        running.spawn(async move { (index, call.send().await.unwrap().json::<Value>().await.unwrap()) });
        if batch == 0 {
            batch = random.random_range(1..60);
            let leave = random.random_range(0..20);
            while running.len() > leave {
                cached += compare(running.join_next().await.unwrap().unwrap(), requests, expected);
            }
        }
        batch -= 1;
    }
    while let Some(done) = running.join_next().await {
        cached += compare(done.unwrap(), requests, expected);
    }
    cached
}

fn compare((index, answer): (usize, Value), requests: &[Value], expected: &[String]) -> u64 {
    assert!(answer["error"].is_null(), "{answer}");
    let (found, cached) = comparable(answer);
    assert_eq!(found, expected[index], "request {index}: {}", requests[index]);
    cached
}

pub(crate) async fn same_bytes(model: impl Fn(&BuiltinSettings) -> ServedModel, number: usize) {
    let requests = requests(number);
    let expected = alone(&model, &requests).await;
    for (threads, streams, piece, reuse) in [(2, 32, 256, true), (1, 5, 7, true), (2, 9, 33, false)] {
        let settings = BuiltinSettings {
            streams: count(streams),
            queue: 1000,
            prompt_tokens_per_step: count(piece),
            prompt_tokens_beside_streams: count(piece),
            reuse_prefixes: reuse,
            threads: Some(count(threads)),
            ..BuiltinSettings::default()
        };
        let host = Host::start(model(&settings)).await;
        let cached = in_batches(&host, &requests, &expected, u64::try_from(streams).unwrap()).await;
        assert_eq!(cached > 0, reuse, "{cached} tokens from caches with {streams} streams");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_requests_have_the_same_bytes_alone_and_together() {
    same_bytes(|settings| real_model("bundled", settings), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs shared data"]
async fn stories_model_gives_the_same_bytes_alone_and_together() {
    let reference = shared("data/models/stories260K");
    same_bytes(|settings| real_model(&reference, settings), 100).await;
}

#[tokio::test]
async fn cached_tokens_are_told_and_stay_within_their_key() {
    let host = Host::start(real_model("bundled", &BuiltinSettings::default())).await;
    let prompt = WORDS.join(" ");
    let ask = async |key: Value| {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 2, "seed": 1, "prompt_cache_key": key});
        let answer: Value = host.send("/v1/completions", &body).await.json().await.unwrap();
        let usage = &answer["usage"];
        let read = usage["prompt_tokens"].as_u64().unwrap() - 1;
        (usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(), read)
    };
    let (first, read) = ask(json!("mine")).await;
    assert_eq!((first, ask(json!("mine")).await.0), (0, read));
    for other in [json!("yours"), json!(null), json!("")] {
        assert_eq!(ask(other.clone()).await.0, 0, "{other}");
        assert_eq!(ask(json!("mine")).await.0, read);
    }
    assert_eq!(ask(json!(null)).await.0, 0);
}
