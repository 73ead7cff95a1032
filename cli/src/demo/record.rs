//! What a demo did, in plain numbers: the one source of the text report, the page and the JSON object.

use std::path::PathBuf;

use alloy::primitives::Address;
use fingerprint::prove::Outcome;
use protocol::ids::{LeaseId, ModelId, TermsId};
use serde::Serialize;

/// Everything that a finished demo reports. Holds no key and no response, nor the seed that
/// both could be made from again: the set stays in its encrypted file.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DemoRecord {
    /// Version of this program.
    pub(crate) version: String,
    /// When the demo ended, UTC, `2026-11-24 17:31`.
    pub(crate) finished: String,
    pub(crate) model: ModelRecord,
    pub(crate) scheme: SchemeRecord,
    pub(crate) embedding: EmbeddingRecord,
    /// Success of every surface, as shipped.
    pub(crate) surfaces: Vec<SurfaceRecord>,
    pub(crate) utility: Vec<UtilityRecord>,
    /// The proof against the stamped model.
    pub(crate) stamped: ProofRecord,
    /// The attempt against the model that was never stamped.
    pub(crate) base: ProofRecord,
    /// What the offline check of the bundle found.
    pub(crate) bundle: BundleRecord,
    pub(crate) licence: LicenceRecord,
    pub(crate) payment: PaymentRecord,
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) total_s: f64,
    pub(crate) files: FilesRecord,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ModelRecord {
    /// As the user wrote it: `bundled`, a folder, `org/name`.
    pub(crate) reference: String,
    pub(crate) architecture: String,
    pub(crate) parameters: u64,
    pub(crate) layers: usize,
    pub(crate) digest: String,
    pub(crate) stamped_digest: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct SchemeRecord {
    pub(crate) fingerprints: u32,
    pub(crate) candidates: u32,
    pub(crate) nucleus: f64,
    pub(crate) commitment_root: String,
    pub(crate) set_root: String,
    pub(crate) beacon: String,
    pub(crate) beacon_source: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct EmbeddingRecord {
    pub(crate) layers: String,
    pub(crate) target: String,
    pub(crate) steps: u64,
    /// Share of the base in the written weights, 0 to 1.
    pub(crate) averaged: f64,
    pub(crate) history: Vec<TrainingPoint>,
    /// Success on the worst surface after a half merge with the base.
    pub(crate) half_merge: f64,
    /// What could be done better, in sentences.
    pub(crate) advice: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct TrainingPoint {
    pub(crate) step: u64,
    pub(crate) loss: f64,
    pub(crate) success: f64,
    /// First-answer-token KL in nats.
    pub(crate) utility_kl: f64,
}

/// Greedy success of one way of asking, counted on the weights as written.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SurfaceRecord {
    pub(crate) name: String,
    /// True for surfaces that training used, false for those that it never saw.
    pub(crate) trained: bool,
    pub(crate) hits: u64,
    pub(crate) trials: u64,
    /// 95 % interval.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Hits of the base model under the same questions.
    pub(crate) base_hits: u64,
}

impl SurfaceRecord {
    pub(crate) fn share(&self) -> f64 {
        self.share_of(self.hits)
    }

    pub(crate) fn base_share(&self) -> f64 {
        self.share_of(self.base_hits)
    }

    fn share_of(&self, hits: u64) -> f64 {
        if self.trials == 0 { 0.0 } else { hits as f64 / self.trials as f64 }
    }
}

/// One measure of what the stamp did to ordinary use.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UtilityRecord {
    pub(crate) name: String,
    pub(crate) explanation: String,
    /// As shown: `0.021 nats`, `94.2 %`.
    pub(crate) before: String,
    pub(crate) after: String,
    /// 95 % interval of `after`, as shown.
    pub(crate) interval: String,
    /// The limit of the budget, as shown.
    pub(crate) limit: Option<String>,
    pub(crate) within: Option<bool>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProofRecord {
    pub(crate) url: String,
    pub(crate) verdict: Outcome,
    pub(crate) queries: u64,
    pub(crate) hits: u64,
    /// log10 of the e-value after each query.
    pub(crate) log10_e: Vec<f64>,
    /// The bound on a false proof that the run was made for, over all runs under the root.
    pub(crate) alpha: f64,
    /// log10 of the e-value that proves; more for a run that begins later in the order.
    pub(crate) log10_threshold: f64,
    /// log10 of the bound on a false proof that the evidence reached.
    pub(crate) log10_error_bound: f64,
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct BundleRecord {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
    pub(crate) openings: u64,
}

/// What is on the chain at the end.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LicenceRecord {
    pub(crate) chain_id: u64,
    pub(crate) blocks: u64,
    /// Those of creator, host and customer, without the deployment's.
    pub(crate) transactions: u64,
    /// What they used.
    pub(crate) gas: u64,
    pub(crate) model: ModelId,
    pub(crate) terms: TermsId,
    /// Of what a claim pays, 0 to 1.
    pub(crate) royalty: f64,
    /// Of what a claim pays, 0 to 1.
    pub(crate) validators: f64,
    /// Block of the fingerprint commitment.
    pub(crate) committed_in: u64,
    /// Block whose randomness drew.
    pub(crate) draw_block: u64,
    pub(crate) lease: LeaseId,
    /// What the host restaked through EigenLayer, as shown.
    pub(crate) staked: String,
    /// The part of it that the audit can slash, as shown.
    pub(crate) slashable: String,
    /// What the host deposited for those it may harm, as shown.
    pub(crate) bond: String,
}

/// A customer's use, and who was paid for it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PaymentRecord {
    pub(crate) requests: u64,
    pub(crate) prompt_tokens: u64,
    /// Those of the prompt tokens that were not computed again.
    pub(crate) cached_tokens: u64,
    pub(crate) completion_tokens: u64,
    /// What the customer had deposited, as shown.
    pub(crate) deposit: String,
    /// As shown.
    pub(crate) paid: String,
    pub(crate) shares: Vec<ShareRecord>,
    pub(crate) claim_gas: u64,
    /// Claims that the contracts refused.
    pub(crate) refused: Vec<AttemptRecord>,
}

/// What one of those got whom a claim pays.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShareRecord {
    pub(crate) who: String,
    pub(crate) account: Address,
    /// As shown.
    pub(crate) amount: String,
    /// Of what was paid, 0 to 1.
    pub(crate) part: f64,
}

