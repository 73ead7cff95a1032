//! `hallmark status`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use alloy::primitives::Address;
use clap::Args;
use licensing_contracts::{
    actions::{Erc20, registry},
    bindings::{AuditServiceManager, LeaseManager, ModelRegistry, PaymentEscrow, UsageLog},
    client::ChainClient,
    deployment::Deployment,
};
use protocol::{
    ids::{LeaseId, ModelId},
    units::Amount,
};
use serde_json::{Map, Value, json};

use super::{
    ChainArguments, Token,
    deposit::{channel_id, read_channel},
    lease::lease_id,
};
use crate::{clock, context::Context, output};

/// What the chain says of an account, a model, a lease or a channel
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark status
  hallmark status --lease 1 --channel channel.json --account 0x…")]
pub(crate) struct Status {
    /// An account: its balances
    #[arg(long, value_name = "ADDRESS")]
    account: Option<Address>,

    /// Payment token of the account's balances [default: the development chain's test token]
    #[arg(long, env = "HALLMARK_PAYMENT_TOKEN", value_name = "ADDRESS")]
    payment_token: Option<Address>,

    /// A model
    #[arg(long, env = "HALLMARK_MODEL_ID", value_name = "0xHEX")]
    model_id: Option<ModelId>,

    /// A lease
    #[arg(long, env = "HALLMARK_LEASE", value_name = "NUMBER", value_parser = lease_id)]
    lease: Option<LeaseId>,

    /// A channel
    #[arg(long, value_name = "FILE")]
    channel: Option<PathBuf>,

    #[command(flatten)]
    chain: ChainArguments,
}

/// What is shown: rows for people, fields for programs.
#[derive(Default)]
struct Found {
    rows: Vec<(&'static str, String)>,
    object: Map<String, Value>,
}

pub(crate) async fn run(arguments: Status, context: &Context) -> anyhow::Result<ExitCode> {
    let (client, to) = arguments.chain.connect().await?;
    let head = client.head().await?;
    let mut found = Found::default();
    found.rows.push(("chain", format!("{}, block {}, {}", to.chain_id, head.number, time(head.timestamp_s))));
    found.object.insert("chain".to_owned(), json!({ "id": to.chain_id, "block": head.number, "hash": head.hash }));
    if let Some(account) = arguments.account {
        found.account(&client, &to, account, arguments.payment_token).await?;
    }
    if let Some(model) = arguments.model_id {
        found.model(&client, &to, model).await?;
    }
    if let Some(lease) = arguments.lease {
        found.lease(&client, &to, lease).await?;
    }
    if let Some(file) = &arguments.channel {
        found.channel(&client, &to, file).await?;
    }
    context.output.finish(&output::rows(&found.rows), &found.object)?;
    Ok(ExitCode::SUCCESS)
}

impl Found {
    async fn account(
        &mut self,
        client: &ChainClient,
        to: &Deployment,
        account: Address,
        payment_token: Option<Address>,
    ) -> anyhow::Result<()> {
        let mut object = Map::new();
        self.rows.push(("account", account.to_string()));
        object.insert("address".to_owned(), json!(account));
        // Who asks for the stake alone need not know a token.
        if payment_token.or(to.test_token).is_some() {
            let token = Token::find(client, to, payment_token).await?;
            let holds = client.call(token.address, &Erc20::balanceOfCall { account }).await?;
            let owed = PaymentEscrow::balanceCall { token: token.address, account };
            let owed = client.call(to.payment_escrow, &owed).await?;
            self.rows.push(("  holds", token.show(Amount::new(holds.saturating_to()))));
            self.rows.push(("  in the escrow", token.show(Amount::new(owed.saturating_to()))));
            object.insert("holds".to_owned(), json!(holds.to_string()));
            object.insert("escrow".to_owned(), json!(owed.to_string()));
        }
        let host =
            client.call(to.audit_service_manager, &AuditServiceManager::isHostCall { operator: account }).await?;
        let stake = AuditServiceManager::hostStakeCall { operator: account };
        let stake = client.call(to.audit_service_manager, &stake).await?;
        self.rows.push(("  host", if host { format!("yes, {stake} slashable") } else { "no".to_owned() }));
        object.insert("is_host".to_owned(), json!(host));
        object.insert("slashable_stake".to_owned(), json!(stake.to_string()));
        self.object.insert("account".to_owned(), Value::Object(object));
        Ok(())
    }

