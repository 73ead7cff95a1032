//! A customer who pays by the request, as a gateway does for an app: a voucher before each request, a statement after it.
//!
//! The host reports and claims by itself. What the demo adds is to let time pass, and to try to be paid otherwise.

use std::time::Duration;

use alloy::{
    primitives::{Address, B256},
    providers::Provider as _,
    rpc::types::{Filter, TransactionReceipt},
    sol_types::SolEvent as _,
};
use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fingerprint::prove::EndpointKind;
use licensing_contracts::{actions::payments, bindings::PaymentEscrow, deployment::Deployment};
use protocol::{
    counts::UsageCounts,
    ids::{ChainId, ChannelId, Lane, StatementDigest},
    messages::{Channel, Domain, Message as _, SessionGrant, Signed, Statement, Voucher},
    signature::SigningKey,
    splits::Splits,
    units::{Amount, BasisPoints, Seconds},
};
use serde_json::{Value, json};
use url::Url;

use super::{
    chain::{CONTRIBUTOR, CREATOR, Chain, HOST, LEASE_KEY, PAYER, SESSION_KEY, SETUP},
    folder::Folder,
    host,
    licence::{CONTRIBUTOR_BP, Lease, Licence},
    record::{AttemptRecord, PaymentRecord, ShareRecord},
};

/// What the customer asks. The last one is in flight when the customer goes away: its voucher accepts all others, and the
/// host claims it with its own statement.
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
/// The most that one request may cost, in the smallest unit: 0.02 tokens.
const CEILING: u128 = 20_000;
/// Claims as `hallmark claim` takes them.
pub(super) const VOUCHERS: &str = "vouchers.json";
/// Statements as `hallmark report` takes them.
const STATEMENTS: &str = "statements.json";

/// How long the host may take to settle when an epoch is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// A funded channel whose vouchers a session key signs, and one lane of it.
pub(super) struct Customer {
    channel: Channel,
    id: ChannelId,
    to: Deployment,
    lease: Lease,
    pub(super) deposit: Amount,
    counts: UsageCounts,
    head: Option<StatementDigest>,
    vouchers: Vec<Signed<Voucher>>,
    statements: Vec<Signed<Statement>>,
}

impl Customer {
    /// Deposits, and lets a session key spend a part of it.
    pub(super) async fn open(chain: &mut Chain, lease: &Lease) -> anyhow::Result<Self> {
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
        let (vouchers, statements) = (Vec::new(), Vec::new());
        Ok(Self {
            channel,
            id,
            to,
            lease: *lease,
            deposit,
            counts: UsageCounts::ZERO,
            head: None,
            vouchers,
            statements,
        })
    }

    pub(super) fn requests(&self) -> usize {
        self.statements.len()
    }

