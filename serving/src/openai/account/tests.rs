use std::{
    pin::pin,
    task::{Context, Waker},
};

use serde_json::json;

use super::*;
use crate::{
    engine::{Finish, FinishReason},
    openai::testkit::{Recorder, account, ids, state},
    state::Limits,
    usage::token_count,
};

const TEXT: &str = "the king and the queen";

fn generated(tokens: usize) -> Progress {
    Progress { generated: token_count(tokens), ..Progress::default() }
}

fn figures(ending: &Ending) -> (u64, u64, u64) {
    let usage = ending.usage;
    (usage.prompt().get(), usage.cached().get(), usage.completion().get())
}

#[tokio::test]
async fn complete_answer_is_closed_once_with_all_that_was_delivered() {
    let recorder = Recorder::new(|| Ok(Some(json!("statement"))));
    let mut account = account(&state(Limits::default()), &recorder, 2);
    assert!(account.delivered().add(0, "the king"));
    assert!(account.delivered().add(1, TEXT));
    assert!(account.delivered().add(0, " and"));
    let finish = Finish { reason: FinishReason::Length, reported: None };
    account.note(0, Progress { cached: token_count(5), finish: Some(finish), ..generated(100) });
    account.note(1, Progress { cached: token_count(6), ..generated(1) });
    let closed = account.close().await.unwrap();
    let ending = recorder.ending().await;
    // Of the second choice no more is billed than was generated; the prompt and its cache are the first one's.
    let expected = (7, 5, u64::try_from(ids("the king and").len() + 1).unwrap());
    assert_eq!((figures(&ending), closed.usage), (expected, ending.usage));
    assert_eq!(ending.choices.iter().map(|choice| choice.text.as_str()).collect::<Vec<_>>(), ["the king and", TEXT]);
    assert_eq!(
        ending.choices.iter().map(|choice| choice.finish).collect::<Vec<_>>(),
        [Some(FinishReason::Length), None]
    );
    assert_eq!((ending.outcome, closed.hallmark), (Outcome::Finished, Some(json!("statement"))));
}

#[tokio::test]
async fn dropped_account_is_closed_with_what_was_delivered_until_then() {
    for outcome in [None, Some(Outcome::EngineFailed), Some(Outcome::TimedOut)] {
        let recorder = Recorder::new(|| Err(ApiError::internal("nobody is there to read this")));
        let mut account = account(&state(Limits::default()), &recorder, 1);
        account.note(0, generated(100));
        assert!(account.delivered().add(0, "the king"));
        let connection = account.delivered().clone();
        outcome.into_iter().for_each(|outcome| account.fail(outcome));
        drop(account);
        assert!(!connection.add(0, " and more"), "what is closed takes nothing");
        let ending = recorder.ending().await;
        assert_eq!(ending.outcome, outcome.unwrap_or(Outcome::ClientGone));
        assert_eq!(ending.choices[0].text, "the king");
        assert_eq!(figures(&ending).2, u64::try_from(ids("the king").len()).unwrap());
    }
}

#[tokio::test]
async fn engine_s_own_figure_is_not_billed() {
    let recorder = Recorder::new(|| Ok(None));
    let mut account = account(&state(Limits::default()), &recorder, 1);
    let reported = ReportedUsage { prompt: token_count(1), completion: token_count(1) };
    let finish = Finish { reason: FinishReason::Stop, reported: Some(reported) };
    account.note(0, Progress { finish: Some(finish), ..generated(100) });
    assert!(account.delivered().add(0, TEXT));
    let closed = account.close().await.unwrap();
    assert_eq!(closed.usage.completion(), token_count(ids(TEXT).len()));
}

#[tokio::test]
async fn failure_to_close_is_the_answer_s_failure() {
    let recorder = Recorder::new(|| Err(ApiError::busy(std::time::Duration::from_secs(1))));
    let account = account(&state(Limits::default()), &recorder, 1);
    assert!(account.close().await.is_err());
    recorder.ending().await;
}

#[tokio::test]
async fn closing_goes_on_when_nobody_waits_for_it_any_more() {
    let recorder = Recorder::waiting();
    let account = account(&state(Limits::default()), &recorder, 1);
    {
        let mut closing = pin!(account.close());
        assert!(closing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    recorder.gate.add_permits(1);
    assert_eq!(recorder.ending().await.outcome, Outcome::Finished);
}

#[tokio::test]
async fn account_that_is_dropped_outside_of_the_runtime_is_closed_too() {
    let recorder = Recorder::new(|| Ok(None));
    let account = account(&state(Limits::default()), &recorder, 1);
    std::thread::spawn(move || drop(account)).join().unwrap();
    assert_eq!(recorder.ending().await.outcome, Outcome::ClientGone);
}

#[test]
fn debug_output_holds_no_text() {
    let usage = Usage::new(TokenCount::ZERO, TokenCount::ZERO, TokenCount::ZERO);
    let choice = ChoiceEnding {
        text: TEXT.to_owned(),
        completion: TokenCount::ZERO,
        finish: None,
        generated: TokenCount::ZERO,
        reported: None,
    };
    let ending = Ending { request: "r".to_owned(), outcome: Outcome::Finished, usage, choices: vec![choice] };
    assert!(!format!("{ending:?}").contains("king"));
}