    async fn model(&mut self, client: &ChainClient, to: &Deployment, id: ModelId) -> anyhow::Result<()> {
        let number = registry::number(id);
        let creator = client.call(to.model_registry, &ModelRegistry::creatorOfCall { modelId: number }).await?;
        let model = client.call(to.model_registry, &ModelRegistry::modelCall { modelId: number }).await?;
        let roots = client.call(to.model_registry, &ModelRegistry::commitmentsCall(number)).await?;
        self.rows.push(("model", id.to_string()));
        self.rows.push(("  creator", creator.to_string()));
        self.rows.push(("  manifest", format!("{} (version {})", model.manifestDigest, model.manifestVersion)));
        self.rows.push(("  terms", format!("version {}", model.termsVersion)));
        self.rows.push(("  fingerprint roots", roots.to_string()));
        let object = json!({
            "id": id,
            "creator": creator,
            "manifest": model.manifestDigest,
            "terms_version": model.termsVersion,
            "fingerprint_roots": roots.to_string(),
            "challenged": model.openChallenges != 0,
        });
        self.object.insert("model".to_owned(), object);
        Ok(())
    }

    async fn lease(&mut self, client: &ChainClient, to: &Deployment, id: LeaseId) -> anyhow::Result<()> {
        let number = id.get();
        let lease = client.call(to.lease_manager, &LeaseManager::leaseCall { leaseId: number }).await?;
        let account = client.call(to.lease_manager, &LeaseManager::accountCall { leaseId: number }).await?;
        let active = client.call(to.lease_manager, &LeaseManager::isActiveCall { leaseId: number }).await?;
        let reports = client.call(to.usage_log, &UsageLog::reportsCall { leaseId: number }).await?;
        let settled = client.call(to.payment_escrow, &PaymentEscrow::settledCall { leaseId: number }).await?;
        let token = Token::find(client, to, Some(account.token)).await?;
        self.rows.push(("lease", format!("{id}{}", if active { "" } else { ", not active" })));
        self.rows.push(("  host", lease.host.to_string()));
        self.rows.push(("  terms", lease.termsId.to_string()));
        self.rows.push(("  runs", format!("{} to {}", time(lease.from), time(lease.to))));
        self.rows.push(("  bond", token.show(Amount::new(lease.bond))));
        self.rows.push(("  reports", reports.to_string()));
        self.rows.push((
            "  paid for",
            format!("{} requests, {}", settled.requests, token.show(Amount::new(settled.charge))),
        ));
        let object = json!({
            "id": id,
            "active": active,
            "host": lease.host,
            "terms": lease.termsId,
            "from": lease.from,
            "to": lease.to,
            "bond": lease.bond.to_string(),
            "reports": reports.to_string(),
            "settled_requests": settled.requests,
            "settled_charge": settled.charge.to_string(),
        });
        self.object.insert("lease".to_owned(), object);
        Ok(())
    }

    async fn channel(&mut self, client: &ChainClient, to: &Deployment, file: &std::path::Path) -> anyhow::Result<()> {
        let channel = read_channel(file)?;
        let id = channel_id(to, &channel);
        let state = client.call(to.payment_escrow, &PaymentEscrow::channelStateCall { id: id.word() }).await?;
        let token = Token::find(client, to, Some(channel.token)).await?;
        let left = state.deposited.saturating_sub(state.spent);
        self.rows.push(("channel", id.to_string()));
        self.rows.push(("  host", channel.host.to_string()));
        self.rows.push(("  left", token.show(Amount::new(left))));
        self.rows.push(("  spent", token.show(Amount::new(state.spent))));
        if state.withdrawableAt != 0 {
            let announced = token.show(Amount::new(state.withdrawal));
            self.rows.push(("  announced", format!("{announced}, free from {}", time(state.withdrawableAt))));
        }
        let object = json!({
            "id": id,
            "channel": channel,
            "left": left.to_string(),
            "spent": state.spent.to_string(),
            "announced": state.withdrawal.to_string(),
            "withdrawable_at": state.withdrawableAt,
        });
        self.object.insert("channel".to_owned(), object);
        Ok(())
    }
}

/// A point in time as people read it.
pub(crate) fn time(seconds: u64) -> String {
    format!("{} UTC", clock::date_and_time(Duration::from_secs(seconds)))
}
