//! Bundles as files: every changed byte is refused.

use std::future::pending;

use fingerprint::{
    bundle::{Bundle, BundleError, Place, verify_bundle},
    commitment::Commitment,
    prove::{Ledger, Outcome, ProofOptions, prove},
    set::FingerprintSet,
};
use protocol::e_process::EProcessParameters;

use super::{
    server::Server,
    sets::{commitment, drawn, stamped_answers},
};

/// A bundle of two queries, as small as they get.
async fn small() -> (Bundle, Commitment) {
    let set = drawn(3, 2, 21);
    let bundle = proved(&set, 0.9).await;
    assert_eq!((bundle.report().outcome, bundle.report().queries), (Outcome::Proved, 2));
    (bundle, commitment(&set))
}

pub(super) async fn proved(set: &FingerprintSet, alpha: f64) -> Bundle {
    let server = Server::model(stamped_answers(set)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(&folder.path().join("ledger.jsonl")).unwrap();
    let options =
        ProofOptions { test: EProcessParameters { alpha, ..EProcessParameters::default() }, ..ProofOptions::default() };
    let proof = prove(set, &mut server.client(), &mut ledger, &options, pending(), &mut |_| {}).await.unwrap();
    assert!(proof.cut_short.is_none());
    proof.bundle
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_byte_is_refused() {
    let (bundle, commitment) = small().await;
    let bytes = bundle.as_bytes();
    verify_bundle(bytes, &commitment).unwrap();
    let refused = |changed: &[u8], what: &str| {
        assert!(verify_bundle(changed, &commitment).is_err(), "{what} is not noticed");
    };
    let mut changed = bytes.to_vec();
    for place in 0..bytes.len() {
        let original = bytes[place];
        let digit = if original.is_ascii_digit() { (original - b'0' + 1) % 10 + b'0' } else { b'0' };
        let replacements = (0..8).map(|bit| original ^ (1 << bit)).chain([b' ', b'"', b'\\', digit, 0, 0xff]);
        for replacement in replacements.filter(|replacement| *replacement != original) {
            changed[place] = replacement;
            refused(&changed, &format!("byte {place} as {replacement}"));
        }
        changed[place] = original;
        refused(&bytes[..place], &format!("a cut before byte {place}"));
        let mut shorter = bytes.to_vec();
        shorter.remove(place);
        refused(&shorter, &format!("the loss of byte {place}"));
        let mut longer = bytes.to_vec();
        longer.insert(place, original);
        refused(&longer, &format!("byte {place} twice"));
        longer[place] = b' ';
        refused(&longer, &format!("a blank before byte {place}"));
    }
    refused(&[bytes, b"\n"].concat(), "a line end");
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_are_specific() {
    let (bundle, commitment) = small().await;
    let text = std::str::from_utf8(bundle.as_bytes()).unwrap();
    let verify = |text: &str| verify_bundle(text.as_bytes(), &commitment).unwrap_err();
    assert!(matches!(verify("hello"), BundleError::NotABundle { source: Some(_) }));
    assert!(matches!(verify(r#"{"format":"other","version":1}"#), BundleError::NotABundle { source: None }));
    assert!(matches!(
        verify(&text.replacen("\"version\":1", "\"version\":2", 1)),
        BundleError::OtherVersion { found: 2 }
    ));
    assert!(matches!(verify(&text.replacen("\"start\"", "\"stort\"", 1)), BundleError::Malformed { .. }));
    assert!(matches!(verify(&text.replacen(":", ": ", 1)), BundleError::NotCanonical { offset: 10 }));
    let end = text.rfind(",\"digest\"").unwrap();
    assert!(matches!(verify(&format!("{}}}", &text[..end])), BundleError::NoDigest));
    for (old, new) in [("\"attempts\":1", "\"attempts\":9"), ("stands there", "was there"), ("shore", "coast")] {
        assert!(matches!(verify(&text.replacen(old, new, 1)), BundleError::Digest { .. }), "{old}");
    }

    let other = drawn(3, 2, 22);
    let error = verify_bundle(bundle.as_bytes(), &super::sets::commitment(&other)).unwrap_err();
    assert!(matches!(error, BundleError::OtherCommitment { what: "root" }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bundle_file_is_written_once_and_whole() {
    let (bundle, commitment) = small().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proof.json");
    let (place, late) = (Place::reserve(&path).unwrap(), Place::reserve(&path).unwrap());
    bundle.write(place).unwrap();
    assert_eq!(bundle.write(late).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(verify_bundle(&std::fs::read(&path).unwrap(), &commitment).unwrap(), *bundle.report());
    assert_eq!(Place::reserve(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the bundle");
}

#[tokio::test(flavor = "multi_thread")]
async fn commitment_as_published_is_all_that_a_verifier_needs() {
    let (bundle, commitment) = small().await;
    let published = Commitment::from_json(commitment.to_json().as_bytes()).unwrap();
    verify_bundle(bundle.as_bytes(), &published).unwrap();
}
