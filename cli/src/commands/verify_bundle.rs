//! `hallmark verify-bundle`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;
use fingerprint::{
    bundle::{Report, verify_bundle},
    commitment::Commitment,
    prove::Outcome,
};
use protocol::{draw::BeaconSource, ids::BundleDigest};
use serde_json::json;

use crate::{arguments::probability, commands::prove, context::Context, format, output};

/// Check a proof offline, with nothing but the bundle and the public commitment
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark verify-bundle bundle.json --commitment commitment.json

Exit codes:
  0  the bundle is sound and proves ownership
  2  it is sound and says: not this model
  3  it is sound and says: undecided, or aims at a weaker bound than --max-alpha
  1  it is refused, and the error says why")]
pub(crate) struct VerifyBundle {
    /// The bundle that `hallmark prove` wrote
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,

    /// The commitment as the creator published it
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE")]
    commitment: PathBuf,

    /// Weakest error bound that counts as a proof
    #[arg(long, env = "HALLMARK_MAX_ALPHA", value_name = "P", default_value = "1e-6", value_parser = probability)]
    max_alpha: f64,

    /// Digest that the bundle must have, as it was signed or published
    #[arg(long, env = "HALLMARK_DIGEST", value_name = "0xHEX")]
    digest: Option<BundleDigest>,
}

pub(crate) fn run(arguments: &VerifyBundle, context: &Context) -> anyhow::Result<ExitCode> {
    let file = arguments.bundle.display();
    let commitment = Commitment::read(&arguments.commitment)?;
    let bytes = std::fs::read(&arguments.bundle).with_context(|| format!("failed to read the bundle {file}"))?;
    let report = verify_bundle(&bytes, &commitment).with_context(|| format!("the bundle {file} is refused"))?;
    if let Some(expected) = arguments.digest.filter(|digest| *digest != report.digest) {
        bail!("the bundle {file} is refused: its digest is {}, not {expected} as given", report.digest);
    }
    let too_weak = (report.outcome == Outcome::Proved && report.alpha > arguments.max_alpha).then(|| {
        let (alpha, most) = (report.alpha, arguments.max_alpha);
        format!("it aims at an error bound of {alpha:e}, and at most {most:e} is accepted (--max-alpha)")
    });
    let (outcome, says) = match &too_weak {
        None => (report.outcome.to_string(), format!(". It says: {}.", report.outcome)),
        Some(reason) => ("no proof at this error bound".to_owned(), format!(", but it is no proof here: {reason}.")),
    };
    let words = format!("The bundle is sound{says}\n\n{}", words(&report, &outcome));
    // What its own test concluded is in the report; what this check concludes is beside it.
    let proved = report.outcome == Outcome::Proved && too_weak.is_none();
    let object = json!({ "sound": true, "proved": proved, "not_accepted": too_weak, "report": report });
    context.output.finish(&words, &object)?;
    // Not success for a sound bundle of a failed proof: whoever reads only the exit code asks whether it is proved.
    let code = if too_weak.is_some() { Outcome::Undecided } else { report.outcome };
    Ok(ExitCode::from(prove::exit_code(code)))
}

/// What a checked bundle says, for people, under this outcome. Shared with `prove`.
pub(crate) fn words(report: &Report, outcome: &str) -> String {
    let system = report.system.zip(report.request.system.as_ref());
    // What follows from a draw of the claimant's own is among the notes.
    let source = match &report.beacon_source {
        BeaconSource::SelfDrawn => "drawn by the claimant",
        BeaconSource::Given { description } => description,
    };
    let failed = match report.failed {
        0 => String::new(),
        count => format!(", {count} without a usable answer"),
    };
    let mut text = output::rows(&[
        ("outcome", outcome.to_owned()),
        ("asked", report.url.clone()),
        ("model", report.request.model.clone()),
        ("system prompt", system.map_or_else(|| "none".to_owned(), |(name, text)| format!("{name}: {text}"))),
        ("queries", format!("{} of at most {}", report.queries, report.max_queries.min(report.leaves - report.start))),
        (
            "replies",
            format!(
                "{} as drawn, {} other candidates, {} others{}",
                report.drawn, report.other_candidates, report.outside, failed
            ),
        ),
        ("evidence", format!("e-value 10^{:.2}; 10^{:.2} proves", report.log10_e, report.log10_threshold)),
        (
            "error bound",
            match report.outcome {
                Outcome::Proved => format!(
                    "{} over all runs under the root (aimed at {:e})",
                    format::one_in(-report.log10_error_bound),
                    report.alpha
                ),
                Outcome::NotThisModel | Outcome::Undecided => format!("no proof (aimed at {:e})", report.alpha),
            },
        ),
        (
            "this run",
            format!("from position {} of {}, therefore tested at {:.2e}", report.start, report.leaves, report.level),
        ),
        (
            "wrong refusal",
            format!(
                "of a model that gives {} of the drawn answers: {} at most",
                format::percent(report.min_hit_rate),
                format::one_in(-report.beta.log10())
            ),
        ),
        ("beacon", report.beacon.to_string()),
        ("beacon source", source.to_owned()),
        ("root", report.root.to_string()),
        ("digest", report.digest.to_string()),
    ]);
    for reservation in &report.reservations {
        text.push_str(&format!("note: {reservation}\n"));
    }
    text
}
