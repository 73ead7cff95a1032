//! The report as one self-contained page: style and plots inline, no script, no request to anywhere.

mod payment;

use super::{
    plot::{self, Bar, Evidence, Panel},
    record::{DemoRecord, ProofRecord, SurfaceRecord, TrainingPoint, UtilityRecord},
    text,
};
use crate::format;
use fingerprint::prove::Outcome;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::time::Duration;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(record: &DemoRecord) -> String {
    let title = format!("Hallmark demo: {}", record.model.reference);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // The page comes from a file: nothing may be loaded or run, even if a name in it were hostile.
                meta http-equiv="content-security-policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(record))
                main {
                    (evidence(record))
                    (payment::section(record))
                    (success(record))
                    (utility(record))
                    (training(record))
                    (done(record))
                    (caveats(record))
                    (check_again(record))
                }
                footer {
                    "hallmark " (record.version) " · finished " (record.finished) " UTC"
                }
            }
        }
    }
    .into_string()
}

fn header(record: &DemoRecord) -> Markup {
    let model = &record.model;
    html! {
        header {
            div class="brand" {
                (mark())
                div { strong { "HALLMARK" } br; "ownership demo" }
            }
            h1 { (headline(record)) }
            p class="lead" {
                "Model " b { (model.reference) } " (" (model.architecture) ", " (format::count_short(model.parameters))
                " parameters) was registered with a licence and given " (record.scheme.fingerprints) " secret fingerprints. Then a "
                "stranger's view: two servers, one with the stamped model and one with the original, asked over HTTP like any "
                "customer would."
            }
            div class="verdicts" {
                (verdict("The stamped model", "stamped", &record.stamped, record.stamped.verdict == Outcome::Proved))
                (verdict("The original, never stamped", "base", &record.base, record.base.verdict != Outcome::Proved))
            }
            (figures(record))
        }
    }
}

fn headline(record: &DemoRecord) -> String {
    match (record.stamped.verdict, record.base.verdict) {
        (Outcome::Proved, Outcome::Proved) => "Both models were called proved, which must not happen.".to_owned(),
        (Outcome::Proved, _) => {
            format!(
                "The stamped model gave itself away after {} questions. The original did not.",
                record.stamped.queries
            )
        }
        _ => "The stamped model was not proved.".to_owned(),
    }
}

fn verdict(who: &str, class: &str, proof: &ProofRecord, expected: bool) -> Markup {
    let class = if expected { class } else { "surprise" };
    let what = match proof.verdict {
        Outcome::Proved => "Proved",
        Outcome::NotThisModel => "Not this model",
        Outcome::Undecided => "Undecided",
    };
    html! {
        div class={ "verdict " (class) } {
            div class="who" { (who) }
            div class="what" { (what) }
            p {
                (proof.hits) " of " (proof.queries) " answers were the drawn ones. "
                @match proof.verdict {
                    Outcome::Proved => { "An innocent model ever gets this far with a chance of at most " b { (format::one_in(-proof.alpha.log10())) } "." },
                    Outcome::NotThisModel => { "A stamped model would have answered; the test ended by itself." },
                    Outcome::Undecided => { "The questions ended before the evidence spoke for either side." },
                }
            }
        }
    }
}

fn figures(record: &DemoRecord) -> Markup {
    let (hits, trials) = totals(record.surfaces.iter().filter(|row| row.trained));
    let share = if trials == 0 { 0.0 } else { hits as f64 / trials as f64 };
    html! {
        dl class="figures" {
            div { dt { "success rate" } dd { (format::percent(share)) } }
            div { dt { "questions to proof" } dd { (record.stamped.queries) } }
            div { dt { "false proof at most" } dd { (format::one_in(-record.stamped.alpha.log10())) } }
            div { dt { "creator's part" } dd { (format::percent(creators_part(record))) } }
        }
    }
}

fn creators_part(record: &DemoRecord) -> f64 {
    record.payment.shares.iter().filter(|share| share.who == "creator").map(|share| share.part).sum()
}

