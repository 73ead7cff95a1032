//! Real models: the bundled one, and those that only some machines have.

use std::{path::PathBuf, sync::LazyLock};

use fingerprint::candidates::CandidateParameters;
use model::Model;
use protocol::{
    matching::MatchingRule,
    units::{BasisPoints, CandidateCount},
};

/// The bundled chat model.
pub(crate) static BUNDLED: LazyLock<Model> = LazyLock::new(|| Model::load("bundled").unwrap());

/// A base model of 260 thousand parameters that tells children's stories.
pub(crate) fn stories() -> Model {
    Model::open(&shared().join("data/models/stories260K")).unwrap()
}

/// SmolLM2-135M-Instruct: `HALLMARK_SMOLLM2`, by default `~/.cache/hallmark/smollm2`.
pub(crate) fn smollm2() -> Model {
    let folder =
        path_or("HALLMARK_SMOLLM2", || std::env::home_dir().unwrap_or_default().join(".cache/hallmark/smollm2"));
    Model::open(&folder).unwrap()
}

/// Data that is not in the repository: `HALLMARK_SHARED`, by default beside it.
pub(crate) fn shared() -> PathBuf {
    path_or("HALLMARK_SHARED", || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into())
}

/// The published parameters.
pub(crate) fn usual_lists() -> CandidateParameters {
    CandidateParameters {
        nucleus: BasisPoints::new(8000).unwrap(),
        candidates: CandidateCount::DEFAULT,
        matching: MatchingRule::FirstAnswerPrefix,
    }
}

fn path_or(variable: &str, default: impl FnOnce() -> PathBuf) -> PathBuf {
    std::env::var_os(variable).map_or_else(default, PathBuf::from)
}
