//! `hallmark verify-bundle`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use fingerprint::{
    bundle::{Report, verify_bundle},
    commitment::Commitment,
};
use serde_json::json;

use crate::{commands::prove, context::Context, format, output};

/// Check a proof offline, with nothing but the bundle and the public commitment
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark verify-bundle bundle.json --commitment commitment.json

Exit codes:
  0  the bundle is sound and proves ownership
  2  it is sound and says: not this model
  3  it is sound and says: undecided
  1  it is refused, and the error says why")]
pub(crate) struct VerifyBundle {
    /// The bundle that `hallmark prove` wrote
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,

    /// The commitment as the creator published it
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE")]
    commitment: PathBuf,
}

pub(crate) fn run(arguments: &VerifyBundle, context: &Context) -> anyhow::Result<ExitCode> {
    let file = arguments.bundle.display();
    let commitment = Commitment::read(&arguments.commitment)?;
    let bytes = std::fs::read(&arguments.bundle).with_context(|| format!("failed to read the bundle {file}"))?;
    let report = verify_bundle(&bytes, &commitment).with_context(|| format!("the bundle {file} is refused"))?;
    let words = format!("The bundle is sound. It says: {}.\n\n{}", report.outcome, words(&report));
    context.output.finish(&words, &json!({ "sound": true, "report": report }))?;
    // Not success for a sound bundle of a failed proof: whoever reads only the exit code asks whether it is proved.
    Ok(ExitCode::from(prove::exit_code(report.outcome)))
}

/// What a checked bundle says, for people. Shared with `prove`.
pub(crate) fn words(report: &Report) -> String {
    let mut text = output::rows(&[
        ("outcome", report.outcome.to_string()),
        ("asked", format!("{} (model {})", report.url, report.request.model)),
        (
            "queries",
            format!(
                "{} of at most {}, from position {} of {}",
                report.queries, report.max_queries, report.start, report.leaves
            ),
        ),
        (
            "replies",
            format!(
                "{} as drawn, {} other candidates, {} others",
                report.drawn, report.other_candidates, report.outside
            ),
        ),
        ("evidence", format!("e-value 10^{:.2}; 10^{:.2} proves", report.log10_e, report.log10_threshold)),
        (
            "error bound",
            format!(
                "{} (aimed at {:e} over all runs under the root; this one is tested at {:.3e})",
                format::one_in(-report.log10_error_bound),
                report.alpha,
                report.level
            ),
        ),
        ("root", report.root.to_string()),
        ("bundle", report.digest.to_string()),
    ]);
    for reservation in &report.reservations {
        text.push_str(&format!("note: {reservation}\n"));
    }
    text
}
