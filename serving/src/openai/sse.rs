//! Answers as server-sent events: one JSON chunk per event, `data: [DONE]` at the end.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    error::ApiError,
    generate::{Endpoint, Head, next_or_abort},
    text::{TextEvent, TextStream},
    types::UsageFigures,
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
    pub(super) text: TextStream,
    pub(super) first: TextEvent,
    pub(super) include_usage: bool,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Answers 200 and lets a task of its own write the events.
pub(super) fn respond<E: Endpoint>(state: &AppState, opened: Opened) -> Response {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    let writer = Writer { state: state.clone(), sender };
    state.tasks().spawn(async move {
        // Only a reader that is gone ends the writing early, and then there is nobody to tell.
        writer.write::<E>(opened).await.ok();
    });
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// The reader hung up, or has stalled for too long.
#[derive(Debug)]
struct Gone;

#[derive(Debug)]
struct Writer {
    state: AppState,
    sender: mpsc::Sender<Result<Event, Infallible>>,
}

impl Writer {
    async fn write<E: Endpoint>(&self, opened: Opened) -> Result<(), Gone> {
        let Opened { head, mut text, first, include_usage, permit: _permit } = opened;
        // With `include_usage` every chunk but the last says `"usage": null`.
        let no_usage = || include_usage.then_some(None);
        let chunk = |choice| head.reply(E::CHUNK_OBJECT, vec![choice], no_usage());

        if let Some(opening) = E::opening() {
            self.send_json(&chunk(opening)).await?;
        }
        let mut next = Ok(first);
        let reason = loop {
            match next {
                Ok(TextEvent::Piece(piece)) => self.send_json(&chunk(E::piece(piece))).await?,
                Ok(TextEvent::Finished(reason)) => break reason,
                Err(error) => return self.send_error(&error).await,
            }
            next = tokio::select! {
                // In order: once the reader is gone, nothing else is worth doing.
                biased;
                () = self.sender.closed() => return Err(Gone),
                next = next_or_abort(&self.state, &mut text) => next,
            };
        };
        self.send_json(&chunk(E::closing(reason))).await?;
        if include_usage {
            let usage = Some(Some(UsageFigures::from(text.usage())));
            self.send_json(&head.reply::<E::ChunkChoice>(E::CHUNK_OBJECT, Vec::new(), usage)).await?;
        }
        self.send(Event::default().data("[DONE]")).await
    }

    /// An error in place of the rest. No `[DONE]` follows: the answer is not complete.
    async fn send_error(&self, error: &ApiError) -> Result<(), Gone> {
        error.log();
        self.send_json(&error.body()).await
    }

    async fn send_json(&self, body: &impl serde::Serialize) -> Result<(), Gone> {
        match Event::default().json_data(body) {
            Ok(event) => self.send(event).await,
            Err(error) => {
                // Bodies are plain structs with string keys, which always serialise.
                tracing::error!(%error, "failed to serialise an event");
                Err(Gone)
            }
        }
    }

    async fn send(&self, event: Event) -> Result<(), Gone> {
        let patience = self.state.limits().stalled_reader_timeout;
        self.sender.send_timeout(Ok(event), patience).await.map_err(|_| Gone)
    }
}
