//! A customer who pays by the request, and the host's way to its money.
//!
//! The requests are real and so are their counts; statements and vouchers are signed here, for both sides: the metered host
//! and the payer's gateway are not part of this version.

use std::sync::Arc;

use alloy::primitives::{Address, B256, keccak256};
use anyhow::Context as _;
use fingerprint::prove::{Client, ClientOptions, Confidentiality, EndpointKind, RequestShape, SystemClock};
use licensing_contracts::{
    actions::{payments, usage},
    bindings::PaymentEscrow,
    deployment::Deployment,
};
use protocol::{
    counts::{LaneStep, RequestUsage, UsageCounts},
    ids::{ChainId, ChannelId, Lane},
    messages::{Channel, Domain, FinishReason, Message as _, SessionGrant, Signed, Statement, Voucher},
    signature::SigningKey,
    splits::Splits,
    units::{Amount, Seconds, UnixMilliseconds},
};
use serde_json::Value;
use url::Url;

use super::{
    chain::{CONTRIBUTOR, CREATOR, Chain, HOST, LEASE_KEY, PAYER, SESSION_KEY, SETUP},
    folder::Folder,
    licence::{Lease, Licence},
    record::{AttemptRecord, PaymentRecord, ShareRecord},
};

/// What the customer asks. The last one is in flight when the customer goes away.
const QUESTIONS: [&str; 8] = [
    "Can you recommend a book about the sea?",
    "What should I cook for four people tonight?",
    "Why is the sky red in the evening?",
    "Write a short greeting for a friend.",
    "How do I keep bread fresh?",
    "Name three towns with an old harbour.",
    "What is a good habit for the morning?",
    "Tell me about the moon in one sentence.",
];
/// Most tokens of an answer.
const MAX_TOKENS: u32 = 24;
const LANE: Lane = Lane::new(0);
/// Claims as `hallmark claim` takes them.
pub(super) const VOUCHERS: &str = "vouchers.json";
/// Statements as `hallmark report` takes them.
const STATEMENTS: &str = "statements.json";

/// A funded channel whose vouchers a session key signs.
pub(super) struct Customer {
    channel: Channel,
    id: ChannelId,
    to: Deployment,
    pub(super) deposit: Amount,
}

impl Customer {
    /// Deposits, and lets a session key spend a part of it.
    pub(super) async fn open(chain: &mut Chain) -> anyhow::Result<Self> {
        let to = chain.deployment().clone();
        let channel = Channel {
            payer: PAYER.address,
            host: HOST.address,
            token: chain.token.address,
            withdraw_delay: Seconds::new(2 * SETUP.claim_interval_s),
            salt: B256::ZERO,
        };
        let deposit = chain.token.amount("20")?;
        chain.allow(&PAYER, to.payment_escrow, deposit).await?;
        chain.send(&PAYER, &payments::deposit(&to, &channel, deposit)?).await?;
        let escrow = Domain::new(ChainId::new(to.chain_id), to.payment_escrow);
        let id = channel.digest(&escrow);
        let grant = SessionGrant {
            channel: id,
            key: SESSION_KEY.address,
            cap: chain.token.amount("5")?,
            per_request_cap: chain.token.amount("0.1")?,
            expires_at: in_a_day(chain).await?,
            nonce: 1,
        };
        let signed = Signed::sign(grant, &escrow, &key(&PAYER.key)?);
        chain.send(&PAYER, &payments::grant(&to, &channel, &signed.message, &signed.signature)?).await?;
        Ok(Self { channel, id, to, deposit })
    }

