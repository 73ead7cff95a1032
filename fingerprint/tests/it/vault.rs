use std::{
    fmt, fs,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
};

use age::x25519;
use fingerprint::{
    set::{BeaconSource, Fingerprint, FingerprintSet, SetError},
    show::{Revealed, Summary},
    vault::{Recipient, Vault, VaultError, VaultKey, WorkFactor},
};
use proptest::prelude::*;
use protocol::matching::Candidate;
use secrecy::SecretString;
use tempfile::TempDir;

use crate::support::{
    BEACON, KEY_MARK, assert_no_secret, committed_set, drawn_set, embedded_set, every_stage, everything_said,
    generated_set, parameters,
};

/// The smallest work factor: these passphrases guard nothing.
fn passphrase(text: &str) -> VaultKey {
    VaultKey::Passphrase { passphrase: SecretString::from(text), work_factor: WorkFactor::new(1).unwrap() }
}

fn identity() -> VaultKey {
    VaultKey::Identities(vec![x25519::Identity::generate()])
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Everything in a set, secrets included.
fn content(set: &FingerprintSet) -> String {
    let revealed = Revealed::of(set, set.fingerprints().iter().map(|_| Vec::new()).collect()).unwrap();
    let salts: Vec<_> = set.fingerprints().iter().map(|fingerprint| *fingerprint.salt()).collect();
    format!("{} {salts:?} {:?}", serde_json::to_string(&revealed).unwrap(), set.stage())
        + &serde_json::to_string(&Summary::of(set)).unwrap()
}

/// Opens bytes as if they were the file.
fn open_bytes(folder: &Path, key: &VaultKey, bytes: &[u8]) -> Result<FingerprintSet, VaultError> {
    let path = folder.join("altered.age");
    fs::write(&path, bytes).unwrap();
    Vault::open(&path, key).map(|(_, set)| set)
}

/// An age file with this content, for a set that nobody wrote.
fn sealed(identity: &x25519::Identity, plain: &[u8]) -> Vec<u8> {
    age::encrypt(&identity.to_public(), plain).unwrap()
}

#[test]
fn sets_of_every_stage_survive_both_kinds_of_key() {
    let folder = folder();
    for (number, set) in every_stage().iter().enumerate() {
        for (name, key) in [("passphrase", passphrase("correct horse")), ("identity", identity())] {
            let path = folder.path().join(format!("{number}-{name}.age"));
            Vault::create(&path, &key, set).unwrap();
            let (_, opened) = Vault::open(&path, &key).unwrap();
            assert_eq!(content(&opened), content(set));
        }
    }
}

#[test]
fn a_set_is_taken_from_step_to_step_in_its_file() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = passphrase("correct horse");
    Vault::create(&path, &key, &generated_set(3, 4)).unwrap();

    let (mut vault, mut set) = Vault::open(&path, &key).unwrap();
    set.commit().unwrap();
    vault.save(&set).unwrap();
    set.draw(BEACON, BeaconSource::SelfDrawn).unwrap();
    vault.save(&set).unwrap();

    let (_, mut opened) = Vault::open(&path, &key).unwrap();
    assert_eq!(content(&opened), content(&drawn_set(3, 4)));
    assert!(matches!(opened.draw(BEACON, BeaconSource::SelfDrawn), Err(SetError::AlreadyDrawn { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn the_wrong_key_is_told_apart_from_the_wrong_kind_of_key() {
    let folder = folder();
    let (by_passphrase, by_identity) = (folder.path().join("p.age"), folder.path().join("i.age"));
    Vault::create(&by_passphrase, &passphrase("correct horse"), &drawn_set(2, 2)).unwrap();
    Vault::create(&by_identity, &identity(), &drawn_set(2, 2)).unwrap();

    let refused = |path: &Path, key: VaultKey| {
        let error = Vault::open(path, &key).unwrap_err();
        let said = everything_said(&error);
        assert_no_secret(&said);
        assert!(!said.contains("horse") && !said.contains("battery"), "{said}");
        error
    };
    let error = refused(&by_passphrase, passphrase("battery staple"));
    assert!(matches!(error, VaultError::WrongPassphrase { .. }));
    assert_eq!(
        error.to_string(),
        format!("wrong passphrase for the fingerprint set {}; try again", by_passphrase.display())
    );
    assert!(matches!(refused(&by_identity, identity()), VaultError::OtherIdentity { .. }));
    assert!(matches!(refused(&by_identity, passphrase("battery")), VaultError::NeedsIdentity { .. }));
    assert!(matches!(refused(&by_passphrase, identity()), VaultError::NeedsPassphrase { .. }));
}

#[test]
fn every_truncation_is_refused() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = identity();
    Vault::create(&path, &key, &drawn_set(1, 2)).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        let error = open_bytes(folder.path(), &key, &bytes[..length]).unwrap_err();
        assert!(error.to_string().contains("cut off"), "{length}: {error:?}");
        assert_no_secret(&everything_said(&error));
    }
    open_bytes(folder.path(), &key, &bytes).unwrap();
}

#[test]
fn a_set_of_many_chunks_cut_between_two_of_them_is_refused() {
    // The cipher works in chunks of 64 KiB with a tag of 16 bytes; a cut between two leaves only whole chunks.
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = identity();
    Vault::create(&path, &key, &drawn_set(120, 64)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let mac = bytes.windows(5).position(|window| window == b"\n--- ").unwrap();
    let header = mac + 1 + bytes[mac + 1..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let first_chunk_end = header + 16 + 65_536 + 16;
    assert!(bytes.len() > first_chunk_end, "{}", bytes.len());
    let error = open_bytes(folder.path(), &key, &bytes[..first_chunk_end]).unwrap_err();
    assert!(matches!(error, VaultError::Truncated { .. }), "{error:?}");
}

#[test]
fn every_altered_byte_is_refused() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = identity();
    Vault::create(&path, &key, &drawn_set(1, 2)).unwrap();
    let bytes = fs::read(&path).unwrap();
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1;
        let error = open_bytes(folder.path(), &key, &altered).unwrap_err();
        assert_no_secret(&everything_said(&error));
    }
    let appended = [bytes.as_slice(), b"x"].concat();
    assert!(matches!(open_bytes(folder.path(), &key, &appended), Err(VaultError::Damaged { .. })));
}

#[test]
fn a_passphrase_file_cut_off_in_its_header_or_content_is_refused() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = passphrase("correct horse");
    Vault::create(&path, &key, &drawn_set(1, 2)).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in [0, 1, 21, 22, 40, 120, 200, bytes.len() - 17, bytes.len() - 1] {
        let error = open_bytes(folder.path(), &key, &bytes[..length]).unwrap_err();
        assert!(error.to_string().contains("cut off"), "{length}: {error:?}");
    }
}

#[test]
fn other_files_are_named_as_such() {
    let folder = folder();
    let identity = x25519::Identity::generate();
    let key = VaultKey::Identities(vec![identity.clone()]);
    let refused = |bytes: &[u8]| open_bytes(folder.path(), &key, bytes).unwrap_err();

    assert!(matches!(refused(b"{\"format\": \"hallmark commitment\"}"), VaultError::NotAnAgeFile { .. }));
    assert!(matches!(refused(b"age-encryption.org/v9\n"), VaultError::OtherAgeVersion { .. }));
    assert!(matches!(refused(&sealed(&identity, b"holiday photos")), VaultError::NotASet { .. }));
    assert!(matches!(refused(&sealed(&identity, br#"{"format": "x", "version": 1}"#)), VaultError::NotASet { .. }));
    let newer = br#"{"format": "hallmark fingerprint set", "version": 2, "keys": "elsewhere"}"#;
    assert!(matches!(refused(&sealed(&identity, newer)), VaultError::OtherVersion { found: 2, expected: 1, .. }));
    let absent = Vault::open(&folder.path().join("absent.age"), &key).unwrap_err();
    assert!(absent.to_string().contains("give the file that `hallmark fingerprint generate` wrote"), "{absent}");
}

#[test]
fn a_malformed_set_is_placed_but_not_quoted() {
    let folder = folder();
    let identity = x25519::Identity::generate();
    let plain = format!(
        "{{\"format\": \"hallmark fingerprint set\", \"version\": 1, \"recipients\": [],\n\"parameters\": \"{KEY_MARK}\"}}"
    );
    let key = VaultKey::Identities(vec![identity.clone()]);
    let error = open_bytes(folder.path(), &key, &sealed(&identity, plain.as_bytes())).unwrap_err();
    assert!(matches!(error, VaultError::Malformed { line: 2, .. }), "{error:?}");
    assert_no_secret(&everything_said(&error));
}

#[test]
fn a_set_whose_roots_do_not_follow_from_its_keys_is_refused() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let identity = x25519::Identity::generate();
    let key = VaultKey::Identities(vec![identity.clone()]);
    Vault::create(&path, &key, &embedded_set(2, 2)).unwrap();
    let plain = age::decrypt(&identity, &fs::read(&path).unwrap()).unwrap();
    let original: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    let word = serde_json::json!(format!("0x{}", "ab".repeat(32)));
    for (pointer, altered) in [
        ("/stage/root", word.clone()),
        ("/stage/set_root", word.clone()),
        ("/stage/beacon", word.clone()),
        ("/parameters/base", word),
        ("/fingerprints/1/key_text", serde_json::json!("another key")),
        ("/fingerprints/0/salt/5", serde_json::json!(1)),
        ("/fingerprints/0/candidates/1/text", serde_json::json!("another candidate")),
    ] {
        let mut forged = original.clone();
        *forged.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = altered;
        let bytes = sealed(&identity, forged.to_string().as_bytes());
        let error = open_bytes(folder.path(), &key, &bytes).unwrap_err();
        let inconsistent = matches!(error, VaultError::Set { source: SetError::Inconsistent { .. }, .. });
        assert!(inconsistent, "{pointer}: {error:?}");
        assert_no_secret(&everything_said(&error));
    }
    open_bytes(folder.path(), &key, &sealed(&identity, original.to_string().as_bytes())).unwrap();
}

#[test]
fn a_foreign_file_cannot_ask_for_all_memory() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = passphrase("correct horse");
    Vault::create(&path, &key, &drawn_set(1, 2)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let line_end = bytes[22..].iter().position(|byte| *byte == b'\n').unwrap() + 22;
    assert_eq!(&bytes[line_end - 2..line_end], b" 1");
    let greedy = [&bytes[..line_end - 1], b"40", &bytes[line_end..]].concat();
    let error = open_bytes(folder.path(), &key, &greedy).unwrap_err();
    assert!(matches!(error, VaultError::ExcessiveWork { required: 40, .. }), "{error:?}");
    assert!(WorkFactor::new(0).is_err() && WorkFactor::new(21).is_err());
}

#[test]
fn a_new_set_never_replaces_a_file() {
    let folder = folder();
    let path = folder.path().join("set.age");
    fs::write(&path, "something of the user's").unwrap();
    let error = Vault::create(&path, &identity(), &generated_set(1, 2)).unwrap_err();
    assert!(matches!(error, VaultError::Exists { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "something of the user's");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_set_that_another_command_changed_is_not_overwritten() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = identity();
    Vault::create(&path, &key, &committed_set(2, 4)).unwrap();
    let (mut first, mut drawn) = Vault::open(&path, &key).unwrap();
    let (mut second, mut drawn_otherwise) = Vault::open(&path, &key).unwrap();
    drawn.draw(BEACON, BeaconSource::SelfDrawn).unwrap();
    first.save(&drawn).unwrap();
    drawn_otherwise.draw(protocol::ids::Beacon::from_bytes([8; 32]), BeaconSource::SelfDrawn).unwrap();
    assert!(matches!(second.save(&drawn_otherwise), Err(VaultError::Changed { .. })));
    assert_eq!(content(&Vault::open(&path, &key).unwrap().1), content(&drawn));
}

#[test]
fn of_many_commands_that_save_at_once_one_succeeds() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = identity();
    Vault::create(&path, &key, &committed_set(2, 4)).unwrap();
    let start = std::sync::Barrier::new(8);
    let save = &|beacon: u8| {
        let (mut vault, mut set) = Vault::open(&path, &key).unwrap();
        set.draw(protocol::ids::Beacon::from_bytes([beacon; 32]), BeaconSource::SelfDrawn).unwrap();
        start.wait();
        vault.save(&set).is_ok().then(|| content(&set))
    };
    let saved: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|beacon| scope.spawn(move || save(beacon))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(saved.len(), 1, "a second draw of one root became known");
    assert_eq!(content(&Vault::open(&path, &key).unwrap().1), saved[0]);
}

#[test]
fn whoever_could_open_a_set_still_can_after_it_is_saved() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let (ours, theirs) = (x25519::Identity::generate(), x25519::Identity::generate());
    let recipients: Vec<Recipient> =
        [&ours, &theirs].map(|identity| identity.to_public().to_string().parse().unwrap()).into();
    Vault::create_for(&path, &recipients, &generated_set(1, 2)).unwrap();

    let (mut vault, mut set) = Vault::open(&path, &VaultKey::Identities(vec![ours])).unwrap();
    set.commit().unwrap();
    vault.save(&set).unwrap();
    let (_, opened) = Vault::open(&path, &VaultKey::Identities(vec![theirs])).unwrap();
    assert_eq!(content(&opened), content(&set));
}

#[test]
fn recipients_and_passphrases_are_checked() {
    let folder = folder();
    let path = folder.path().join("set.age");
    for text in ["", "age1", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1QQQQ"] {
        assert!(matches!(text.parse::<Recipient>(), Err(VaultError::Recipient)), "{text}");
    }
    assert!(matches!(Vault::create_for(&path, &[], &generated_set(1, 2)), Err(VaultError::NoRecipient)));
    assert!(matches!(Vault::create(&path, &passphrase(""), &generated_set(1, 2)), Err(VaultError::EmptyPassphrase)));
    assert!(!path.exists());
}

#[test]
fn identity_files_are_written_once_and_read_with_their_comments() {
    let folder = folder();
    let (set_path, path) = (folder.path().join("set.age"), folder.path().join("identity.txt"));
    let key = VaultKey::create_identity(&path).unwrap();
    Vault::create(&set_path, &key, &drawn_set(1, 2)).unwrap();
    Vault::open(&set_path, &VaultKey::read_identity(&path).unwrap()).unwrap();
    assert!(matches!(VaultKey::create_identity(&path), Err(VaultError::WriteIdentity { .. })));

    let text = fs::read_to_string(&path).unwrap().replace('\n', "\r\n");
    fs::write(&path, format!("# made elsewhere\r\n\r\n{text}")).unwrap();
    Vault::open(&set_path, &VaultKey::read_identity(&path).unwrap()).unwrap();

    for (text, line) in [("# only a comment\n", None), ("", None), ("\n\nAGE-SECRET-KEY-1SECRETSECRET\n", Some(3))] {
        fs::write(&path, text).unwrap();
        let error = VaultKey::read_identity(&path).unwrap_err();
        match line {
            None => assert!(matches!(error, VaultError::NoIdentity { .. })),
            Some(expected) => assert!(matches!(error, VaultError::NotAnIdentity { line, .. } if line == expected)),
        }
        assert!(!everything_said(&error).contains("SECRETSECRET"));
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_a_set_or_an_identity() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let (path, identity_path) = (folder.path().join("set.age"), folder.path().join("identity.txt"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let key = VaultKey::create_identity(&identity_path).unwrap();
    assert_eq!(mode(&identity_path), 0o600);
    Vault::create(&path, &key, &generated_set(1, 2)).unwrap();
    assert_eq!(mode(&path), 0o600);
    // A copy from elsewhere may have become readable; saving closes it again.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (mut vault, set) = Vault::open(&path, &key).unwrap();
    vault.save(&set).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_set_stays_a_link() {
    let folder = folder();
    let (path, link) = (folder.path().join("set.age"), folder.path().join("link.age"));
    let key = identity();
    Vault::create(&path, &key, &generated_set(1, 2)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (mut vault, mut set) = Vault::open(&link, &key).unwrap();
    set.commit().unwrap();
    vault.save(&set).unwrap();
    assert!(link.is_symlink());
    assert_eq!(content(&Vault::open(&path, &key).unwrap().1), content(&set));
}

/// Collects every event and span at every level, with all fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn write(&self, text: fmt::Arguments<'_>) {
        self.0.lock().unwrap().push_str(&text.to_string());
    }
}

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.write(format_args!("{field}={value:?} "));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
        self.write(format_args!("\n"));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn logs_and_debug_of_the_vault_hold_no_secret() {
    let folder = folder();
    let path = folder.path().join("set.age");
    let key = passphrase("correct horse");
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let mut vault = Vault::create(&path, &key, &embedded_set(2, 2)).unwrap();
        vault.save(&embedded_set(2, 2)).unwrap();
        let (vault, set) = Vault::open(&path, &key).unwrap();
        Vault::open(&path, &passphrase("wrong")).unwrap_err();
        tracing::info!(?vault, ?set, ?key, "everything that has a Debug");
    });
    let text = log.0.lock().unwrap().clone();
    assert!(text.contains("saved the fingerprint set") && text.contains("FingerprintSet"), "{text}");
    assert_no_secret(&text);
    assert!(!text.contains("horse"), "{text}");
}

#[test]
fn nothing_readable_is_on_the_disk() {
    let folder = folder();
    let path = folder.path().join("set.age");
    Vault::create(&path, &identity(), &embedded_set(4, 4)).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_no_secret(&String::from_utf8_lossy(&bytes));
    let mut plain = Vec::new();
    write!(plain, "{KEY_MARK}").unwrap();
    assert!(!bytes.windows(plain.len()).any(|window| window == plain));
}

fn fingerprints() -> impl Strategy<Value = Vec<Fingerprint>> {
    let key = ("\\PC{0,30}", any::<[u8; 32]>(), prop::collection::vec(any::<u32>(), 1..12));
    let candidates = prop::collection::vec((any::<u32>(), "\\PC{0,8}"), 4);
    prop::collection::vec((key, candidates), 1..6).prop_map(|list| {
        let unique = list.into_iter().enumerate().map(|(index, ((text, salt, ids), candidates))| {
            let candidates = candidates.into_iter().zip(["a", " B", "\u{e9}", "4"]);
            let candidates =
                candidates.map(|((id, rest), first)| Candidate { id, text: format!("{first}{rest}") }).collect();
            // The number keeps keys apart and gives them an end that is not white space.
            Fingerprint::new(salt, format!("{text}\"\\\n\t{index}"), ids, candidates)
        });
        unique.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_set_survives_the_file(keys in fingerprints(), beacon: [u8; 32], source in "\\PC{0,20}", steps in 0..3_u8) {
        let folder = folder();
        let path = folder.path().join("set.age");
        let count = u32::try_from(keys.len()).unwrap();
        let mut set = FingerprintSet::generated("any".to_owned(), parameters(count, 4), keys).unwrap();
        if steps > 0 {
            set.commit().unwrap();
        }
        if steps > 1 {
            set.draw(protocol::ids::Beacon::from_bytes(beacon), BeaconSource::Given { description: source }).unwrap();
        }
        let key = identity();
        Vault::create(&path, &key, &set).unwrap();
        prop_assert_eq!(content(&Vault::open(&path, &key).unwrap().1), content(&set));
    }
}