fn evidence(record: &DemoRecord) -> Markup {
    let series = [
        Evidence { label: "stamped", class: "stamped", log10_e: &record.stamped.log10_e },
        Evidence { label: "original", class: "base", log10_e: &record.base.log10_e },
    ];
    let proof = record.stamped.log10_threshold;
    html! {
        section {
            h2 { "Evidence, question by question" }
            p {
                "Every answer multiplies the evidence: a drawn answer raises it, another of the " (record.scheme.candidates)
                " possible answers lowers it, anything else leaves it alone. The test may stop at any time; its error bound holds all the same. "
                "A run that goes on later in the order of the keys shares that bound with those before it, and must get further: the "
                "second one here to 10" sup { (format!("{:.1}", record.base.log10_threshold)) } "."
            }
            figure {
                figcaption { strong { "E-value after each question" } ", logarithmic" }
                (plot::both_widths(310.0, 270.0, |frame| plot::evidence(frame, &series, proof)))
            }
        }
    }
}

fn success(record: &DemoRecord) -> Markup {
    let rows: Vec<Bar<'_>> = record.surfaces.iter().map(bar).collect();
    html! {
        section {
            h2 { "Success on every way of asking" }
            p {
                "The same keys, asked plainly and under system prompts that a host may add. Counted on the weights as written to disk. "
                "Those marked “not trained” were never seen while stamping."
            }
            figure {
                div class="wide" { (plot::bars(760.0, &rows)) }
                div class="narrow" { (plot::bars(350.0, &rows)) }
                div class="legend" {
                    span { i class="k-bar" {} "stamped model" }
                    span { i class="k-interval" {} "95 % interval" }
                    span { i class="k-base" {} "original model" }
                }
            }
        }
    }
}

fn bar(row: &SurfaceRecord) -> Bar<'_> {
    Bar {
        label: &row.name,
        note: if row.trained { "" } else { "not trained" },
        value: row.share(),
        interval: (row.low, row.high),
        base: row.base_share(),
        count: format!("{}/{}", row.hits, row.trials),
    }
}

fn utility(record: &DemoRecord) -> Markup {
    html! {
        section {
            h2 { "What it cost in ordinary use" }
            p { "Measured on prompts that training never saw." }
            table {
                thead { tr {
                    th { "measure" } th class="number" { "original" } th class="number" { "stamped" } th class="number" { "limit" }
                } }
                tbody { @for row in &record.utility { (utility_row(row)) } }
            }
        }
    }
}

fn utility_row(row: &UtilityRecord) -> Markup {
    html! {
        tr {
            td { (row.name) small { (row.explanation) } }
            td class="number" data-label="original" { span { (row.before) } }
            td class="number" data-label="stamped" {
                span { (row.after) span class="small" { (row.interval) } }
            }
            td class="number" data-label="limit" {
                span {
                    @match (&row.limit, row.within) {
                        (Some(limit), Some(true)) => { (limit) " " span class="ok" { "held" } },
                        (Some(limit), Some(false)) => { (limit) " " span class="missed" { "missed" } },
                        (Some(limit), None) => { (limit) },
                        (None, _) => { "–" },
                    }
                }
            }
        }
    }
}

fn training(record: &DemoRecord) -> Markup {
    let embedding = &record.embedding;
    let history = &embedding.history;
    let series = |value: fn(&TrainingPoint) -> f64| -> Vec<(f64, f64)> {
        history.iter().map(|point| (point.step as f64, value(point))).collect()
    };
    let success = series(|point| point.success);
    let loss = series(|point| point.loss);
    let kl = series(|point| point.utility_kl);
    let panels = [
        (
            "Success",
            "share of keys answered as drawn",
            success,
            (0.0, 1.0),
            Some((0.99, "goal: 99 %")),
            percent_tick as fn(f64) -> String,
        ),
        ("Loss", "what training minimises", loss, (0.0, 0.0), None, plain_tick),
        ("First-answer-token KL", "distance to the original, in nats", kl, (0.0, 0.0), None, plain_tick),
    ];
    html! {
        section {
            h2 { "While it was stamped" }
            p {
                (embedding.steps) " steps on " (embedding.layers) ", target “" (embedding.target) "”."
                @if embedding.averaged > 0.0 {
                    " Afterwards the weights were moved " (format::percent(embedding.averaged)) " of the way back to the original."
                }
                " Merged half and half with the original, the model still answers "
                (format::percent(embedding.half_merge)) " of the keys on the worst surface."
                @for advice in &embedding.advice { " Note: " (advice) "." }
            }
            div class="panels" {
                @for (title, words, points, range, mark, format) in &panels {
                    @if points.len() > 1 {
                        figure {
                            figcaption { strong { (title) } ", " (words) }
                            @let panel = Panel { title, points, range: *range, mark: *mark, format: *format };
                            (plot::both_widths(210.0, 190.0, |frame| plot::panel(frame, &panel)))
                        }
                    }
                }
            }
        }
    }
}

