use axum::body::BodyDataStream;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::*;
use crate::{
    engine::{CompletionSender, EngineError, FinishReason},
    openai::{
        account::{Ending, Outcome},
        completions::Completions,
        error::ApiError,
        testkit::{Recorder, generation, send, state},
    },
    state::Limits,
};

const TEXT: &str = "the king and the queen and all the little children went out to play with the dog";

/// An answer that has begun, and the engine's ends of its choices.
async fn begin(
    recorder: &Recorder,
    choices: usize,
    include_usage: bool,
    write: impl FnOnce(&mut Vec<CompletionSender>),
) -> (Vec<CompletionSender>, BodyDataStream) {
    let limits = Limits { stalled_reader_timeout: Duration::from_millis(200), ..Limits::default() };
    let state = state(limits);
    let (mut senders, mut generation) = generation(&state, recorder, choices);
    write(&mut senders);
    let first = generation.next().await.unwrap_or_else(|_| panic!("there is a first event"));
    let permit = state.open_request().unwrap();
    let opened = Opened { head: Head::default(), generation, first, include_usage, permit };
    (senders, respond::<Completions>(&state, opened).into_body().into_data_stream())
}

fn finish(senders: &mut Vec<CompletionSender>) {
    for sender in senders.drain(..) {
        send(&sender, TEXT);
        sender.finish(FinishReason::Stop);
    }
}

/// The JSON of the next event, or `[DONE]` as a string.
async fn event(body: &mut BodyDataStream) -> Option<Value> {
    let bytes = body.next().await?.ok()?;
    let data = std::str::from_utf8(&bytes).unwrap().strip_prefix("data: ").unwrap().trim().to_owned();
    Some(if data == "[DONE]" { json!(data) } else { serde_json::from_str(&data).unwrap() })
}

async fn events(body: &mut BodyDataStream) -> Vec<Value> {
    let mut events = Vec::new();
    while let Some(event) = event(body).await {
        events.push(event);
    }
    events
}

fn text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect()
}

fn texts(ending: &Ending) -> Vec<&str> {
    ending.choices.iter().map(|choice| choice.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn account_is_not_closed_while_the_connection_takes_the_last_text() {
    for _ in 0..2_000 {
        let recorder = Recorder::new(|| Ok(None));
        let (_, mut body) = begin(&recorder, 1, false, finish).await;
        let given = TaskTracker::new().spawn(async move { events(&mut body).await }).await.unwrap();
        assert_eq!((text(&given).as_str(), given.last()), (TEXT, Some(&json!("[DONE]"))));
    }
}

#[tokio::test]
async fn reader_that_leaves_is_billed_for_the_events_that_it_was_given() {
    for read in [0, 1, 3, 6] {
        let recorder = Recorder::new(|| Ok(None));
        let (_, mut body) = begin(&recorder, 1, false, finish).await;
        // The writer has filled the channel by then.
        time::sleep(Duration::from_millis(50)).await;
        let mut given = Vec::new();
        for _ in 0..read {
            given.push(event(&mut body).await.unwrap());
        }
        drop(body);
        let ending = recorder.ending().await;
        assert_eq!((ending.outcome, texts(&ending)), (Outcome::ClientGone, vec![text(&given).as_str()]));
        assert!(read == 0 || !text(&given).is_empty() && text(&given) != TEXT);
    }
}

#[tokio::test]
async fn account_is_closed_before_the_end_and_what_it_says_is_in_the_last_json() {
    for (include_usage, choices) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let recorder = Recorder::new(|| Ok(Some(json!({"id": 1}))));
        let (_, mut body) = begin(&recorder, choices, include_usage, finish).await;
        let events = events(&mut body).await;
        assert_eq!(events.last().unwrap(), "[DONE]");
        let with_hallmark: Vec<_> = events.iter().filter(|event| event.get("hallmark").is_some()).collect();
        let last = &events[events.len() - 2];
        assert_eq!(with_hallmark, [last]);
        assert_eq!(last["hallmark"], json!({"id": 1}));
        let finished: Vec<_> = events.iter().filter(|event| event["choices"][0]["finish_reason"] == "stop").collect();
        assert_eq!(finished.len(), choices);
        assert_eq!(last["usage"]["prompt_tokens"], if include_usage { json!(7) } else { Value::Null });
        let ending = recorder.ending().await;
        assert_eq!((ending.outcome, texts(&ending)), (Outcome::Finished, vec![TEXT; choices]));
    }
}

#[tokio::test]
async fn account_that_cannot_be_closed_leaves_an_answer_that_is_not_finished() {
    for include_usage in [false, true] {
        let recorder = Recorder::new(|| Err(ApiError::internal("The journal is full.")));
        let (_, mut body) = begin(&recorder, 1, include_usage, finish).await;
        let events = events(&mut body).await;
        assert_eq!(events.last().unwrap()["error"]["message"], "The journal is full.");
        assert!(events.iter().all(|event| event["choices"][0]["finish_reason"].is_null()), "{events:?}");
        assert_eq!(text(&events), TEXT);
        recorder.ending().await;
    }
}

#[tokio::test]
async fn nothing_follows_while_the_account_is_being_closed() {
    let recorder = Recorder::waiting();
    let (_, mut body) = begin(&recorder, 1, true, finish).await;
    let mut given = Vec::new();
    while let Ok(event) = time::timeout(Duration::from_millis(300), event(&mut body)).await {
        given.push(event.unwrap());
    }
    assert_eq!(text(&given), TEXT);
    assert!(given.iter().all(|event| event["choices"][0]["finish_reason"].is_null()), "{given:?}");
    recorder.gate.add_permits(1);
    assert_eq!(events(&mut body).await.len(), 3, "the end, the usage, [DONE]");
}

#[tokio::test]
async fn engine_that_fails_is_paid_for_what_was_delivered_before() {
    let recorder = Recorder::new(|| Ok(None));
    let (_, mut body) = begin(&recorder, 2, false, |senders| {
        send(&senders[0], TEXT);
        senders.pop().unwrap().fail(EngineError::Stopped);
    })
    .await;
    let events = events(&mut body).await;
    assert_eq!(events.last().unwrap()["error"]["code"], "engine_error");
    let ending = recorder.ending().await;
    assert_eq!((ending.outcome, texts(&ending)), (Outcome::EngineFailed, vec![text(&events).as_str(), ""]));
}

#[tokio::test]
async fn reader_that_stalls_is_given_nothing_more_once_the_account_is_closed() {
    let recorder = Recorder::new(|| Ok(None));
    let (_, mut body) = begin(&recorder, 1, false, finish).await;
    let first = event(&mut body).await.unwrap();
    let ending = recorder.ending().await;
    assert_eq!((ending.outcome, texts(&ending)), (Outcome::ClientGone, vec![text(&[first]).as_str()]));
    assert!(body.next().await.unwrap().is_err(), "the connection breaks off");
}
