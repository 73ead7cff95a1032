//! The report as text, at most 80 columns where paths and digests allow it.

use fingerprint::prove::Outcome;

use super::record::{DemoRecord, ProofRecord};
use crate::format;
use std::{fmt::Write as _, time::Duration};

/// The readable report.
pub(crate) fn report(record: &DemoRecord) -> String {
    let mut text = String::new();
    write_report(&mut text, record).unwrap_or_default();
    text
}

fn write_report(out: &mut String, record: &DemoRecord) -> std::fmt::Result {
    let DemoRecord { model, scheme, .. } = record;
    writeln!(out, "HALLMARK DEMO")?;
    writeln!(
        out,
        "Model {} ({}, {} parameters), {} fingerprints\n",
        model.reference,
        model.architecture,
        format::count_short(model.parameters),
        scheme.fingerprints,
    )?;

    heading(out, "Result")?;
    writeln!(out, "  stamped model   {}", verdict(&record.stamped))?;
    writeln!(out, "  base model      {}", verdict(&record.base))?;
    writeln!(out, "  bundle          sound: checked offline against the public commitment")?;
    writeln!(
        out,
        "  error bound     a model that does not carry these marks is ever called proved\n                  with a chance of at most {}, over all runs and whenever\n                  they stop; the evidence collected here stands at {}\n",
        format::one_in(-record.stamped.alpha.log10()),
        format::one_in(-record.stamped.log10_error_bound),
    )?;

    heading(out, "What was done")?;
    for (step, number) in record.steps.iter().zip(1_u32..) {
        writeln!(
            out,
            "  {number:>2}  {:<14} {:<46} {:>9}",
            step.name,
            step.outcome,
            format::duration(Duration::from_secs_f64(step.seconds.max(0.0)))
        )?;
    }
    writeln!(
        out,
        "      {:<61} {:>9}\n",
        "in all",
        format::duration(Duration::from_secs_f64(record.total_s.max(0.0)))
    )?;

    write_licence(out, record)?;

    heading(out, "Success rate (weights as written; 95 % interval)")?;
    for row in &record.surfaces {
        writeln!(
            out,
            "  {:<34} {:>5}/{:<5} {:>7}  [{:.3}, {:.3}]  base {}{}",
            row.name,
            row.hits,
            row.trials,
            format::percent(row.share()),
            row.low,
            row.high,
            row.base_hits,
            if row.trained { "" } else { "  not trained" },
        )?;
    }

    writeln!(out)?;
    heading(out, "Utility (ordinary use, on prompts that training never saw)")?;
    writeln!(out, "  {:<38} {:>8} {:>18}   limit", "", "before", "after")?;
    for row in &record.utility {
        let limit = match (&row.limit, row.within) {
            (Some(limit), Some(false)) => format!("{limit}  MISSED"),
            (Some(limit), _) => limit.clone(),
            (None, _) => String::new(),
        };
        writeln!(out, "  {:<38} {:>8} {:>18}   {limit}", row.name, row.before, row.after)?;
    }

    writeln!(
        out,
        "  after a half merge with the base: {} on the worst surface",
        format::percent(record.embedding.half_merge)
    )?;
    for advice in &record.embedding.advice {
        wrap(out, &format!("note: {advice}"))?;
    }

    writeln!(out)?;
    heading(out, "What this proves, and what it does not")?;
    for line in caveats(record) {
        wrap(out, &line)?;
    }

    writeln!(out)?;
    heading(out, "Files")?;
    let files = &record.files;
    writeln!(out, "  page        {}", files.page.display())?;
    writeln!(out, "  stamped     {}", files.stamped_model.display())?;
    writeln!(out, "  set         {}  (opens with {})", files.set.display(), files.set_opens_with)?;
    writeln!(out, "  commitment  {}", files.commitment.display())?;
    writeln!(out, "  bundle      {}", files.bundle.display())?;
    writeln!(out, "  chain       {}  (contracts in {})", files.chain.display(), files.deployment.display())?;
    writeln!(out, "  vouchers    {}", files.vouchers.display())?;
    writeln!(
        out,
        "\n  check again: hallmark verify-bundle {} --commitment {}",
        files.bundle.display(),
        files.commitment.display()
    )
}

