//! The part of the page about the chain: who promised what, and who was paid.

use maud::{Markup, html};

use crate::{
    demo::record::{DemoRecord, PaymentRecord, ShareRecord},
    format,
};

pub(super) fn section(record: &DemoRecord) -> Markup {
    let (licence, payment) = (&record.licence, &record.payment);
    html! {
        section {
            h2 { "The licence, and who was paid" }
            p {
                "The model is a token on a chain, and the fingerprint commitment was there in block " (licence.committed_in)
                ", before block " (licence.draw_block) " drew the answers. A host restaked " (licence.staked)
                " through EigenLayer (" (licence.slashable) " of it can be slashed), deposited a bond of " (licence.bond)
                " and took a lease. A customer asked it " (payment.requests) " questions, " (payment.prompt_tokens)
                " prompt and " (payment.completion_tokens) " completion tokens, and signed for them."
            }
            figure {
                figcaption { strong { "One claim, one transaction: " (payment.paid) } ", in " (format::thousands(payment.claim_gas)) " gas" }
                (split(payment))
                table class="shares" {
                    tbody { @for (place, share) in payment.shares.iter().enumerate() { (row(place, share)) } }
                }
            }
            p class="after" { "What the host tried otherwise, and the contracts' answers:" }
            dl class="digests" {
                @for attempt in &payment.refused {
                    dt { "claim " (attempt.attempted) } dd { "refused: " code { (attempt.error) } }
                }
            }
        }
    }
}

/// One bar, cut where the money is.
fn split(payment: &PaymentRecord) -> Markup {
    html! {
        div class="split" role="img" aria-label="How the payment was split" {
            @for (place, share) in payment.shares.iter().enumerate() {
                i class=(class(place)) style=(format!("width:{:.3}%", share.part * 100.0)) {}
            }
        }
    }
}

fn row(place: usize, share: &ShareRecord) -> Markup {
    html! {
        tr {
            td { i class={ "key " (class(place)) } {} (share.who) }
            td class="number" { (share.amount) }
            td class="number" { (format::percent(share.part)) }
        }
    }
}

fn class(place: usize) -> String {
    format!("s{}", place + 1)
}
