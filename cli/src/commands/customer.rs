//! `hallmark customer add | list | set | revoke`

use std::{fmt::Display, num::NonZeroU64, process::ExitCode, str::FromStr};

use alloy::primitives::{Address, hex};
use anyhow::Context as _;
use clap::{ArgGroup, Args, Subcommand};
use protocol::units::{Amount, UnixSeconds};
use rand::{TryRngCore as _, rngs::OsRng};
use serde_json::{Value, json};
use serving::books::{Books, Customer, CustomerId, Limit, NewCustomer, NewLimits};

use super::chain::{ChainArguments, Token, status::time};
use crate::{clock, context::Context, failure::Advise as _, output};

/// Keep the customers of a metered host who pay in money
///
/// They show an API key where others show a voucher. What they use goes into the same statements and reports, and the host pays
/// the creator's royalty on it from its own tokens. A running host learns of changes at the customer's next request.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  hallmark customer add acme --budget 50 --requests-per-minute 60
  hallmark customer list
  hallmark customer set acme --budget 80
  hallmark customer revoke acme")]
pub(crate) enum Command {
    Add(Add),
    List(List),
    Set(Set),
    Revoke(Revoke),
}

/// Which books.
#[derive(Debug, Clone, Args)]
struct BooksArgument {
    /// The host's books: sqlite:FILE or postgres://…
    #[arg(
        long,
        env = "HALLMARK_BOOKS",
        hide_env_values = true,
        value_name = "URL",
        default_value = "sqlite:hallmark-host/books.sqlite"
    )]
    books: String,
}

/// Whose tokens budgets are in.
#[derive(Debug, Clone, Args)]
struct TokenArguments {
    #[command(flatten)]
    chain: ChainArguments,

    /// Payment token of the host's leases [default: the development chain's test token]
    #[arg(long, env = "HALLMARK_PAYMENT_TOKEN", value_name = "ADDRESS")]
    payment_token: Option<Address>,
}

impl TokenArguments {
    async fn token(&self) -> anyhow::Result<Token> {
        let (client, to) = self.chain.connect().await?;
        Token::find(&client, &to, self.payment_token).await
    }
}

/// Add a customer and make its API key, which is shown once
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark customer add acme --budget 50 --requests-per-minute 60")]
pub(crate) struct Add {
    /// The customer's name: letters, digits, `-`, `_` and `.`
    #[arg(value_name = "NAME", value_parser = customer_id)]
    customer: CustomerId,

    /// The most that the customer may be charged in all, in tokens [default: no limit]
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<String>,

    /// The most requests in a minute [default: no limit]
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<NonZeroU64>,

    #[command(flatten)]
    books: BooksArgument,

    #[command(flatten)]
    token: TokenArguments,
}

/// List the customers with what they were charged
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark customer list")]
pub(crate) struct List {
    #[command(flatten)]
    books: BooksArgument,

    #[command(flatten)]
    token: TokenArguments,
}

/// Change a customer's limits
///
/// A limit that is not named stays as it is. A budget counts from the customer's first request on: one that is lower than what was
/// charged admits nothing more.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("limits").args(["budget", "requests_per_minute"]).required(true).multiple(true),
    after_help = "Examples:
  hallmark customer set acme --budget 80
  hallmark customer set acme --budget none --requests-per-minute 120"
)]
pub(crate) struct Set {
    /// The customer
    #[arg(value_name = "NAME", value_parser = customer_id)]
    customer: CustomerId,

    /// The most that the customer may be charged in all, in tokens, or `none` for no limit
    #[arg(long, value_name = "AMOUNT", value_parser = limit::<String>)]
    budget: Option<Limit<String>>,

    /// The most requests in a minute, or `none` for no limit
    #[arg(long, value_name = "COUNT", value_parser = limit::<NonZeroU64>)]
    requests_per_minute: Option<Limit<NonZeroU64>>,

    #[command(flatten)]
    books: BooksArgument,

    #[command(flatten)]
    token: TokenArguments,
}

/// Refuse a customer's API key from now on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark customer revoke acme")]
pub(crate) struct Revoke {
    /// The customer
    #[arg(value_name = "NAME", value_parser = customer_id)]
    customer: CustomerId,

    #[command(flatten)]
    books: BooksArgument,
}

fn customer_id(text: &str) -> Result<CustomerId, String> {
    CustomerId::new(text).ok_or_else(|| "give 1 to 64 letters, digits, '-', '_' or '.'".to_owned())
}

