//! The metered way through an endpoint: who pays is found out, money is set aside, and the end of the answer waits for the
//! statement.

use std::{
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    sync::Arc,
};

use alloy_primitives::B256;
use axum::http::HeaderMap;
use protocol::{
    counts::RequestUsage,
    messages::{FinishReason, Signed, Statement},
    transcript,
};
use serde_json::{Value, json};

use super::{
    account::{ChoiceEnding, Closing, Ending, Outcome, Settle},
    error::ApiError,
    generate::Head,
    once::{self, Answer, Choice},
    payment,
    record::Record,
};
use crate::{
    admission::{self, Payer, Wanted},
    engine::{self, GenerationRequest},
    metering::{
        Bill, BillError, Metering, Once, Paid,
        lease::{PricingError, ServedLease},
    },
    state::ServedModel,
};

/// A metered request on its way in.
pub(super) struct Gate {
    metering: Arc<Metering>,
    lease: Arc<ServedLease>,
    path: &'static str,
}

/// One of which is known who pays.
pub(super) struct Entered {
    gate: Gate,
    payer: Payer,
    once: Option<Once>,
}

/// What becomes of a request at the gate.
pub(super) enum Entrance {
    /// It is to be worked on.
    New(Entered),
    /// It was answered before.
    Answered(Box<Answer>),
}

/// One that is paid for.
pub(super) struct PaidRequest {
    gate: Gate,
    paid: Paid,
    once: Option<Once>,
}

impl Gate {
    /// The way in, if the model is served under a lease.
    pub(super) fn of(metering: Option<&Arc<Metering>>, model: &ServedModel, path: &'static str) -> Option<Self> {
        let (metering, lease) = (metering?.clone(), model.lease.clone()?);
        Some(Self { metering, lease, path })
    }

    fn refused(&self, refusal: &admission::Refusal) -> ApiError {
        payment::refused(refusal, &self.metering, &self.lease, self.path)
    }

    /// Lets those in who can pay. `with_tokens` are requests whose answers cannot be kept.
    pub(super) async fn enter(
        self,
        headers: &HeaderMap,
        body_hash: B256,
        with_tokens: bool,
    ) -> Result<Entrance, ApiError> {
        admission::check_open(&self.metering, &self.lease).map_err(|refusal| self.refused(&refusal))?;
        let payer = admission::identify(&self.metering, &self.lease, headers).await;
        let payer = payer.map_err(|refusal| self.refused(&refusal))?;
        let Some(key) = once::key(headers)? else {
            return Ok(Entrance::New(Entered { gate: self, payer, once: None }));
        };
        if with_tokens {
            return Err(ApiError::not_kept());
        }
        let owner = payer.owner();
        // Before the books are asked: an answer that is written meanwhile is then found there.
        let once = self.metering.running().begin(owner, key, body_hash).ok_or_else(ApiError::in_progress)?;
        let kept = self.metering.books().kept_answer(owner, &once.key).await;
        let failed = || ApiError::internal("An answer with this Idempotency-Key could not be looked up.");
        match kept.map_err(|error| failed().caused_by(error))? {
            None => Ok(Entrance::New(Entered { gate: self, payer, once: Some(once) })),
            Some(kept) if kept.body_hash != body_hash => Err(ApiError::other_request()),
            Some(kept) => {
                let answer = serde_json::from_str(&kept.answer).map_err(|error| failed().caused_by(error))?;
                Ok(Entrance::Answered(Box::new(answer)))
            }
        }
    }
}

impl Entered {
    /// Who shares what is kept of prompts: the payer's own requests and nobody else's.
    pub(super) fn cache_scope(&self, key: Option<&str>) -> Arc<str> {
        format!("{} {}", self.payer.name(), key.unwrap_or_default()).into()
    }

    /// Sets money aside, and says how many tokens of each choice it is for.
    pub(super) fn admit(
        self,
        prompt: usize,
        choices: NonZeroU16,
        most: NonZeroUsize,
        is_named: bool,
    ) -> Result<(PaidRequest, NonZeroUsize), ApiError> {
        let Self { gate, payer, once } = self;
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let completion = NonZeroU64::new(count(most.get())).unwrap_or(NonZeroU64::MIN);
        let wanted = Wanted { prompt: count(prompt), choices: choices.into(), completion, is_named };
        let admitted = admission::admit(&gate.metering, &gate.lease, payer, wanted);
        let admitted = admitted.map_err(|refusal| gate.refused(&refusal))?;
        let completion = usize::try_from(admitted.completion).ok().and_then(NonZeroUsize::new).unwrap_or(most);
        Ok((PaidRequest { gate, paid: admitted.paid, once }, completion))
    }
}