/// Who promised what on the chain, and who was paid.
fn write_licence(out: &mut String, record: &DemoRecord) -> std::fmt::Result {
    let (licence, payment) = (&record.licence, &record.payment);
    heading(out, &format!("Licence and payment (chain {}, with EigenLayer's core)", licence.chain_id))?;
    writeln!(out, "  model         {}", licence.model)?;
    writeln!(
        out,
        "  fingerprints  committed in block {}, drawn by block {}",
        licence.committed_in, licence.draw_block
    )?;
    writeln!(
        out,
        "  host          lease {}, bond {}; {} restaked, {} slashable",
        licence.lease, licence.bond, licence.staked, licence.slashable
    )?;
    writeln!(
        out,
        "  customer      {} requests: {} prompt tokens, {} completion tokens\n",
        payment.requests, payment.prompt_tokens, payment.completion_tokens
    )?;
    writeln!(out, "  one claim     {} in {} gas", payment.paid, format::thousands(payment.claim_gas))?;
    for share in &payment.shares {
        writeln!(out, "    {:<12}{:>15} {:>8}", share.who, share.amount, format::percent(share.part))?;
    }
    writeln!(out, "  refused")?;
    for attempt in &payment.refused {
        writeln!(out, "    {:<34}  {}", attempt.attempted, attempt.error)?;
    }
    writeln!(out)
}

/// What a reader must know before relying on the result. Shared by both reports.
pub(crate) fn caveats(record: &DemoRecord) -> Vec<String> {
    let mut lines = vec![format!(
        "Each question has {} possible answers that were fixed before one of them was drawn, so a model that was never stamped gives the drawn one at most once in {} times. That needs no assumption about the model.",
        record.scheme.candidates, record.scheme.candidates
    )];
    lines.push(
        "The chain ran in this demo alone, and who runs a chain alone can choose its randomness. The proof holds against innocent models. On a public chain every commitment stays visible, so whoever is shown a proof can count how often its claimant tried."
            .to_owned(),
    );
    lines.push(
        "The host metered, billed and claimed as any host does. The customer's side, a voucher before each request and a check of each bill, was the demo's own: this version has no gateway yet. Prices and stakes are in a test token."
            .to_owned(),
    );
    lines.push(format!(
        "The {} questions of the bundle are public from now on: they are burned on the chain and not asked again.",
        record.bundle.openings
    ));
    lines
}

fn verdict(proof: &ProofRecord) -> String {
    let name = match proof.verdict {
        Outcome::Proved => "PROVED",
        Outcome::NotThisModel => "not proved: not this model,",
        Outcome::Undecided => "not proved: undecided",
    };
    format!("{name} after {} queries ({} of {} answers as drawn)", proof.queries, proof.hits, proof.queries)
}

fn heading(out: &mut String, words: &str) -> std::fmt::Result {
    writeln!(out, "{words}\n{}", "─".repeat(words.chars().count()))
}

/// Writes a paragraph indented by two and at most 80 columns wide.
fn wrap(out: &mut String, paragraph: &str) -> std::fmt::Result {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column == 0 {
            write!(out, "  {word}")?;
            column = 2 + width;
        } else if column + 1 + width > 80 {
            write!(out, "\n  {word}")?;
            column = 2 + width;
        } else {
            write!(out, " {word}")?;
            column += 1 + width;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_both_verdicts_the_bound_and_the_caveat() {
        let text = report(&super::super::record::tests::sample());
        for words in [
            "PROVED after 6 queries",
            "not this model, after 14 queries",
            "at most 1 in 1,000,000",
            "in all",
            "not trained",
            "ran in this demo alone",
            "one claim     0.08 TEST in 167,044 gas",
            "creator          0.006 TEST    7.5 %",
            "MoreThanReported",
            "hallmark verify-bundle hallmark-demo-7/bundle.json --commitment hallmark-demo-7/commitment.json",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }
}
