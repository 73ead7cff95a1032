//! `hallmark fingerprint draw`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use fingerprint::{
    commitment::Commitment,
    set::{BeaconSource, self_drawn_beacon},
};
use protocol::ids::Beacon;
use serde_json::json;

use crate::{
    arguments::SetArguments,
    context::{Context, Purpose},
    output, secrets,
};

/// Draw the responses from randomness that came after the commitment
///
/// Without --beacon this machine draws one itself. A proof then holds against innocent models, but not against a
/// claimant who tries many draws; the set, the commitment and every report say so.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark fingerprint draw --set my-model.set --beacon 0x5f0c…  --beacon-source 'ethereum mainnet, prevrandao of block 24000000'
  hallmark fingerprint draw --set my-model.set

Next: hallmark fingerprint embed")]
pub(crate) struct Draw {
    #[command(flatten)]
    set: SetArguments,

    /// Public randomness: 32 bytes, 0x and hexadecimal digits
    #[arg(long, env = "HALLMARK_BEACON", value_name = "0xHEX", requires = "beacon_source")]
    beacon: Option<Beacon>,

    /// Where the beacon can be looked up, in words
    #[arg(long, env = "HALLMARK_BEACON_SOURCE", value_name = "WORDS", requires = "beacon")]
    beacon_source: Option<String>,

    /// Where the public commitment is written again, with the draw
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE", default_value = "commitment.json")]
    commitment: PathBuf,
}

pub(crate) async fn run(arguments: Draw, context: &Context) -> anyhow::Result<ExitCode> {
    let Draw { set: set_arguments, beacon, beacon_source, commitment: path } = arguments;
    let (set_path, written) = (set_arguments.set.clone(), path.clone());
    let (beacon, source) = match (beacon, beacon_source) {
        (Some(beacon), Some(description)) => (beacon, BeaconSource::Given { description }),
        _ => (self_drawn_beacon(&mut context.generator(Purpose::Draw)?), BeaconSource::SelfDrawn),
    };
    let drawn_from = source.clone();
    let commitment = context
        .compute(move || {
            let (mut vault, mut set) = secrets::open(&set_arguments)?;
            set.draw(beacon, source)?;
            let commitment = Commitment::of(&set)?;
            commitment.check_place(&path)?;
            vault.save(&set)?;
            commitment.write(&path)?;
            Ok(commitment)
        })
        .await?;
    let set_root = commitment.draw().map(|draw| draw.set_root);
    let words = output::rows(&[
        ("beacon", beacon.to_string()),
        ("source", drawn_from.to_string()),
        ("set root", set_root.map(|root| root.to_string()).unwrap_or_default()),
        ("commitment", written.display().to_string()),
        ("next", format!("hallmark fingerprint embed --set {} --model BASE --out DIR", set_path.display())),
    ]);
    let object = json!({
        "beacon": beacon,
        "source": drawn_from,
        "reservation": drawn_from.reservation(),
        "set_root": set_root,
        "commitment": commitment,
        "file": written,
    });
    context.output.finish(&words, &object)?;
    Ok(ExitCode::SUCCESS)
}