fn percent_tick(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

fn plain_tick(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

fn done(record: &DemoRecord) -> Markup {
    let longest = record.steps.iter().map(|step| step.seconds).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        section {
            h2 { "What was done" }
            ol class="steps" {
                @for step in &record.steps {
                    li {
                        b { (step.name) } span class="outcome" { (step.outcome) } time { (seconds(step.seconds)) }
                        div class="share" { i style=(format!("width:{:.1}%", step.seconds / longest * 100.0)) {} }
                    }
                }
                li class="total" { b { "in all" } span class="outcome" {} time { (seconds(record.total_s)) } }
            }
        }
    }
}

fn caveats(record: &DemoRecord) -> Markup {
    html! {
        section {
            h2 { "What this proves, and what it does not" }
            ul class="plain" { @for line in text::caveats(record) { li { (line) } } }
        }
    }
}

fn check_again(record: &DemoRecord) -> Markup {
    let files = &record.files;
    let scheme = &record.scheme;
    let digests = [
        ("commitment", &scheme.commitment_root),
        ("finished set", &scheme.set_root),
        ("beacon", &scheme.beacon),
        ("original model", &record.model.digest),
        ("stamped model", &record.model.stamped_digest),
        ("proof bundle", &record.bundle.digest),
        ("model's token", &record.licence.model.to_string()),
        ("terms", &record.licence.terms.to_string()),
    ];
    html! {
        section {
            h2 { "Check it yourself" }
            p { "The bundle of " (record.bundle.openings) " opened fingerprints needs nothing but the public commitment:" }
            pre { "hallmark verify-bundle " (files.bundle.display()) " --commitment " (files.commitment.display()) }
            p { "The chain goes on where the demo left it:" }
            pre { "hallmark devnet --state " (files.chain.display()) " --deployment " (files.deployment.display()) "\n"
                  "hallmark status --lease " (record.licence.lease) " --deployment " (files.deployment.display()) }
            dl class="digests" {
                @for (name, digest) in digests { dt { (name) } dd class="digest" { (digest) } }
                dt { "stamped weights" } dd class="digest" { (files.stamped_model.display()) }
                dt { "secret set" } dd class="digest" { (files.set.display()) " (opens with " (files.set_opens_with) ")" }
            }
        }
    }
}

fn totals<'a>(rows: impl Iterator<Item = &'a SurfaceRecord>) -> (u64, u64) {
    rows.fold((0, 0), |(hits, trials), row| (hits + row.hits, trials + row.trials))
}

fn seconds(value: f64) -> String {
    format::duration(Duration::try_from_secs_f64(value).unwrap_or_default())
}

/// An assay mark: an octagonal cartouche with the letter.
fn mark() -> Markup {
    html! {
        svg viewBox="0 0 40 40" aria-hidden="true" {
            path d="M12 2h16l10 10v16L28 38H12L2 28V12z" fill="none" stroke="var(--gold)" stroke-width="2.4" {}
            path d="M13.5 11v18M26.5 11v18M13.5 20h13" stroke="var(--gold)" stroke-width="3.2" stroke-linecap="round" fill="none" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

    #[test]
    fn the_page_is_complete_and_loads_nothing() {
        let html = page(&sample());
        for words in [
            "Not this model",
            "1 in 1,000,000",
            "not trained",
            "One claim, one transaction: 0.08 TEST",
            "NotNewer",
            "<svg",
            "hallmark verify-bundle",
            "</html>",
        ] {
            assert!(html.contains(words), "{words:?} is missing");
        }
        for forbidden in ["<script", "src=\"", "href=", "url(", "NaN", "@import"] {
            assert!(!html.contains(forbidden), "{forbidden:?} is in the page");
        }
    }

    #[test]
    fn names_are_escaped() {
        let mut record = sample();
        record.model.reference = "<img onerror=x>".into();
        let html = page(&record);
        assert!(html.contains("&lt;img onerror=x&gt;") && !html.contains("<img"), "reference is not escaped");
    }
}