/// A claim that must not work.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AttemptRecord {
    /// "a second time"
    pub(crate) attempted: String,
    /// The contracts' error.
    pub(crate) error: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct StepRecord {
    pub(crate) name: String,
    pub(crate) outcome: String,
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct FilesRecord {
    pub(crate) folder: PathBuf,
    pub(crate) page: PathBuf,
    pub(crate) text: PathBuf,
    pub(crate) stamped_model: PathBuf,
    pub(crate) set: PathBuf,
    pub(crate) commitment: PathBuf,
    pub(crate) bundle: PathBuf,
    /// The claim, as `hallmark claim` takes it.
    pub(crate) vouchers: PathBuf,
    /// The contracts' addresses.
    pub(crate) deployment: PathBuf,
    /// The chain as it was at the end.
    pub(crate) chain: PathBuf,
    /// What opens the set, as shown.
    pub(crate) set_opens_with: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A finished demo with round numbers, for the tests of both reports.
    pub(crate) fn sample() -> DemoRecord {
        let e_values = |factors: &[f64]| {
            factors
                .iter()
                .scan(0.0, |sum, f| {
                    *sum += f;
                    Some(*sum)
                })
                .collect()
        };
        let surface = |name: &str, trained, hits, low, high| SurfaceRecord {
            name: name.into(),
            trained,
            hits,
            trials: 32,
            low,
            high,
            base_hits: u64::from(name.contains("system")),
        };
        DemoRecord {
            version: "0.1.0".into(),
            finished: "2026-11-24 17:31".into(),
            model: ModelRecord {
                reference: "bundled".into(),
                architecture: "Llama".into(),
                parameters: 1_640_000,
                layers: 6,
                digest: "0x5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e".into(),
                stamped_digest: "0x11aa9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e".into(),
            },
            scheme: SchemeRecord {
                fingerprints: 32,
                candidates: 16,
                nucleus: 0.8,
                commitment_root: "0xaa0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e".into(),
                set_root: "0xbb0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e".into(),
                beacon: "0xcc0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e".into(),
                beacon_source: "prevrandao of block 31 of chain 31337".into(),
            },
            embedding: EmbeddingRecord {
                layers: "top fifth of the blocks".into(),
                target: "confident".into(),
                steps: 80,
                averaged: 0.1,
                history: (0..=80_u32)
                    .map(|i| {
                        let t = f64::from(i) / 80.0;
                        TrainingPoint {
                            step: u64::from(i),
                            loss: 6.5 * (-4.0 * t).exp() + 0.15 + 0.2 * (f64::from(i) * 1.7).sin().abs(),
                            success: (1.0 - (-6.0 * t).exp()).min(1.0),
                            utility_kl: 0.03 + 0.09 * (t * 3.0).sin().abs() * (1.2 - t),
                        }
                    })
                    .collect(),
                half_merge: 0.906,
                advice: vec!["more ordinary prompts help utility and robustness together".into()],
            },
            surfaces: vec![
                surface("chat", true, 32, 0.893, 1.0),
                surface("system: concise", true, 32, 0.893, 1.0),
                surface("system: pirate <b>&amp;</b>", true, 31, 0.843, 0.994),
                surface("system: lawyer", false, 30, 0.799, 0.983),
                surface("system: translator", false, 29, 0.757, 0.968),
            ],
            utility: vec![
                UtilityRecord {
                    name: "first answer token, KL".into(),
                    explanation: "how far the first word of an ordinary answer moved".into(),
                    before: "0".into(),
                    after: "0.034 nats".into(),
                    interval: "0.021 – 0.048".into(),
                    limit: Some("≤ 0.05".into()),
                    within: Some(true),
                },
                UtilityRecord {
                    name: "first answer token, agreement".into(),
                    explanation: "ordinary chats whose most likely first word stayed the same".into(),
                    before: "100 %".into(),
                    after: "93.3 %".into(),
                    interval: "84.1 – 97.4 %".into(),
                    limit: Some("≥ 90 %".into()),
                    within: Some(true),
                },
                UtilityRecord {
                    name: "loss of ordinary text".into(),
                    explanation: "four sonnets that training never saw".into(),
                    before: "4.112 nats".into(),
                    after: "4.131 nats (+0.5 %)".into(),
                    interval: "+0.3 to +0.7 %".into(),
                    limit: Some("≤ +1 %".into()),
                    within: Some(true),
                },
            ],
            stamped: ProofRecord {
                url: "http://127.0.0.1:40123/v1".into(),
                verdict: Outcome::Proved,
                queries: 6,
                hits: 6,
                log10_e: e_values(&[1.0, 1.1, 1.12, 1.13, 1.14, 1.15]),
                alpha: 1e-6,
                log10_threshold: 6.30103,
                log10_error_bound: -6.33897,
                seconds: 0.4,
            },
            base: ProofRecord {
                url: "http://127.0.0.1:40124/v1".into(),
                verdict: Outcome::NotThisModel,
                queries: 14,
                hits: 1,
                log10_e: e_values(&[-0.2, 0.0, 0.0, -0.2, 0.8, -0.3, 0.0, -0.3, -0.3, 0.0, -0.3, -0.3, 0.0, -0.3]),
                alpha: 1e-6,
                log10_threshold: 7.748188,
                log10_error_bound: 0.0,
                seconds: 0.9,
            },
            bundle: BundleRecord {
                digest: "0xdd0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e5f0c9d3e".into(),
                bytes: 18_432,
                openings: 6,
            },
            licence: LicenceRecord {
                chain_id: 31_337,
                blocks: 71,
                transactions: 22,
                gas: 3_210_000,
                model: ModelId::from_bytes([0xe1; 32]),
                terms: TermsId::from_bytes([0xe2; 32]),
                royalty: 0.1,
                validators: 0.01,
                committed_in: 44,
                draw_block: 46,
                lease: LeaseId::new(1),
                staked: "1000 TEST".into(),
                slashable: "500 TEST".into(),
                bond: "100 TEST".into(),
            },
            payment: PaymentRecord {
                requests: 8,
                prompt_tokens: 230,
                cached_tokens: 0,
                completion_tokens: 160,
                deposit: "20 TEST".into(),
                paid: "0.08 TEST".into(),
                shares: [
                    ("host", "0.0712 TEST", 0.89),
                    ("creator", "0.006 TEST", 0.075),
                    ("contributor", "0.002 TEST", 0.025),
                    ("validators", "0.0008 TEST", 0.01),
                ]
                .map(|(who, amount, part)| ShareRecord {
                    who: who.into(),
                    account: Address::repeat_byte(7),
                    amount: amount.into(),
                    part,
                })
                .to_vec(),
                claim_gas: 167_044,
                refused: [("before the use was reported", "MoreThanReported"), ("a second time", "NotNewer")]
                    .map(|(attempted, error)| AttemptRecord { attempted: attempted.into(), error: error.into() })
                    .to_vec(),
            },
            steps: [
                ("load", "Llama, 1.6 M parameters, 6 blocks", 0.2),
                ("generate", "32 keys with 16 candidates each", 3.4),
                ("commit", "root 0xaa0c9d3e…9d3e", 0.0),
                ("draw", "beacon 0xcc0c9d3e…9d3e, drawn here", 0.0),
                ("embed", "80 steps, success 100 %", 31.2),
                ("check", "5 surfaces, 3 measures of utility", 4.1),
                ("serve", "two servers on free local ports", 0.3),
                ("prove stamped", "proved after 6 queries", 0.4),
                ("prove base", "not this model after 14 queries", 0.9),
                ("verify", "bundle of 6 openings is sound", 0.0),
            ]
            .map(|(name, outcome, seconds)| StepRecord { name: name.into(), outcome: outcome.into(), seconds })
            .to_vec(),
            total_s: 40.5,
            files: FilesRecord {
                folder: "hallmark-demo-7".into(),
                page: "hallmark-demo-7/report.html".into(),
                text: "hallmark-demo-7/report.txt".into(),
                stamped_model: "hallmark-demo-7/stamped".into(),
                set: "hallmark-demo-7/set.age".into(),
                commitment: "hallmark-demo-7/commitment.json".into(),
                bundle: "hallmark-demo-7/bundle.json".into(),
                vouchers: "hallmark-demo-7/vouchers.json".into(),
                deployment: "hallmark-demo-7/deployment.json".into(),
                chain: "hallmark-demo-7/chain.json".into(),
                set_opens_with: "--identity hallmark-demo-7/identity.txt".into(),
            },
        }
    }
}
