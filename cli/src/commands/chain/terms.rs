//! `hallmark terms publish | close`

use std::process::ExitCode;

use alloy::primitives::{Address, B256, keccak256};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use licensing_contracts::{actions::registry, bindings::ModelRegistry};
use model::Model;
use protocol::{
    ids::{ModelId, TemplateDigest, TermsId, TermsVersion, TokenizerDigest},
    messages::LicenseTerms,
    money::Prices,
    splits::{Split, Splits},
    units::{BasisPoints, PricePerMillion, Seconds, StakeWeight, UnixSeconds},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{SendArguments, Session, Token, duration, register::identity};
use crate::{context::Context, failure::Advise as _};

/// Publish and close licences of a model
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Publish(Box<Publish>),
    Close(Close),
}

/// Publish the next version of a model's licence
///
/// It cannot be changed afterwards: hosts that open leases under it rely on it. Prices are in whole tokens per million.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark terms publish --model-id 0x… --model ./my-model --royalty 1000 --floor-prompt 0.02 --floor-completion 0.06 --min-bond 50")]
pub(crate) struct Publish {
    /// The model
    #[arg(long, env = "HALLMARK_MODEL_ID", value_name = "0xHEX")]
    model_id: ModelId,

    /// Its weights, whose tokenizer and template the terms name: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", required_unless_present = "tokenizer")]
    model: Option<String>,

    #[command(flatten)]
    terms: TermsArguments,

    #[command(flatten)]
    send: SendArguments,
}

/// Take no new leases under terms; those that run go on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark terms close --terms-id 0x…")]
pub(crate) struct Close {
    /// The terms
    #[arg(long, env = "HALLMARK_TERMS_ID", value_name = "0xHEX")]
    terms_id: TermsId,

    #[command(flatten)]
    send: SendArguments,
}

/// What a licence says.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Terms")]
pub(crate) struct TermsArguments {
    /// Payment token [default: the development chain's test token]
    #[arg(long, env = "HALLMARK_PAYMENT_TOKEN", value_name = "ADDRESS")]
    payment_token: Option<Address>,

    /// Royalty of what a claim pays, in basis points
    #[arg(long, value_name = "BP", default_value = "1000", value_parser = basis_points)]
    royalty: BasisPoints,

    /// Least royalty per million requests, in tokens
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    floor_request: String,

    /// Least royalty per million prompt tokens
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    floor_prompt: String,

    /// Least royalty per million cached prompt tokens
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    floor_cached: String,

    /// Least royalty per million completion tokens
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    floor_completion: String,

    /// Validators' share of what a claim pays, in basis points
    #[arg(long, value_name = "BP", default_value = "100", value_parser = basis_points)]
    validators: BasisPoints,

    /// Someone who shares the royalty, and how much of it, in basis points; may be repeated
    #[arg(long = "split", value_name = "ADDRESS=BP", value_parser = split)]
    splits: Vec<Split>,

    /// Least bond of a lease
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    min_bond: String,

    /// Least restaked allocation of a host, in the smallest unit of the strategies' tokens
    #[arg(long, value_name = "SHARES", default_value_t = 0)]
    min_restake: u128,

    /// How long leases can run from now
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration)]
    valid_for: Seconds,

    /// How long reported use may stay unpaid
    #[arg(long, value_name = "TIME", default_value = "3d", value_parser = duration)]
    dispute_window: Seconds,

    /// Digest of the tokenizer that bills are counted with [default: that of --model]
    #[arg(long, value_name = "0xHEX")]
    tokenizer: Option<TokenizerDigest>,

    /// Digest of the chat template, keccak256 over its text [default: that of --model, or none]
    #[arg(long, value_name = "0xHEX")]
    template: Option<TemplateDigest>,

    /// Digest of the licence's legal text
    #[arg(long, value_name = "0xHEX", default_value_t = B256::ZERO)]
    legal_text: B256,
}

/// What makes tokens of a chat: bills are counted with both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rendering {
    pub(crate) tokenizer: TokenizerDigest,
    /// Zero for a model without one.
    pub(crate) template: TemplateDigest,
}

impl Rendering {
    pub(crate) fn of(model: &Model) -> Self {
        let template = model.chat.as_ref().map_or(B256::ZERO, |chat| keccak256(chat.source()));
        Self { tokenizer: model.tokenizer.digest(), template: template.into() }
    }
}

