use fingerprint::set::{BeaconSource, Embedding, FingerprintSet, Opening, SetError, Stage, self_drawn_beacon};
use protocol::{
    commitment::{CommitmentError, KeyLeaf, verify_key_leaf, verify_set_leaf},
    draw::draw_index,
    ids::{Beacon, LeafIndex, ManifestDigest, Tenant, TokenizerDigest},
    matching::Candidate,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::support::{
    BASE, BEACON, STAMPED, TOKENIZER, assert_no_secret, committed_set, drawn_set, embedded_set, every_stage,
    everything_said, example_fingerprint, generated_set, parameters,
};

fn embedding() -> Embedding {
    Embedding { stamped: STAMPED, surfaces: Vec::new() }
}

#[test]
fn a_set_goes_from_generated_to_embedded() {
    let mut set = generated_set(5, 4);
    assert_eq!(set.stage(), &Stage::Generated);
    assert!(set.root().is_none() && set.fingerprints()[0].response().is_none());

    let root = set.commit().unwrap();
    assert_eq!(set.root(), Some(root));
    assert!(set.beacon().is_none());

    let set_root = set.draw(BEACON, BeaconSource::SelfDrawn).unwrap();
    assert_eq!((set.root(), set.set_root()), (Some(root), Some(set_root)));
    for (index, fingerprint) in (0..).map(LeafIndex::new).zip(set.fingerprints()) {
        let drawn = draw_index(&BEACON, &root, index, Tenant::SHARED, set.parameters().candidates);
        assert_eq!(fingerprint.drawn(), Some(drawn));
        assert_eq!(fingerprint.response(), Some(&fingerprint.candidates()[drawn.as_usize()]));
    }

    set.record_embedding(embedding()).unwrap();
    assert_eq!(set.embedding(), Some(&embedding()));
    assert_eq!((set.root(), set.set_root()), (Some(root), Some(set_root)));
}

#[test]
fn a_draw_before_the_commitment_is_refused() {
    let mut set = generated_set(2, 2);
    let error = set.draw(BEACON, BeaconSource::SelfDrawn).unwrap_err();
    assert!(matches!(error, SetError::NotCommitted));
    assert_eq!(error.to_string(), "the set is not committed yet; run `hallmark fingerprint commit` first");
    assert_eq!(set.stage(), &Stage::Generated);
}

#[test]
fn a_second_draw_is_refused_and_changes_nothing() {
    for mut set in [drawn_set(6, 16), embedded_set(6, 16)] {
        let before: Vec<_> = set.fingerprints().iter().map(|fingerprint| fingerprint.drawn()).collect();
        let stage = set.stage().clone();
        let error = set.draw(Beacon::from_bytes([9; 32]), BeaconSource::SelfDrawn).unwrap_err();
        assert!(error.to_string().contains("one commitment has one draw"), "{error}");
        assert_eq!(set.fingerprints().iter().map(|fingerprint| fingerprint.drawn()).collect::<Vec<_>>(), before);
        assert_eq!(set.stage(), &stage);
    }
}

#[test]
fn a_second_commitment_is_refused() {
    for mut set in [committed_set(2, 2), drawn_set(2, 2), embedded_set(2, 2)] {
        let stage = set.stage().clone();
        assert!(matches!(set.commit(), Err(SetError::AlreadyCommitted { root }) if Some(root) == set.root()));
        assert_eq!(set.stage(), &stage);
    }
}

#[test]
fn only_a_drawn_set_is_embedded_or_opened() {
    assert!(matches!(generated_set(2, 2).record_embedding(embedding()), Err(SetError::NotCommitted)));
    assert!(matches!(committed_set(2, 2).record_embedding(embedding()), Err(SetError::NotDrawn)));
    assert!(matches!(generated_set(2, 2).openings(), Err(SetError::NotCommitted)));
    assert!(matches!(committed_set(2, 2).openings(), Err(SetError::NotDrawn)));
}

#[test]
fn embedding_again_changes_the_stamped_model_only() {
    let mut set = embedded_set(2, 2);
    let (root, set_root) = (set.root(), set.set_root());
    let stamped = ManifestDigest::from_bytes([0x55; 32]);
    set.record_embedding(Embedding { stamped, surfaces: Vec::new() }).unwrap();
    assert_eq!(set.embedding().unwrap().stamped, stamped);
    assert_eq!((set.root(), set.set_root()), (root, set_root));
}

#[test]
fn openings_prove_their_leaves_under_both_roots() {
    for count in [1, 2, 3, 7, 8, 33] {
        let set = drawn_set(count, 4);
        let openings = set.openings().unwrap();
        for index in (0..count).map(LeafIndex::new) {
            let opening = openings.open(index).unwrap();
            let Opening { salt, key_text: key, candidates, drawn, key_path, set_path, .. } = opening;
            assert_eq!(Some(drawn), set.fingerprint(index).unwrap().drawn());
            let leaf = KeyLeaf { salt, index, key, candidates };
            verify_key_leaf(set.parameters(), &leaf, &key_path, &set.root().unwrap()).unwrap();
            verify_set_leaf(set.parameters(), &leaf, drawn, &set_path, &set.set_root().unwrap()).unwrap();
        }
        let beyond = LeafIndex::new(count);
        assert!(matches!(openings.open(beyond), Err(SetError::NoSuchFingerprint { index, .. }) if index == beyond));
    }
}

#[test]
fn a_set_for_another_base_is_refused() {
    let set = generated_set(1, 2);
    set.require_base(&BASE, &TOKENIZER).unwrap();
    let other = ManifestDigest::from_bytes([7; 32]);
    let error = set.require_base(&other, &TOKENIZER).unwrap_err();
    assert!(matches!(error, SetError::OtherBase { expected: BASE, found } if found == other));
    assert!(error.to_string().contains(&other.to_string()), "{error}");
    let other = TokenizerDigest::from_bytes([7; 32]);
    let error = set.require_base(&BASE, &other).unwrap_err();
    assert!(matches!(error, SetError::OtherTokenizer { expected: TOKENIZER, found } if found == other));
}

#[test]
fn sets_that_break_their_own_parameters_are_refused() {
    let refused = |parameters, fingerprints| {
        let error = FingerprintSet::generated(String::new(), parameters, fingerprints).unwrap_err();
        assert_no_secret(&everything_said(&error));
        error
    };
    let key = |index| example_fingerprint(index, 4);
    let with_text = |text: &str| {
        let candidates = key(0).candidates().to_vec();
        fingerprint::set::Fingerprint::new([0; 32], text.to_owned(), vec![1], candidates)
    };

    assert!(matches!(refused(parameters(0, 4), vec![]), SetError::Commitment(CommitmentError::Size { .. })));
    assert!(matches!(refused(parameters(2, 4), vec![key(0)]), SetError::Commitment(CommitmentError::Leaves { .. })));
    assert!(matches!(
        refused(parameters(1, 8), vec![key(0)]),
        SetError::Commitment(CommitmentError::CandidateCount { .. })
    ));
    assert!(matches!(
        refused(parameters(2, 4), vec![key(0), key(0)]),
        SetError::DuplicateKey { first, second } if (first.get(), second.get()) == (0, 1)
    ));
    for text in ["", " ", "ends in a blank ", "ends in a line\n"] {
        assert!(matches!(refused(parameters(1, 4), vec![with_text(text)]), SetError::Key { .. }), "{text:?}");
    }
    let alike = vec![Candidate { id: 1, text: " Yes".to_owned() }, Candidate { id: 2, text: "yesterday".to_owned() }];
    let alike = fingerprint::set::Fingerprint::new([0; 32], "key".to_owned(), vec![1], alike);
    assert!(matches!(
        refused(parameters(1, 2), vec![alike]),
        SetError::Commitment(CommitmentError::NotPrefixFree { .. })
    ));
}

#[test]
fn debug_prints_counts_and_no_secret() {
    for set in every_stage() {
        for text in [format!("{set:?}"), format!("{set:#?}"), format!("{:?}", set.fingerprints())] {
            assert_no_secret(&text);
        }
        if let Ok(openings) = set.openings() {
            assert_no_secret(&format!("{openings:?} {:?}", openings.open(LeafIndex::new(0)).unwrap()));
        }
    }
    assert_eq!(
        format!("{:?}", drawn_set(3, 4)),
        "FingerprintSet { fingerprints: 3, candidates: CandidateCount(4), stage: \"drawn\", .. }"
    );
}

#[test]
fn a_self_drawn_beacon_follows_its_generator_and_carries_a_reservation() {
    let draw = |seed| self_drawn_beacon(&mut ChaCha8Rng::seed_from_u64(seed));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let statement = "the proof holds against innocent models but not against a claimant who grinds";
    assert_eq!(BeaconSource::SelfDrawn.reservation(), Some(statement));
    assert!(BeaconSource::SelfDrawn.to_string().contains(statement));
    let given = BeaconSource::Given { description: "drand round 5".to_owned() };
    assert_eq!((given.reservation(), given.to_string().as_str()), (None, "drand round 5"));
}
