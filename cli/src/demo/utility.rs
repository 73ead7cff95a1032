//! Utility as the reports show it: one row for each measure, with the budget where there is one.

use fingerprint::{check::CheckReport, embed::UtilityBudget};

use super::record::UtilityRecord;
use crate::format;

/// Rows for people. The budget is about chats as they are usually asked, without a system prompt of the host's.
pub(crate) fn records(report: &CheckReport, budget: &UtilityBudget) -> Vec<UtilityRecord> {
    let mut rows = Vec::new();
    for chats in &report.chats {
        let budgeted = matches!(chats.name.as_str(), "sampled" | "hand-written");
        let divergence = &chats.divergence;
        rows.push(UtilityRecord {
            name: format!("first-answer KL, {}", chats.name),
            explanation: format!("how far the first word of an answer moved, in {} chats", chats.prompts),
            before: "0".to_owned(),
            after: format!("{:.3} nats", divergence.mean),
            interval: format!("{:.3} – {:.3}", divergence.lower, divergence.upper),
            limit: budgeted.then(|| format!("≤ {}", budget.first_token_divergence)),
            within: budgeted.then_some(divergence.mean <= budget.first_token_divergence),
        });
        let agreement = &chats.agreement;
        rows.push(UtilityRecord {
            name: format!("agreement, {}", chats.name),
            explanation: "chats whose most likely first word stayed the same".to_owned(),
            before: "100 %".to_owned(),
            after: format::percent(agreement.rate),
            interval: format!("{} – {}", format::percent(agreement.lower), format::percent(agreement.upper)),
            limit: budgeted.then(|| format!("≥ {}", format::percent(budget.agreement))),
            within: budgeted.then_some(agreement.rate >= budget.agreement),
        });
    }
    for text in &report.texts {
        let relative = &text.relative;
        rows.push(UtilityRecord {
            name: format!("text loss, {}", text.name),
            explanation: "nats per token on a text that training never saw".to_owned(),
            before: format!("{:.3}", text.base_loss),
            after: format!("{:.3} ({:+.1} %)", text.stamped_loss, relative.mean * 100.0),
            interval: format!("{:+.1} to {:+.1} %", relative.lower * 100.0, relative.upper * 100.0),
            limit: Some(format!("≤ {:+.0} %", budget.text_loss_rise * 100.0)),
            within: Some(relative.mean <= budget.text_loss_rise),
        });
    }
    rows
}
