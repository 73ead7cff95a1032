//! `hallmark usage accept`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use licensing_contracts::actions::payments::Claim;
use protocol::{
    ids::ChainId,
    messages::{Domain, Message as _, Signed, Voucher},
    units::{Amount, Seconds, UnixSeconds},
};
use serde_json::json;

use super::{SignArguments, Terms, manager, read_statements};
use crate::{
    commands::chain::{
        Token,
        deposit::{channel_id, read_channel},
        duration,
        files::write_json,
        status::time,
    },
    context::Context,
};

/// Accept statements with a voucher, as the payer
///
/// Checks that each statement is signed by the lease's key and charges what its prices give, and signs a voucher for all of
/// them, with the payer's key or a session key. With --ceiling the last one counts as a request in flight, which the host can
/// claim up to that amount.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark usage accept --channel channel.json --statements statements.json --vouchers vouchers.json")]
pub(crate) struct Accept {
    /// The channel that pays
    #[arg(long, env = "HALLMARK_CHANNEL", value_name = "FILE", default_value = "channel.json")]
    channel: PathBuf,

    /// The statements, all of one lane
    #[arg(long, env = "HALLMARK_STATEMENTS", value_name = "FILE", default_value = "statements.json")]
    statements: PathBuf,

    /// Where the voucher is written, as `hallmark claim` takes it
    #[arg(long, value_name = "FILE", default_value = "vouchers.json")]
    vouchers: PathBuf,

    /// Accept all but the last statement, and pay at most this for that one
    #[arg(long, value_name = "AMOUNT")]
    ceiling: Option<String>,

    /// How long the voucher can be claimed
    #[arg(long = "for", value_name = "TIME", default_value = "1d", value_parser = duration)]
    length: Seconds,

    #[command(flatten)]
    sign: SignArguments,
}

pub(super) async fn run(arguments: Accept, context: &Context) -> anyhow::Result<ExitCode> {
    let key = arguments.sign.key()?;
    let channel = read_channel(&arguments.channel)?;
    let statements = read_statements(&arguments.statements)?;
    let newest = &statements.last().context("there are no statements to accept")?.message;
    let (client, to) = arguments.sign.chain.connect().await?;
    let (domain, id) = (manager(&to), channel_id(&to, &channel));
    if let Some(other) = statements.iter().find(|signed| {
        let of = &signed.message;
        (of.channel, of.lease, of.lane) != (Some(id), newest.lease, newest.lane)
    }) {
        anyhow::bail!("statement {} is of another channel, lease or lane", other.message.digest(&domain));
    }
    let terms = Terms::of(&client, &to, newest.lease).await?;
    terms.check(&statements, &domain)?;
    let token = Token::find(&client, &to, Some(terms.token)).await?;
    let (accepted, in_flight) = match &arguments.ceiling {
        Some(_) => (&statements[..statements.len() - 1], statements.last().cloned()),
        None => (&statements[..], None),
    };
    let now = UnixSeconds::new(client.head().await?.timestamp_s);
    let last = accepted.last().map(|signed| &signed.message);
    let voucher = Voucher {
        channel: id,
        lease: newest.lease,
        lane: newest.lane,
        counts: last.map(|last| last.step.after()).unwrap_or_default(),
        ceiling: arguments.ceiling.as_deref().map_or(Ok(Amount::ZERO), |text| token.amount(text))?,
        statements_head: last.map(|last| last.digest(&domain)),
        expires_at: now.checked_add(arguments.length).context("--for is longer than time lasts")?,
    };
    let escrow = Domain::new(ChainId::new(to.chain_id), to.payment_escrow);
    let (counts, worth) = (voucher.counts, terms.prices.cost_up(voucher.counts)?);
    let (lease, expires_at) = (voucher.lease, voucher.expires_at);
    let signed = Signed::sign(voucher, &escrow, &key);
    let signer = signed.signer(&escrow)?;
    write_json(&arguments.vouchers, &[Claim { channel, voucher: signed, in_flight }])?;
    let rows = [
        ("lease", lease.to_string()),
        ("accepted", format!("{counts}, {}", token.show(worth))),
        ("signed by", signer.to_string()),
        ("valid until", time(expires_at.get())),
        ("file", arguments.vouchers.display().to_string()),
    ];
    let object = json!({
        "lease": lease,
        "requests": counts.requests(),
        "worth": worth,
        "signer": signer,
        "expires_at": expires_at,
        "file": arguments.vouchers,
    });
    context.output.finish(&crate::output::rows(&rows), &object)?;
    Ok(ExitCode::SUCCESS)
}
