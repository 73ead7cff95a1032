//! Who signs: a key of the environment or of an encrypted file, and never an argument.

use super::running::{CREATOR, World};
use crate::support::Ran;

const MANIFEST: &str = "0x0808080808080808080808080808080808080808080808080808080808080808";

#[test]
fn a_keystore_signs_and_nothing_of_a_key_is_told() {
    let world = World::new();
    // In the form that geth and wallets write (version 3), made with Python's hashlib and cryptography.
    let keystore = include_str!("fixtures/creator.keystore.json");
    let password = "a password of the test";
    std::fs::write(world.path().join("creator.key"), keystore).unwrap();
    let register = ["register", "--manifest", MANIFEST, "--no-terms", "--keystore", "creator.key"];
    let with = |environment: &[(&str, &str)], arguments: &[&str]| {
        let ran = Ran::of(world.command(None, arguments).envs(environment.iter().copied()));
        for secret in [&CREATOR.key[2..], password, "wrong words"] {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{}{}", ran.out, ran.err);
        }
        ran
    };
    with(&[], &register).refused(&["creator.key is encrypted", "HALLMARK_KEYSTORE_PASSWORD"]);
    with(&[("HALLMARK_KEYSTORE_PASSWORD", "wrong words")], &register)
        .refused(&["failed to open the keystore creator.key", "check the file, and the password"]);
    std::fs::write(world.path().join("broken.key"), "{}").unwrap();
    let broken = ["register", "--manifest", MANIFEST, "--no-terms", "--keystore", "broken.key"];
    with(&[("HALLMARK_KEYSTORE_PASSWORD", password)], &broken).refused(&["broken.key", "check the file"]);
    assert_eq!(world.transactions(CREATOR), 0);
    with(&[("HALLMARK_KEYSTORE_PASSWORD", password)], &register).succeeded();
    assert_eq!(world.transactions(CREATOR), 1);

    let register = ["register", "--manifest", MANIFEST, "--no-terms"];
    with(&[], &register).refused(&["no account to sign with", "--keystore", "HALLMARK_PRIVATE_KEY"]);
    let cut = &CREATOR.key[..50];
    let ran = with(&[("HALLMARK_PRIVATE_KEY", cut)], &register);
    ran.refused(&["HALLMARK_PRIVATE_KEY is not a private key", "64 hexadecimal digits"]);
    assert!(!ran.err.contains(&cut[2..]), "{}", ran.err);
    // Not even as an argument that is refused.
    let ran = with(&[], &["register", "--manifest", MANIFEST, "--private-key", "0x01"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("unexpected argument"), "{}", ran.err);
}
