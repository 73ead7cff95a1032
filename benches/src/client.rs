//! The client's side of a stream: what became of it, and when.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio_util::task::TaskTracker;

/// What became of a request for a stream.
#[derive(Debug)]
pub enum Reply {
    /// The answer is complete.
    Answered(Answer),
    /// Nothing was generated.
    Refused {
        /// The answer's status.
        status: u16,
        /// The error's code.
        code: String,
        /// Until the refusal was there.
        took: Duration,
    },
    /// The answer, or the connection, ended before it was complete.
    BrokenOff {
        /// How.
        why: String,
    },
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Until the first bytes of the answer, which come with its first text.
    pub first: Duration,
    /// Until its end.
    pub took: Duration,
    /// Tokens of the completion, as the server counts them in `usage`.
    pub tokens: u64,
    /// Whether it ended because the limit on its tokens was reached.
    pub is_full: bool,
    /// The statement of a metered host.
    pub hallmark: Option<Value>,
}

impl Reply {
    /// The answer, or what came instead as an error.
    ///
    /// # Errors
    /// When it is not complete.
    pub fn answered(self) -> anyhow::Result<Answer> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Refused { status, code, .. } => anyhow::bail!("refused with {status} {code}"),
            Self::BrokenOff { why } => anyhow::bail!("broken off: {why}"),
        }
    }
}

/// Sends a request whose body asks for a stream with usage, and reads the answer as fast as it comes.
pub async fn stream(request: RequestBuilder) -> Reply {
    let began = Instant::now();
    match read(request, began).await {
        Ok(reply) => reply,
        Err(error) => Reply::BrokenOff { why: format!("{error:#}") },
    }
}

async fn read(request: RequestBuilder, began: Instant) -> anyhow::Result<Reply> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    if status != 200 {
        let body: Value = response.json().await.unwrap_or_default();
        let code = body["error"]["code"].as_str().unwrap_or("without a code").to_owned();
        return Ok(Reply::Refused { status, code, took: began.elapsed() });
    }
    let mut first = None;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        first.get_or_insert_with(|| began.elapsed());
        bytes.extend_from_slice(&chunk);
    }
    let took = began.elapsed();
    let text = String::from_utf8(bytes)?;
    let (mut is_done, mut tokens, mut is_full, mut hallmark) = (false, None, false, None);
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            is_done = true;
            continue;
        }
        let event: Value = serde_json::from_str(data)?;
        if let Some(error) = event.get("error") {
            return Ok(Reply::BrokenOff { why: error["code"].as_str().unwrap_or("without a code").to_owned() });
        }
        tokens = event["usage"]["completion_tokens"].as_u64().or(tokens);
        is_full |= event["choices"][0]["finish_reason"] == "length";
        hallmark = event.get("hallmark").cloned().or(hallmark);
    }
    anyhow::ensure!(is_done, "the stream ended without [DONE]");
    let (first, tokens) = (first.context("no event came")?, tokens.context("no usage came")?);
    Ok(Reply::Answered(Answer { first, took, tokens, is_full, hallmark }))
}

/// [`stream`] of all requests at once, each on a task of its own; the replies are in their order.
///
/// # Errors
/// When a task panics.
pub async fn streams(requests: impl IntoIterator<Item = RequestBuilder>) -> anyhow::Result<Vec<Reply>> {
    let tasks = TaskTracker::new();
    let running: Vec<_> = requests.into_iter().map(|request| tasks.spawn(stream(request))).collect();
    let mut replies = Vec::with_capacity(running.len());
    for reply in running {
        replies.push(reply.await?);
    }
    Ok(replies)
}
