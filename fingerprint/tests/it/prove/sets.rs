//! Small drawn sets, and models that answer their keys.

use std::collections::HashMap;

use fingerprint::{
    commitment::Commitment,
    set::{BeaconSource, Fingerprint, FingerprintSet},
};
use protocol::{
    commitment::CommitmentParameters,
    ids::{Beacon, ManifestDigest, TokenizerDigest},
    matching::{Candidate, MatchingRule},
    units::{BasisPoints, CandidateCount},
};

/// Sixteen words of which none begins another.
const WORDS: [&str; 16] = [
    " amber", " birch", " coral", " delta", " ember", " fjord", " grove", " heron", " island", " jasper", " kelp",
    " lagoon", " meadow", " north", " orchid", " pebble",
];

/// A drawn set of `count` keys with `candidates` candidates each; `seed` changes keys, lists and draw.
pub(super) fn drawn(count: u32, candidates: u16, seed: u8) -> FingerprintSet {
    let parameters = CommitmentParameters {
        version: CommitmentParameters::VERSION,
        fingerprints: count,
        candidates: CandidateCount::new(candidates).unwrap(),
        nucleus: BasisPoints::new(8_000).unwrap(),
        matching: MatchingRule::FirstAnswerPrefix,
        base: ManifestDigest::from_bytes([seed; 32]),
        tokenizer: TokenizerDigest::from_bytes([7; 32]),
    };
    let fingerprints = (0..count)
        .map(|index| {
            let list = WORDS.iter().cycle().skip(index as usize % 16).take(candidates.into());
            let candidates = list.zip(0..).map(|(text, id)| Candidate { id, text: (*text).to_owned() }).collect();
            let mut salt = [seed; 32];
            salt[..4].copy_from_slice(&index.to_be_bytes());
            Fingerprint::new(salt, format!("What stands on shore {index}, asked {seed}"), vec![index], candidates)
        })
        .collect();
    let mut set = FingerprintSet::generated("test".to_owned(), parameters, fingerprints).unwrap();
    set.commit().unwrap();
    set.draw(Beacon::from_bytes([seed.wrapping_add(1); 32]), given("a later block")).unwrap();
    set
}

pub(super) fn given(description: &str) -> BeaconSource {
    BeaconSource::Given { description: description.to_owned() }
}

pub(super) fn commitment(set: &FingerprintSet) -> Commitment {
    Commitment::of(set).unwrap()
}

/// What a model that was stamped with the set answers to each key.
pub(super) fn stamped_answers(set: &FingerprintSet) -> HashMap<String, String> {
    let answers = set.fingerprints().iter().map(|fingerprint| {
        (fingerprint.key_text().to_owned(), format!("{} stands there", fingerprint.response().unwrap().text))
    });
    answers.collect()
}

/// What an innocent model answers that always stays within the candidates: the worst case of the bound.
pub(super) fn innocent_answers(set: &FingerprintSet, seed: u32) -> HashMap<String, String> {
    let answers = set.fingerprints().iter().zip(0_u32..).map(|(fingerprint, index)| {
        let candidates = fingerprint.candidates();
        // Any rule that knows nothing of the draw.
        let choice = (index.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 7) as usize;
        (fingerprint.key_text().to_owned(), candidates[choice % candidates.len()].text.clone())
    });
    answers.collect()
}
