//! The page for people: no script, no request to anywhere, reloaded by itself.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use protocol::units::{Amount, UnixSeconds};

use super::figures::{Figures, LeaseFigures, MeteredFigures};

const STYLE: &str = include_str!("style.css");
/// Digits of a digest that are enough to tell it from the others on the page.
const SHOWN: usize = 10;

/// The whole page.
pub(super) fn page(figures: &Figures, reasons: &[String]) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content="5";
                title { "Hallmark host" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Hallmark host" }
                    @if reasons.is_empty() {
                        p class="good" { "Taking requests." }
                    } @else {
                        @for reason in reasons {
                            p class="bad" { "Not taking requests: " (reason) "." }
                        }
                    }
                }
                main {
                    (now(figures))
                    @if let Some(metered) = &figures.metered {
                        @for lease in &metered.leases { (lease_section(figures, lease)) }
                    }
                }
                footer { "as of " (time(figures.now)) " · reloads every 5 s" }
            }
        }
    }
    .into_string()
}

fn now(figures: &Figures) -> Markup {
    html! {
        section {
            h2 { "Now" }
            dl {
                (figure("open requests", &figures.open_requests.to_string()))
                @if let Some(metered) = &figures.metered { (machine(metered)) }
            }
        }
    }
}

fn machine(metered: &MeteredFigures) -> Markup {
    let chain = format!("block {}, heard of {} s ago", metered.block, metered.chain_age_s);
    let chain = if metered.is_fresh { chain } else { format!("{chain}: too old to serve") };
    let commits = metered.journal_commits;
    let journal = format!("{} statements in {commits} commits since the start", metered.journal_entries);
    let journal = match (metered.journal_is_healthy, metered.journal_pending) {
        (true, 0) => journal,
        (true, pending) => format!("{journal}, {pending} on their way"),
        (false, pending) => format!("cannot be written; {pending} statements wait"),
    };
    html! {
        (figure("chain", &chain))
        (figure("journal", &journal))
    }
}

fn lease_section(figures: &Figures, lease: &LeaseFigures) -> Markup {
    let models = figures.models.iter().filter(|model| model.lease == Some(lease.id));
    let names: Vec<&str> = models.map(|model| model.id.as_str()).collect();
    let totals = &lease.totals;
    let state = if lease.is_active { "active" } else { "not active" };
    html! {
        section {
            h2 { (names.join(", ")) " " small { "lease " (lease.id) ", " (state) " until " (time(lease.to)) } }
            dl {
                (figure("requests", &thousands(totals.requests.into())))
                (figure("prompt tokens", &format!("{}, {} of them cached", thousands(totals.prompt.into()), thousands(totals.cached.into()))))
                (figure("completion tokens", &thousands(totals.completion.into())))
            }
            h3 { "Money, in the smallest unit of the payment token" }
            dl {
                (figure("charged to channels", &amount(lease.charged)))
                (figure("claimed of it", &amount(lease.claimed)))
                (figure("not claimed yet", &amount(lease.owed())))
                (figure("of the claims: host", &amount(lease.host_share)))
                (figure("creator's side", &amount(lease.royalty)))
                (figure("validators", &amount(lease.validator_share)))
                (figure("billed in money", &amount(lease.billed)))
            }
            (reports(lease))
            (claims(lease))
        }
    }
}

fn reports(lease: &LeaseFigures) -> Markup {
    html! {
        h3 { "Reports" }
        @if lease.reports.is_empty() {
            p { "None yet: the first follows when the epoch of the first request is over." }
        } @else {
            table {
                thead { tr { th { "epoch" } th { "requests" } th { "charge" } th { "block" } } }
                tbody {
                    @for report in lease.reports.iter().rev().take(10) {
                        tr {
                            td { (report.report.epoch) }
                            td { (thousands(report.report.totals.requests.into())) }
                            td { (amount(report.report.totals.charge)) }
                            td { @match report.block { Some(block) => (block), None => "on its way" } }
                        }
                    }
                }
            }
        }
    }
}

fn claims(lease: &LeaseFigures) -> Markup {
    html! {
        h3 { "Claimed lanes" }
        @if lease.claims.is_empty() {
            p { "None yet." }
        } @else {
            table {
                thead { tr { th { "channel" } th { "lane" } th { "requests" } th { "cost" } th { "last claim" } th { "block" } } }
                tbody {
                    @for claim in &lease.claims {
                        tr {
                            td { code { (short(&claim.channel.to_string())) } }
                            td { (claim.lane) }
                            td { (thousands(claim.requests.into())) }
                            td { (amount(claim.cost)) }
                            td { (time(claim.claimed_at)) }
                            td { (claim.block) }
                        }
                    }
                }
            }
        }
    }
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn amount(amount: Amount) -> String {
    thousands(amount.get())
}

fn thousands(value: u128) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn short(digest: &str) -> String {
    format!("{}…", digest.chars().take(SHOWN).collect::<String>())
}

fn time(time: UnixSeconds) -> String {
    format!("{} UTC", time.date_and_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_set_apart() {
        let shown = [0, 999, 1_000, 1_234_567].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
