//! Small sets whose every secret carries a mark, so that a leak is found by searching for it.

use std::error::Error;

use fingerprint::set::{BeaconSource, Embedding, Fingerprint, FingerprintSet};
use fingerprint::surface::Surface;
use protocol::{
    commitment::CommitmentParameters,
    ids::{Beacon, ManifestDigest, TokenizerDigest},
    matching::{Candidate, MatchingRule},
    units::{BasisPoints, CandidateCount},
};

pub(crate) const KEY_MARK: &str = "Quokka";
pub(crate) const CANDIDATE_MARK: &str = "Okapi";
/// All ids of the example sets begin with these digits; enough of them that no digest or path has them by chance.
pub(crate) const ID_MARK: &str = "77700";
pub(crate) const SALT: u8 = 0xd7;

pub(crate) const BASE: ManifestDigest = ManifestDigest::from_bytes([0x11; 32]);
pub(crate) const TOKENIZER: TokenizerDigest = TokenizerDigest::from_bytes([0x22; 32]);
pub(crate) const STAMPED: ManifestDigest = ManifestDigest::from_bytes([0x33; 32]);
pub(crate) const BEACON: Beacon = Beacon::from_bytes([0x44; 32]);

pub(crate) fn parameters(fingerprints: u32, candidates: u16) -> CommitmentParameters {
    CommitmentParameters {
        version: CommitmentParameters::VERSION,
        fingerprints,
        candidates: CandidateCount::new(candidates).unwrap(),
        nucleus: BasisPoints::new(8000).unwrap(),
        matching: MatchingRule::FirstAnswerPrefix,
        base: BASE,
        tokenizer: TOKENIZER,
    }
}

pub(crate) fn example_fingerprint(index: u32, candidates: u16) -> Fingerprint {
    let candidates = (0..u32::from(candidates))
        .map(|number| Candidate { id: 77_700_000 + number, text: format!(" {number:02}{CANDIDATE_MARK}") })
        .collect();
    Fingerprint::new(
        [SALT; 32],
        format!("The {KEY_MARK} \"number\" {index}"),
        vec![77_700_100 + index, 77_700_200, 77_700_300],
        candidates,
    )
}

pub(crate) fn generated_set(fingerprints: u32, candidates: u16) -> FingerprintSet {
    let keys = (0..fingerprints).map(|index| example_fingerprint(index, candidates)).collect();
    FingerprintSet::generated("example/base".to_owned(), parameters(fingerprints, candidates), keys).unwrap()
}

pub(crate) fn committed_set(fingerprints: u32, candidates: u16) -> FingerprintSet {
    let mut set = generated_set(fingerprints, candidates);
    set.commit().unwrap();
    set
}

pub(crate) fn drawn_set(fingerprints: u32, candidates: u16) -> FingerprintSet {
    let mut set = committed_set(fingerprints, candidates);
    set.draw(BEACON, BeaconSource::SelfDrawn).unwrap();
    set
}

pub(crate) fn embedded_set(fingerprints: u32, candidates: u16) -> FingerprintSet {
    let mut set = drawn_set(fingerprints, candidates);
    set.record_embedding(Embedding { stamped: STAMPED, surfaces: vec![Surface::chat(), Surface::raw()] }).unwrap();
    set
}

pub(crate) fn every_stage() -> [FingerprintSet; 4] {
    [generated_set(3, 4), committed_set(3, 4), drawn_set(3, 4), embedded_set(3, 4)]
}

/// An error as a command prints it and as a log would: `Display` and `Debug` of itself and of all its sources.
pub(crate) fn everything_said(error: &dyn Error) -> String {
    let mut said = format!("{error}\n{error:?}\n{error:#?}\n");
    let mut source = error.source();
    while let Some(error) = source {
        said.push_str(&format!("{error}\n{error:?}\n"));
        source = error.source();
    }
    said
}

/// Panics when a text holds anything of an example set's secrets.
pub(crate) fn assert_no_secret(text: &str) {
    let salt = format!("{SALT}, {SALT}");
    let salt_hexadecimal = format!("{SALT:02x}{SALT:02x}");
    for secret in [KEY_MARK, CANDIDATE_MARK, ID_MARK, &salt, &salt_hexadecimal] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}