fn limit<T: FromStr<Err: Display>>(text: &str) -> Result<Limit<T>, String> {
    if text == "none" {
        return Ok(Limit::Lifted);
    }
    text.parse().map(Limit::Most).map_err(|error| format!("{error}; give a number, or `none` for no limit"))
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(arguments) => add(arguments, context).await?,
        Command::List(arguments) => list(arguments, context).await?,
        Command::Set(arguments) => set(arguments, context).await?,
        Command::Revoke(Revoke { customer, books }) => {
            let books = Books::open(&books.books).await?;
            if !books.revoke_customer(&customer, now()).await? {
                return unknown(&customer);
            }
            let words = output::rows(&[("revoked", customer.to_string())]);
            context.output.finish(&words, &json!({ "customer": customer.as_str() }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(arguments: Add, context: &Context) -> anyhow::Result<()> {
    let Add { customer, budget, requests_per_minute, books, token } = arguments;
    let budget = match &budget {
        Some(budget) => Some(token.token().await?.amount(budget)?),
        None => None,
    };
    let books = Books::open(&books.books).await?;
    let mut random = [0; 32];
    OsRng.try_fill_bytes(&mut random).context("failed to read randomness from the operating system")?;
    let key = format!("hmk-{}", hex::encode(random));
    let new = NewCustomer {
        id: customer.clone(),
        key_digest: Books::key_digest(&key),
        budget,
        requests_per_minute: requests_per_minute.map(NonZeroU64::get),
        created_at: now(),
    };
    if !books.add_customer(&new).await? {
        return Err(anyhow::anyhow!("there is a customer {customer} already")).advise("choose another name");
    }
    let words = output::rows(&[
        ("customer", customer.to_string()),
        ("API key", key.clone()),
        ("", "shown this once: only its digest is kept".to_owned()),
    ]);
    context.output.finish(&words, &json!({ "customer": customer.as_str(), "api_key": key }))
}

async fn set(arguments: Set, context: &Context) -> anyhow::Result<()> {
    let Set { customer, budget, requests_per_minute, books, token } = arguments;
    let mut rows = vec![("customer", customer.to_string())];
    let (budget, token) = match budget {
        Some(Limit::Most(budget)) => {
            let token = token.token().await?;
            (Some(Limit::Most(token.amount(&budget)?)), Some(token))
        }
        Some(Limit::Lifted) => (Some(Limit::Lifted), None),
        None => (None, None),
    };
    let requests_per_minute = requests_per_minute.map(|limit| match limit {
        Limit::Most(most) => Limit::Most(most.get()),
        Limit::Lifted => Limit::Lifted,
    });
    let books = Books::open(&books.books).await?;
    let changed = books.limit_customer(&customer, &NewLimits { budget, requests_per_minute }).await?;
    let Some(changed) = changed else { return unknown(&customer) };
    let charged = books.charged(&customer).await?;
    match token {
        Some(token) => rows.push(("charged", charged_of(&changed, charged, &token))),
        None if budget.is_some() => rows.push(("budget", "no limit".to_owned())),
        None => {}
    }
    if changed.budget.is_some_and(|budget| budget <= charged) {
        rows.push(("", "the budget is used up: nothing more is admitted".to_owned()));
    }
    if requests_per_minute.is_some() {
        let most = changed.requests_per_minute.map(|most| format!("{most} requests"));
        rows.push(("a minute", most.unwrap_or_else(|| "no limit".to_owned())));
    }
    context.output.finish(&output::rows(&rows), &object(&changed, charged))
}

fn unknown<T>(customer: &CustomerId) -> anyhow::Result<T> {
    Err(anyhow::anyhow!("{customer} is no customer whose key is good")).advise("`hallmark customer list` shows them")
}

async fn list(List { books, token }: List, context: &Context) -> anyhow::Result<()> {
    let token = token.token().await?;
    let books = Books::open(&books.books).await?;
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for customer in books.customers().await? {
        let charged = books.charged(&customer.id).await?;
        rows.push(("customer", customer.id.to_string()));
        rows.push(("  charged", charged_of(&customer, charged, &token)));
        rows.extend(customer.requests_per_minute.map(|most| ("  a minute", format!("{most} requests"))));
        rows.push(("  since", time(customer.created_at.get())));
        rows.extend(customer.revoked_at.map(|at| ("  revoked", time(at.get()))));
        objects.push(object(&customer, charged));
    }
    if rows.is_empty() {
        rows.push(("customers", "none; `hallmark customer add` makes one".to_owned()));
    }
    context.output.finish(&output::rows(&rows), &json!({ "customers": objects }))
}

fn object(customer: &Customer, charged: Amount) -> Value {
    json!({
        "customer": customer.id.as_str(),
        "charged": charged,
        "budget": customer.budget,
        "requests_per_minute": customer.requests_per_minute,
        "created_at": customer.created_at,
        "revoked_at": customer.revoked_at,
    })
}

fn charged_of(customer: &Customer, charged: Amount, token: &Token) -> String {
    match customer.budget {
        Some(budget) => format!("{} of {}", token.show(charged), token.show(budget)),
        None => token.show(charged),
    }
}

fn now() -> UnixSeconds {
    UnixSeconds::new(clock::now().as_secs())
}
