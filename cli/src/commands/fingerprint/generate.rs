//! `hallmark fingerprint generate`

use std::process::ExitCode;

use clap::Args;
use fingerprint::{
    candidates::CandidateParameters,
    generate::{GenerateParameters, GenerateProgress, fingerprints, generate},
    set::FingerprintSet,
    show::Summary,
    surface::{DEFAULT_SYSTEM_PROMPTS, trained_surfaces},
    vault::Vault,
};
use model::Model;
use protocol::{
    commitment::CommitmentParameters,
    e_process::{EProcess, EProcessParameters},
    matching::MatchingRule,
    units::{BasisPoints, CandidateCount},
};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::{
    arguments::{SetArguments, share},
    context::{Context, Purpose, leave_if_interrupted},
    models, secrets,
};

/// Generate keys and candidate responses into a new encrypted set
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  HALLMARK_PASSPHRASE=… hallmark fingerprint generate --model ./my-model --fingerprints 1024 --set my-model.set
  hallmark fingerprint generate --model HuggingFaceTB/SmolLM2-135M-Instruct --set s.set --identity me.txt

Next: hallmark fingerprint commit")]
pub(crate) struct Generate {
    /// The base model: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: String,

    #[command(flatten)]
    set: SetArguments,

    /// How many fingerprints
    #[arg(long, short = 'n', env = "HALLMARK_FINGERPRINTS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    fingerprints: u32,

    /// Candidate responses of each key: a power of two from 2 to 1024. A model without the stamp answers as drawn once in this many times
    #[arg(long, env = "HALLMARK_CANDIDATES", default_value = "16", value_name = "K", value_parser = candidate_count)]
    candidates: CandidateCount,

    /// Probability mass of likelier tokens that the candidates must lie behind
    #[arg(long, env = "HALLMARK_NUCLEUS", default_value = "0.8", value_name = "SHARE", value_parser = basis_points)]
    nucleus: BasisPoints,

    /// Another model that writes the keys, for example an instruct version [default: the base model]
    #[arg(long, env = "HALLMARK_KEY_MODEL", value_name = "PATH|ORG/NAME")]
    key_model: Option<String>,
}

fn candidate_count(text: &str) -> Result<CandidateCount, String> {
    let wanted = "give a power of two from 2 to 1024".to_owned();
    text.parse().ok().and_then(|count| CandidateCount::new(count).ok()).ok_or(wanted)
}

/// A share with at most four decimals, as commitments store it.
fn basis_points(text: &str) -> Result<BasisPoints, String> {
    let share = share(text)?;
    let points = (share * 10_000.0).round();
    if (points / 10_000.0 - share).abs() > 1e-9 {
        return Err("give at most four decimals".to_owned());
    }
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10000")]
    let points = points as u16;
    BasisPoints::new(points).map_err(|error| error.to_string())
}

/// Which keys to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPlan {
    pub(crate) count: u32,
    pub(crate) candidates: CandidateCount,
    pub(crate) nucleus: BasisPoints,
    pub(crate) seed: u64,
}

/// Generates a set for `base`, whose keys `writer` writes if there is one. Shared with the demo.
pub(crate) fn generate_set(
    base: &Model,
    base_name: String,
    writer: Option<&Model>,
    plan: KeyPlan,
    salts: &mut ChaCha8Rng,
    progress: &mut dyn FnMut(GenerateProgress),
) -> anyhow::Result<FingerprintSet> {
    let matching = MatchingRule::default();
    let surfaces = trained_surfaces(&base.tokenizer, base.chat.as_ref(), DEFAULT_SYSTEM_PROMPTS)?;
    let lists = CandidateParameters { nucleus: plan.nucleus, candidates: plan.candidates, matching };
    let parameters = GenerateParameters::new(usize::try_from(plan.count)?, plan.seed, lists);
    let keys = generate(base, writer, &surfaces, &parameters, progress)?;
    let parameters = CommitmentParameters {
        version: CommitmentParameters::VERSION,
        fingerprints: plan.count,
        candidates: plan.candidates,
        nucleus: plan.nucleus,
        matching,
        base: base.manifest_digest,
        tokenizer: base.tokenizer.digest(),
    };
    Ok(FingerprintSet::generated(base_name, parameters, fingerprints(keys, salts))?)
}

pub(crate) async fn run(arguments: Generate, context: &Context) -> anyhow::Result<ExitCode> {
    let Generate { model, set: set_arguments, fingerprints, candidates, nucleus, key_model } = arguments;
    let key = secrets::vault_key(&set_arguments.unlock)?;
    // A minute of work is not thrown away for a name that is taken.
    models::require_absent(&set_arguments.set)?;
    let plan = KeyPlan { count: fingerprints, candidates, nucleus, seed: context.seed()? };
    let mut salts = context.generator(Purpose::Salts)?;
    let (progress, interrupt) = (context.progress(), context.interrupt());
    let path = set_arguments.set.clone();
    let summary = context
        .compute(move || {
            let step = progress.step("load");
            let base = models::load(&model)?;
            let writer = key_model.as_deref().map(models::load).transpose()?;
            step.done(&models::summary(&base.config));
            let mut step = progress.step("generate");
            let name = models::lasting_name(&model);
            let set = generate_set(&base, name, writer.as_ref(), plan, &mut salts, &mut |at| {
                leave_if_interrupted(&interrupt);
                step.at(at.found.min(at.wanted), at.wanted, &format!("{} attempts", at.attempts));
            })?;
            Vault::create(&path, &key, &set)?;
            step.done(&format!("{} keys with {} candidates each", plan.count, plan.candidates.get()));
            Ok(Summary::of(&set))
        })
        .await?;
    let file = set_arguments.set.display();
    let mut words = format!("{summary}\nset           {file}\nnext          hallmark fingerprint commit --set {file}");
    let needed = EProcess::fewest_queries(candidates, EProcessParameters::default().starting_at(0))?;
    let too_few = fingerprints < needed;
    if too_few {
        words.push_str(&format!(
            "\nnote: no proof takes fewer than {needed} keys, and each proof burns its own: this set can prove nothing"
        ));
    }
    let object = json!({ "set": set_arguments.set, "summary": summary, "too_few": too_few });
    context.output.finish(&words, &object)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shares_are_parsed_at_the_edge() {
        assert_eq!(candidate_count("16").map(CandidateCount::get), Ok(16));
        assert!(candidate_count("12").is_err() && candidate_count("2048").is_err());
        assert_eq!(basis_points("0.8").map(BasisPoints::get), Ok(8_000));
        assert!(basis_points("0.80001").is_err() && basis_points("1.2").is_err());
    }
}