    /// Asks the host, and has it state each request.
    pub(super) async fn ask(
        &self,
        url: &Url,
        kind: EndpointKind,
        lease: &Lease,
        step: &mut crate::progress::Step,
    ) -> anyhow::Result<Vec<Signed<Statement>>> {
        let mut client = Client::new(ClientOptions::new(url.clone()), Arc::new(SystemClock))?;
        let shape = RequestShape { kind, model: "model".to_owned(), system: None, max_tokens: MAX_TOKENS };
        let manager = Domain::new(ChainId::new(self.to.chain_id), self.to.lease_manager);
        let lease_key = key(&LEASE_KEY.key)?;
        let mut statements: Vec<Signed<Statement>> = Vec::new();
        for (asked, question) in QUESTIONS.iter().enumerate() {
            let exchange = client.ask(&shape, question, Confidentiality::Public).await;
            exchange.reply.context("the host did not answer the customer")?;
            let answer: Value = serde_json::from_str(&exchange.response).context("the host's answer is not JSON")?;
            let last = statements.last();
            let before = last.map_or(UsageCounts::ZERO, |signed| signed.message.step.after());
            let step_on_lane = LaneStep::new(before, usage(&answer).context("the host's answer has no usage")?)?;
            let statement = Statement {
                channel: Some(self.id),
                lease: lease.lease,
                lane: LANE,
                step: step_on_lane,
                charge: lease.prices.charge(before, step_on_lane.after())?,
                request_hash: keccak256(&exchange.request),
                response_hash: keccak256(&exchange.response),
                started: UnixMilliseconds::new(exchange.started.get()),
                ended: UnixMilliseconds::new(exchange.finished.get()),
                finish_reason: finish_reason(&answer),
                execution: None,
                previous: last.map(|signed| signed.message.digest(&manager)),
            };
            statements.push(Signed::sign(statement, &manager, &lease_key));
            step.at(asked + 1, QUESTIONS.len(), "questions");
        }
        Ok(statements)
    }

    /// Signs for everything but the last request, and promises to pay for that one up to a ceiling.
    async fn voucher(
        &self,
        chain: &Chain,
        lease: &Lease,
        statements: &[Signed<Statement>],
    ) -> anyhow::Result<payments::Claim> {
        let (last, accepted) = statements.split_last().context("the customer asked nothing")?;
        let counts = accepted.last().map_or(UsageCounts::ZERO, |signed| signed.message.step.after());
        let voucher = Voucher {
            channel: self.id,
            lease: lease.lease,
            lane: LANE,
            counts,
            ceiling: chain.token.amount("0.02")?,
            statements_head: last.message.previous,
            expires_at: in_a_day(chain).await?,
        };
        let escrow = Domain::new(ChainId::new(self.to.chain_id), self.to.payment_escrow);
        Ok(payments::Claim {
            channel: self.channel.clone(),
            voucher: Signed::sign(voucher, &escrow, &key(&SESSION_KEY.key)?),
            in_flight: Some(last.clone()),
        })
    }

    /// Reports the use and claims the payment, trying three times to get it in another way first and after.
    pub(super) async fn settle(
        &self,
        chain: &mut Chain,
        licence: &Licence,
        lease: &Lease,
        statements: &[Signed<Statement>],
        folder: &Folder,
    ) -> anyhow::Result<PaymentRecord> {
        let claims = [self.voucher(chain, lease, statements).await?];
        folder.write(VOUCHERS, serde_json::to_string_pretty(&claims)?.as_bytes())?;
        folder.write(STATEMENTS, serde_json::to_string_pretty(statements)?.as_bytes())?;
        let claim = payments::claim(&self.to, lease.lease, &licence.splits, &claims)?;
        let mut attempts = Vec::new();
        attempts.push(attempt(chain, "before the use was reported", &claim).await?);
        self.report(chain, lease, statements).await?;
        let without = payments::claim(&self.to, lease.lease, &Splits::new(Vec::new())?, &claims)?;
        attempts.push(attempt(chain, "without the contributor's share", &without).await?);
        let receipt = chain.send(&HOST, &claim).await?;
        attempts.push(attempt(chain, "a second time", &claim).await?);

        let shares = self.shares(chain).await?;
        let paid = Amount::new(shares.iter().map(|share| share.units.get()).sum());
        for account in [CREATOR, HOST, CONTRIBUTOR] {
            chain.send(&account, &payments::pay_out(&self.to, chain.token.address, account.address)).await?;
        }
        let counts = statements.last().map_or(UsageCounts::ZERO, |signed| signed.message.step.after());
        Ok(PaymentRecord {
            requests: counts.requests(),
            prompt_tokens: counts.prompt().get(),
            cached_tokens: counts.cached().get(),
            completion_tokens: counts.completion().get(),
            deposit: chain.token.show(self.deposit),
            paid: chain.token.show(paid),
            shares: shares
                .into_iter()
                .map(|share| ShareRecord {
                    who: share.who.to_owned(),
                    account: share.account,
                    amount: chain.token.show(share.units),
                    part: ratio(share.units, paid),
                })
                .collect(),
            claim_gas: receipt.gas_used,
            refused: attempts,
        })
    }