/// Terms on the chain.
pub(crate) struct Published {
    id: Option<TermsId>,
    terms: LicenseTerms,
    splits: Splits,
}

impl Published {
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("terms version", self.terms.version.to_string())];
        rows.extend(self.id.map(|id| ("terms", id.to_string())));
        rows
    }

    pub(crate) fn object(&self) -> Value {
        json!({ "id": self.id, "terms": self.terms, "splits": self.splits })
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Publish(arguments) => {
            let Publish { model_id, model, terms, send } = *arguments;
            let rendering = match model {
                Some(reference) => identity(Some(reference), None, context).await?.1,
                None => None,
            };
            let mut session = send.open("terms publish", &(model_id, &terms)).await?;
            let call = ModelRegistry::modelCall { modelId: registry::number(model_id) };
            let model = session.client().call(session.deployment.model_registry, &call).await?;
            let version = model.termsVersion.saturating_add(1);
            let published = publish(&mut session, model_id, version, &terms, rendering).await?;
            session.finish(context, &published.rows(), published.object())?;
        }
        Command::Close(Close { terms_id, send }) => {
            let mut session = send.open("terms close", &terms_id).await?;
            let action = registry::close_terms(&session.deployment, terms_id);
            session.act(&action).await?;
            session.finish(context, &[("terms", terms_id.to_string())], json!({ "terms": terms_id }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Publishes terms of a model. `rendering` is the model's, where it is known.
pub(crate) async fn publish(
    session: &mut Session,
    model: ModelId,
    version: u32,
    arguments: &TermsArguments,
    rendering: Option<Rendering>,
) -> anyhow::Result<Published> {
    let tokenizer = arguments.tokenizer.or(rendering.map(|rendering| rendering.tokenizer));
    let tokenizer = tokenizer
        .context("terms name the tokenizer that bills are counted with")
        .advise("name the model with --model, or the tokenizer's digest with --tokenizer")?;
    let template = arguments.template.or(rendering.map(|rendering| rendering.template));
    let token = Token::find(session.client(), &session.deployment, arguments.payment_token).await?;
    let now = session.client().head().await?.timestamp_s;
    let price = |text: &str| anyhow::Ok(PricePerMillion::new(token.amount(text)?.get()));
    let splits = Splits::new(arguments.splits.clone())?;
    let from = UnixSeconds::new(now);
    let terms = LicenseTerms {
        model,
        version: TermsVersion::new(version),
        payment_token: token.address,
        royalty: arguments.royalty,
        floors: Prices {
            request: price(&arguments.floor_request)?,
            prompt: price(&arguments.floor_prompt)?,
            cached: price(&arguments.floor_cached)?,
            completion: price(&arguments.floor_completion)?,
        },
        validators: arguments.validators,
        splits: splits.root(),
        min_bond: token.amount(&arguments.min_bond)?,
        min_restake: StakeWeight::new(arguments.min_restake),
        valid_from: from,
        valid_to: from.checked_add(arguments.valid_for).context("--valid-for is longer than time lasts")?,
        dispute_window: arguments.dispute_window,
        tokenizer,
        template: template.unwrap_or_else(|| B256::ZERO.into()),
        legal_text: arguments.legal_text.into(),
    };
    // What the contract checks, said before anything is sent.
    terms.shares()?;
    let action = registry::publish_terms(&session.deployment, &terms, &splits)?;
    let receipt = session.act(&action).await?;
    let id = receipt.as_ref().and_then(|receipt| registry::published(&session.deployment, receipt));
    // Of a run that was cut off, the terms are those that were published then: they begin a little earlier.
    let terms = match id {
        Some(id) => registry::terms(session.client(), &session.deployment, id).await?,
        None => terms,
    };
    Ok(Published { id, terms, splits })
}

pub(crate) fn basis_points(text: &str) -> Result<BasisPoints, String> {
    let wrong = || "give a whole number from 0 to 10000: 100 is one percent".to_owned();
    text.parse().map_err(|_| wrong()).and_then(|value| BasisPoints::new(value).map_err(|_| wrong()))
}

pub(crate) fn split(text: &str) -> Result<Split, String> {
    let wrong = || "give an address and a share in basis points: 0x…=2500".to_owned();
    let (recipient, share) = text.split_once('=').ok_or_else(wrong)?;
    Ok(Split { recipient: recipient.parse().map_err(|_| wrong())?, share: basis_points(share)? })
}
