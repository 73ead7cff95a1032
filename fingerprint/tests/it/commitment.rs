use std::fs;

use fingerprint::{
    commitment::{Commitment, CommitmentError},
    set::{BeaconSource, Embedding, FingerprintSet},
};
use serde_json::{Value, json};

use crate::support::{
    BEACON, STAMPED, assert_no_secret, committed_set, drawn_set, embedded_set, every_stage, everything_said,
    generated_set,
};

fn value(set: &FingerprintSet) -> Value {
    serde_json::from_str(&Commitment::of(set).unwrap().to_json()).unwrap()
}

fn parsed(value: &Value) -> Result<Commitment, CommitmentError> {
    Commitment::from_json(value.to_string().as_bytes())
}

#[test]
fn commitments_of_every_stage_survive_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("commitment.json");
    for set in every_stage().iter().skip(1) {
        let commitment = Commitment::of(set).unwrap();
        commitment.write(&path).unwrap();
        assert_eq!(Commitment::read(&path).unwrap(), commitment);
        assert_no_secret(&fs::read_to_string(&path).unwrap());
        assert_eq!(serde_json::to_value(&commitment).unwrap(), value(set));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn the_file_can_be_checked_by_eye() {
    insta::assert_snapshot!(Commitment::of(&committed_set(3, 4)).unwrap().to_json());
    insta::assert_snapshot!(Commitment::of(&embedded_set(3, 4)).unwrap().to_json());
    let mut set = committed_set(1, 2);
    set.draw(BEACON, BeaconSource::Given { description: "drand round 5".to_owned() }).unwrap();
    insta::assert_snapshot!(Commitment::of(&set).unwrap().to_json());
}

#[test]
fn a_commitment_grows_with_its_set() {
    let mut set = generated_set(3, 4);
    let error = Commitment::of(&set).unwrap_err();
    assert!(everything_said(&error).contains("run `hallmark fingerprint commit` first"));
    set.commit().unwrap();
    let committed = Commitment::of(&set).unwrap();
    assert!(committed.draw().is_none());
    set.draw(BEACON, BeaconSource::SelfDrawn).unwrap();
    let drawn = Commitment::of(&set).unwrap();
    assert_eq!((drawn.root(), drawn.parameters()), (committed.root(), committed.parameters()));
    assert_eq!(drawn.draw().unwrap().beacon.value, BEACON);
    assert_eq!(drawn.draw().unwrap().stamped, None);
    set.record_embedding(Embedding { stamped: STAMPED, surfaces: Vec::new() }).unwrap();
    let embedded = Commitment::of(&set).unwrap();
    assert_eq!(embedded.draw().unwrap().set_root, drawn.draw().unwrap().set_root);
    assert_eq!(embedded.draw().unwrap().stamped, Some(STAMPED));
}

#[test]
fn whatever_the_roots_bind_cannot_be_altered() {
    let original = value(&drawn_set(3, 4));
    let word = json!(format!("0x{}", "ab".repeat(32)));
    for (pointer, altered) in [
        ("/parameters/version", json!(2)),
        ("/parameters/fingerprints", json!(4)),
        ("/parameters/candidates", json!(8)),
        ("/parameters/nucleus", json!(7000)),
        ("/parameters/base", word.clone()),
        ("/parameters/tokenizer", word.clone()),
        ("/root", word.clone()),
        ("/parameters_path/index", json!(1)),
        ("/parameters_path/leaves", json!(5)),
        ("/parameters_path/siblings/0", word.clone()),
        ("/draw/beacon", word.clone()),
        ("/draw/set_root", word.clone()),
        ("/draw/parameters_path/siblings/1", word),
    ] {
        let mut forged = original.clone();
        *forged.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = altered;
        let error = parsed(&forged).unwrap_err();
        assert!(matches!(error, CommitmentError::Roots { .. }), "{pointer}: {error:?}");
    }
    parsed(&original).unwrap();
}

#[test]
fn the_reservation_cannot_be_dropped_or_invented() {
    let mut without = value(&drawn_set(1, 2));
    without["draw"].as_object_mut().unwrap().remove("reservation");
    assert!(matches!(parsed(&without), Err(CommitmentError::Reservation)));
    let mut invented = value(&drawn_set(1, 2));
    invented["draw"]["source"] = json!({"given": {"description": "drand round 5"}});
    assert!(matches!(parsed(&invented), Err(CommitmentError::Reservation)));
}

#[test]
fn a_beacon_cannot_be_relabelled() {
    let mut public = value(&drawn_set(2, 2));
    public["draw"].as_object_mut().unwrap().remove("reservation");
    public["draw"]["source"] = json!({"given": {"description": "ethereum mainnet, prevrandao of block 24000000"}});
    assert!(matches!(parsed(&public), Err(CommitmentError::Roots { root: "set root", .. })));
    let mut set = committed_set(2, 2);
    set.draw(BEACON, BeaconSource::Given { description: "drand round 5".to_owned() }).unwrap();
    let mut other = value(&set);
    parsed(&other).unwrap();
    other["draw"]["source"]["given"]["description"] = json!("drand round 6");
    assert!(matches!(parsed(&other), Err(CommitmentError::Roots { root: "set root", .. })));
}

#[test]
fn other_files_and_other_versions_are_named_as_such() {
    for other in ["", "<html>", "{}", "[]", r#"{"format": "x", "version": 1}"#] {
        let error = Commitment::from_json(other.as_bytes()).unwrap_err();
        assert!(matches!(error, CommitmentError::NotACommitment { .. }), "{other}: {error:?}");
    }
    let mut newer = value(&drawn_set(1, 2));
    newer["version"] = json!(2);
    newer["new"] = json!("field");
    assert!(matches!(parsed(&newer), Err(CommitmentError::OtherVersion { found: 2 })));
}

#[test]
fn missing_unknown_and_malformed_fields_are_refused() {
    let original = value(&drawn_set(1, 2));
    for field in ["parameters", "root", "parameters_path"] {
        let mut damaged = original.clone();
        damaged.as_object_mut().unwrap().remove(field);
        assert!(matches!(parsed(&damaged), Err(CommitmentError::Damaged { .. })), "{field}");
        damaged = original.clone();
        damaged[field] = json!(7);
        assert!(matches!(parsed(&damaged), Err(CommitmentError::Damaged { .. })), "{field}");
    }
    let mut unknown = original.clone();
    unknown["draw"]["note"] = json!("x");
    assert!(matches!(parsed(&unknown), Err(CommitmentError::Damaged { .. })));
    let json = Commitment::of(&drawn_set(1, 2)).unwrap().to_json();
    for length in 0..json.trim_end().len() {
        assert!(Commitment::from_json(&json.as_bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_commitment_that_cannot_be_read_or_written_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("commitment.json");
    let error = Commitment::read(&path).unwrap_err();
    assert!(error.to_string().contains("give the commitment.json that the creator published"), "{error}");
    let error = Commitment::of(&drawn_set(1, 2)).unwrap().write(&path).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[test]
fn nothing_but_an_earlier_commitment_of_the_set_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("commitment.json");
    let (mine, other) = (committed_set(3, 4), committed_set(4, 4));
    Commitment::of(&mine).unwrap().write(&path).unwrap();
    Commitment::of(&mine).unwrap().write(&path).unwrap();
    for found in [
        Commitment::of(&other).unwrap().to_json().into_bytes(),
        b"{\"mine\": 1}".to_vec(),
        b"age-encryption.org/v1".to_vec(),
    ] {
        std::fs::write(&path, &found).unwrap();
        let error = Commitment::of(&mine).unwrap().write(&path).unwrap_err();
        assert!(matches!(error, CommitmentError::Occupied { .. }), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), found);
    }
    let nowhere = folder.path().join("none/commitment.json");
    let error = Commitment::of(&mine).unwrap().check_place(&nowhere).unwrap_err();
    assert!(matches!(error, CommitmentError::Write { .. }), "{error:?}");
}
