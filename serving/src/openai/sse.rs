//! Answers as server-sent events: one JSON chunk per event, `data: [DONE]` at the end.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time,
};
use tokio_stream::Stream;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    account::{Closed, Delivered},
    error::ApiError,
    generate::{Endpoint, Head},
    generation::Generation,
    text::TextEvent,
    types::{Reply, UsageFigures},
};
use crate::state::AppState;

/// Events between the task and the socket. Few: what a slow reader leaves unread stays as token ids in the engine's
/// channel, which is smaller than text.
const EVENTS_AHEAD: usize = 8;
/// Comments that keep proxies from closing a connection on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A stream whose first event is there, so that it can be answered with 200.
pub(super) struct Opened {
    pub(super) head: Head,
    pub(super) generation: Generation,
    pub(super) first: (usize, TextEvent),
    pub(super) include_usage: bool,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Answers 200 and lets a task of its own write the events.
pub(super) fn respond<E: Endpoint>(state: &AppState, opened: Opened) -> Response {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    let untaken = TaskTracker::new();
    // To wait for: closed means that it may end, not that nothing is added.
    untaken.close();
    let events = Events { receiver, delivered: opened.generation.delivered().clone() };
    let writer = Writer { state: state.clone(), sender, untaken };
    state.tasks().spawn(async move {
        // Only a reader that is gone ends the writing early, and then there is nobody to tell.
        writer.write::<E>(opened).await.ok();
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Answers 200 with chunks that are all there.
pub(super) fn replay(chunks: &[impl Serialize]) -> Response {
    // Bodies are plain structs with string keys, which always serialise.
    let events = chunks.iter().filter_map(|chunk| Event::default().json_data(chunk).ok());
    let events: Vec<_> = events.chain([Event::default().data("[DONE]")]).map(Ok::<_, GivenUp>).collect();
    Sse::new(tokio_stream::iter(events)).into_response()
}

/// An event on its way to the connection.
struct Outgoing {
    event: Event,
    /// The choice that it continues, and with what.
    text: Option<(usize, String)>,
    /// Held until the account knows of the text, which is after the channel has room again.
    untaken: TaskTrackerToken,
}

/// What the connection reads. Text goes on the account when it leaves here.
struct Events {
    receiver: mpsc::Receiver<Outgoing>,
    delivered: Delivered,
}

/// The account was closed before the text could be delivered: the reader had stalled for too long.
#[derive(Debug, thiserror::Error)]
#[error("the reader was given up")]
struct GivenUp;

impl Stream for Events {
    type Item = Result<Event, GivenUp>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|outgoing| {
            let Outgoing { event, text, untaken } = outgoing?;
            let allowed = text.is_none_or(|(choice, text)| self.delivered.add(choice, &text));
            drop(untaken);
            Some(if allowed { Ok(event) } else { Err(GivenUp) })
        })
    }
}

/// The reader hung up, or has stalled for too long.
#[derive(Debug)]
struct Gone;

struct Writer {
    state: AppState,
    sender: mpsc::Sender<Outgoing>,
    /// Events that the connection has not taken.
    untaken: TaskTracker,
}

impl Writer {
    async fn write<E: Endpoint>(&self, opened: Opened) -> Result<(), Gone> {
        let Opened { head, mut generation, first, include_usage, permit: _permit } = opened;
        // With `include_usage` every chunk but the last says `"usage": null`.
        let chunk =
            |choice| Reply { usage: include_usage.then_some(None), ..head.reply(E::CHUNK_OBJECT, vec![choice]) };

        for opening in (0..generation.choices()).filter_map(E::opening) {
            self.send_json(&chunk(opening), None).await?;
        }
        let mut next = Ok(first);
        let (last, reason) = loop {
            match next {
                Ok((index, TextEvent::Piece(said))) => {
                    let text = said.text.clone();
                    self.send_json(&chunk(E::piece(index, said)), Some((index, text))).await?;
                }
                Ok((index, TextEvent::Finished(reason))) if generation.is_finished() => break (index, reason),
                Ok((index, TextEvent::Finished(reason))) => {
                    self.send_json(&chunk(E::closing(index, reason)), None).await?;
                }
                Err(error) => {
                    self.all_taken().await?;
                    generation.abandon().await;
                    return self.send_error(&error).await;
                }
            }
            next = tokio::select! {
                // In order: once the reader is gone, nothing else is worth doing.
                biased;
                () = self.sender.closed() => return Err(Gone),
                next = generation.next() => next,
            };
        };
        self.all_taken().await?;
        // The end of the last choice waits for the account: without it the answer does not look complete.
        let Closed { usage, hallmark } = match generation.close().await {
            Ok(closed) => closed,
            Err(error) => return self.send_error(&error).await,
        };
        let end = chunk(E::closing(last, reason));
        if include_usage {
            self.send_json(&end, None).await?;
            let usage = Some(Some(UsageFigures::from(usage)));
            let figures = Reply { usage, hallmark, ..head.reply::<E::ChunkChoice>(E::CHUNK_OBJECT, Vec::new()) };
            self.send_json(&figures, None).await?;
        } else {
            self.send_json(&Reply { hallmark, ..end }, None).await?;
        }
        self.send(Event::default().data("[DONE]"), None).await
    }

    /// Waits until the connection has taken everything that was sent, so that the account knows of it.
    async fn all_taken(&self) -> Result<(), Gone> {
        let patience = self.state.limits().stalled_reader_timeout;
        time::timeout(patience, self.untaken.wait()).await.map_err(|_| Gone)?;
        // What was not read when the reader hung up is not waited for either.
        if self.sender.is_closed() { Err(Gone) } else { Ok(()) }
    }

    /// An error in place of the rest. No `[DONE]` follows: the answer is not complete.
    async fn send_error(&self, error: &ApiError) -> Result<(), Gone> {
        error.log();
        self.send_json(&error.body(), None).await
    }

    async fn send_json(&self, body: &impl Serialize, text: Option<(usize, String)>) -> Result<(), Gone> {
        match Event::default().json_data(body) {
            Ok(event) => self.send(event, text).await,
            Err(error) => {
                // Bodies are plain structs with string keys, which always serialise.
                tracing::error!(%error, "failed to serialise an event");
                Err(Gone)
            }
        }
    }

    async fn send(&self, event: Event, text: Option<(usize, String)>) -> Result<(), Gone> {
        let outgoing = Outgoing { event, text, untaken: self.untaken.token() };
        let patience = self.state.limits().stalled_reader_timeout;
        self.sender.send_timeout(outgoing, patience).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests;