    /// Asks the host, paying for each request and checking each bill.
    pub(super) async fn ask(
        &mut self,
        url: &Url,
        kind: EndpointKind,
        step: &mut crate::progress::Step,
    ) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build().context("failed to make an HTTP client")?;
        for (asked, question) in QUESTIONS.iter().enumerate() {
            let (path, body) = match kind {
                EndpointKind::Chat => {
                    ("chat/completions", json!({ "messages": [{ "role": "user", "content": question }] }))
                }
                EndpointKind::Completion => ("completions", json!({ "prompt": question })),
            };
            let mut body = body;
            body["model"] = host::MODEL.into();
            body["max_tokens"] = MAX_TOKENS.into();
            let voucher = self.voucher()?;
            let header = json!({ "channel": self.channel, "voucher": voucher }).to_string();
            let request = client.post(format!("{url}/{path}")).header("hallmark-voucher", STANDARD.encode(header));
            let response = request.json(&body).send().await.context("the host did not answer the customer")?;
            let answer: Value = response.json().await.context("the host's answer is not JSON")?;
            let statement = answer.pointer("/hallmark/statement").cloned();
            let statement = statement.with_context(|| format!("the host's answer has no statement: {answer}"))?;
            self.vouchers.push(voucher);
            self.accept(serde_json::from_value(statement).context("the host's statement cannot be read")?)?;
            step.at(asked + 1, QUESTIONS.len(), "questions");
        }
        Ok(())
    }

    /// Promises to pay for what was stated so far, and for one more request up to a ceiling.
    fn voucher(&self) -> anyhow::Result<Signed<Voucher>> {
        let expires_at = host::now().second_down().checked_add(Seconds::new(86_400));
        let voucher = Voucher {
            channel: self.id,
            lease: self.lease.lease,
            lane: LANE,
            counts: self.counts,
            ceiling: Amount::new(CEILING),
            statements_head: self.head,
            expires_at: expires_at.context("the clock is at its end")?,
        };
        let escrow = Domain::new(ChainId::new(self.to.chain_id), self.to.payment_escrow);
        Ok(Signed::sign(voucher, &escrow, &key(&SESSION_KEY.key)?))
    }

    /// Takes a statement that is signed by the lease's key, follows the last one, and charges what the lease's prices give.
    fn accept(&mut self, statement: Signed<Statement>) -> anyhow::Result<()> {
        let manager = Domain::new(ChainId::new(self.to.chain_id), self.to.lease_manager);
        statement.verify(&manager, LEASE_KEY.address).context("the statement is not signed by the lease's key")?;
        let Statement { step, charge, previous, .. } = &statement.message;
        ensure!(step.before() == self.counts && *previous == self.head, "the statement does not follow the last one");
        ensure!(*charge == self.lease.prices.charge(step.before(), step.after())?, "the statement charges too much");
        self.counts = step.after();
        self.head = Some(statement.message.digest(&manager));
        self.statements.push(statement);
        Ok(())
    }

    /// Has time pass until the host reports and claims, trying to get the money in another way first and after.
    pub(super) async fn settle(
        &mut self,
        chain: &mut Chain,
        licence: &Licence,
        folder: &Folder,
    ) -> anyhow::Result<PaymentRecord> {
        let last = self.vouchers.last().zip(self.statements.last()).context("the customer asked nothing")?;
        let claims = [payments::Claim {
            channel: self.channel.clone(),
            voucher: last.0.clone(),
            in_flight: Some(last.1.clone()),
        }];
        folder.write(VOUCHERS, serde_json::to_string_pretty(&claims)?.as_bytes())?;
        folder.write(STATEMENTS, serde_json::to_string_pretty(&self.statements)?.as_bytes())?;
        let claim = payments::claim(&self.to, self.lease.lease, &licence.splits, &claims)?;
        let without = payments::claim(&self.to, self.lease.lease, &Splits::default(), &claims)?;
        let mut attempts = vec![
            attempt(chain, "before the use was reported", &claim).await?,
            attempt(chain, "without the contributor's share", &without).await?,
        ];
        chain.wait_s(SETUP.epoch_s).await?;
        host::advance_s(SETUP.epoch_s);
        let receipt = self.claimed(chain).await?;
        attempts.push(attempt(chain, "a second time", &claim).await?);

        let shares = self.shares(&receipt)?;
        let paid = Amount::new(shares.iter().map(|share| share.units.get()).sum());
        for account in [CREATOR, HOST, CONTRIBUTOR] {
            chain.send(&PAYER, &payments::pay_out(&self.to, chain.token.address, account.address)).await?;
        }
        let counts = self.counts;
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

    /// Waits for the host's claim.
    async fn claimed(&self, chain: &Chain) -> anyhow::Result<TransactionReceipt> {
        let filter = Filter::new()
            .address(self.to.payment_escrow)
            .event_signature(PaymentEscrow::Claimed::SIGNATURE_HASH)
            .topic1(self.id.word())
            .from_block(self.to.block);
        let client = chain.client();
        let claim = async {
            loop {
                let logs = client.provider().get_logs(&filter).await.context("failed to look for the claim")?;
                if let Some(hash) = logs.first().and_then(|log| log.transaction_hash) {
                    let receipt = client.provider().get_transaction_receipt(hash).await;
                    return receipt.context("failed to read the claim")?.context("the claim has no receipt");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, claim).await.context("the host did not claim what it is owed")?
    }

    /// Who got how much of the claim.
    fn shares(&self, receipt: &TransactionReceipt) -> anyhow::Result<Vec<Share>> {
        let claimed = payments::claimed(&self.to, receipt);
        let event = claimed.first().context("the claim paid nothing")?;
        let (cost, royalty, validators): (u128, u128, u128) =
            (event.cost.saturating_to(), event.royalty.saturating_to(), event.validatorShare.saturating_to());
        let contributor = BasisPoints::new(CONTRIBUTOR_BP)?.share_down(Amount::new(royalty)).get();
        let share = |who, account, units| Share { who, account, units: Amount::new(units) };
        Ok(vec![
            share("host", HOST.address, cost.saturating_sub(royalty).saturating_sub(validators)),
            share("creator", CREATOR.address, royalty.saturating_sub(contributor)),
            share("contributor", CONTRIBUTOR.address, contributor),
            share("validators", self.to.audit_service_manager, validators),
        ])
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