impl PaidRequest {
    /// What settles the request at its end.
    pub(super) fn settle(
        self,
        head: &Head,
        model: &ServedModel,
        request: &GenerationRequest,
        stop: &[String],
    ) -> Result<Metered, ApiError> {
        let record = Record::of(model, request, stop).text();
        let record =
            record.map_err(|error| ApiError::internal("The request could not be recorded.").caused_by(error))?;
        let Self { gate, paid, once } = self;
        Ok(Metered { metering: gate.metering, paid, once, head: head.clone(), record })
    }
}

/// Settles a metered request.
pub(super) struct Metered {
    metering: Arc<Metering>,
    paid: Paid,
    once: Option<Once>,
    head: Head,
    record: String,
}

impl Settle for Metered {
    fn close(self: Box<Self>, ending: Ending) -> Closing {
        Box::pin(async move {
            let Self { metering, paid, once, head, record } = *self;
            let is_complete = ending.outcome == Outcome::Finished;
            if !is_complete && ending.choices.iter().all(|choice| choice.text.is_empty()) {
                // Nothing was delivered, so there is nothing to pay for. What was set aside is free again.
                if ending.outcome == Outcome::ClientGone {
                    let generated = ending.choices.iter().map(|choice| choice.generated.get());
                    paid.not_taken(ending.usage.prompt().get(), generated.fold(0, u64::saturating_add));
                }
                return Ok(None);
            }
            let bill = bill(&ending, &record).map_err(|error| not_billed(&error.into()))?;
            let mut hallmark = None;
            let billed = metering.bill(paid, bill, |digest, statement| {
                let told = hallmark.insert(told(digest, statement, &record));
                let once = once.as_ref().filter(|_| is_complete)?;
                let answer = serde_json::to_string(&answer(head, ending, told.clone())).ok()?;
                Some((once.key.clone(), once.body_hash, answer))
            });
            let billed = billed.map_err(|error| not_billed(&error))?;
            billed.written.durable().await.map_err(|error| not_billed(&BillError::Journal(error)))?;
            // Until here: whoever asks again with the same key finds the answer in the books.
            drop(once);
            Ok(hallmark)
        })
    }
}

/// What the last JSON of an answer says of its statement.
fn told(digest: protocol::ids::StatementDigest, statement: &Signed<Statement>, record: &str) -> Value {
    json!({ "statement_id": digest, "statement": statement, "record": record })
}

fn bill(ending: &Ending, record: &str) -> Result<Bill, PricingError> {
    let usage = &ending.usage;
    Ok(Bill {
        answer: ending.request.clone(),
        usage: RequestUsage::new(usage.prompt().get(), usage.cached().get(), usage.completion().get())?,
        request_hash: transcript::request_hash(record),
        response_hash: transcript::response_hash(ending.choices.iter().map(|choice| choice.text.as_str())),
        finish_reason: finish_reason(ending.outcome, &ending.choices),
    })
}

/// A complete answer, to be kept.
fn answer(head: Head, ending: Ending, hallmark: Value) -> Answer {
    let choice = |choice: ChoiceEnding| Choice {
        is_cut: choice.finish == Some(engine::FinishReason::Length),
        text: choice.text,
    };
    Answer {
        head,
        prompt: ending.usage.prompt(),
        cached: ending.usage.cached(),
        completion: ending.usage.completion(),
        choices: ending.choices.into_iter().map(choice).collect(),
        hallmark,
    }
}

fn finish_reason(outcome: Outcome, choices: &[ChoiceEnding]) -> FinishReason {
    match outcome {
        Outcome::Finished if choices.iter().any(|choice| choice.finish == Some(engine::FinishReason::Length)) => {
            FinishReason::Length
        }
        Outcome::Finished => FinishReason::Stop,
        Outcome::ClientGone => FinishReason::Cancelled,
        Outcome::EngineFailed | Outcome::TimedOut | Outcome::ShutDown => FinishReason::EngineError,
    }
}

fn not_billed(error: &BillError) -> ApiError {
    ApiError::storage().caused_by(error.clone())
}