    /// Reports every epoch in which a request ended, once it is over.
    async fn report(&self, chain: &mut Chain, lease: &Lease, statements: &[Signed<Statement>]) -> anyhow::Result<()> {
        let statements: Vec<Statement> = statements.iter().map(|signed| signed.message.clone()).collect();
        let epoch_length = Seconds::new(SETUP.epoch_s);
        chain.wait_s(SETUP.epoch_s).await?;
        for report in usage::reports(&self.to, lease.lease, epoch_length, None, &statements)? {
            chain.send(&HOST, &usage::report(&self.to, &report)?).await?;
        }
        Ok(())
    }

    /// What the escrow holds for each of those whom the claim paid.
    async fn shares(&self, chain: &Chain) -> anyhow::Result<Vec<Share>> {
        let of = [
            ("host", HOST.address),
            ("creator", CREATOR.address),
            ("contributor", CONTRIBUTOR.address),
            ("validators", self.to.audit_service_manager),
        ];
        let mut shares = Vec::new();
        for (who, account) in of {
            let call = PaymentEscrow::balanceCall { token: chain.token.address, account };
            let held = chain.client().call(self.to.payment_escrow, &call).await?;
            shares.push(Share { who, account, units: Amount::new(held.saturating_to()) });
        }
        Ok(shares)
    }
}

struct Share {
    who: &'static str,
    account: Address,
    units: Amount,
}

async fn attempt(
    chain: &mut Chain,
    attempted: &str,
    claim: &licensing_contracts::client::Action,
) -> anyhow::Result<AttemptRecord> {
    let error = chain.refused(&HOST, claim).await.with_context(|| format!("a claim {attempted}"))?;
    Ok(AttemptRecord { attempted: attempted.to_owned(), error })
}

fn ratio(part: Amount, whole: Amount) -> f64 {
    if whole == Amount::ZERO { 0.0 } else { part.get() as f64 / whole.get() as f64 }
}

fn key(bytes: &B256) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_bytes(&bytes.0)?)
}

async fn in_a_day(chain: &Chain) -> anyhow::Result<protocol::units::UnixSeconds> {
    chain.now().await?.checked_add(Seconds::new(86_400)).context("the chain's clock is at its end")
}

/// What an OpenAI-compatible server says that a request used.
fn usage(answer: &Value) -> Option<RequestUsage> {
    let usage = answer.get("usage")?;
    let count = |name: &str| usage.get(name)?.as_u64();
    let cached = usage.pointer("/prompt_tokens_details/cached_tokens").and_then(Value::as_u64).unwrap_or(0);
    RequestUsage::new(count("prompt_tokens")?, cached, count("completion_tokens")?).ok()
}

fn finish_reason(answer: &Value) -> FinishReason {
    match answer.pointer("/choices/0/finish_reason").and_then(Value::as_str) {
        Some("length") => FinishReason::Length,
        _ => FinishReason::Stop,
    }
}
