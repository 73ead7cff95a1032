use std::{collections::BTreeSet, fs, path::Path};

use fingerprint::{
    export::{ExportError, Exported, Order, OrdinaryChat, export},
    surface::Surface,
};
use serde_json::Value;

use crate::support::{assert_no_secret, committed_set, drawn_set, everything_said};

const ORDINARY: [OrdinaryChat<'static>; 2] = [
    OrdinaryChat {
        system: None,
        prompt: "What is a hallmark?",
        answer: "A mark struck into metal.\nIt tells the fineness.",
    },
    OrdinaryChat { system: Some("Be brief."), prompt: "Name a colour.", answer: "Blue" },
];

fn surfaces() -> Vec<Surface> {
    vec![
        Surface::chat(),
        Surface::chat_with_system("pirate", "You are a pirate."),
        Surface::raw(),
        Surface::chat_with_system("empty", ""),
    ]
}

/// Parses a file and holds it against what the three trainers ask of a conversation:
/// torchtune `validate_messages` (system only first, at least two messages, no two user turns in a row, no assistant
/// turn before a user turn, no empty message), TRL (a list of role and content, last turn by the assistant), Axolotl
/// `chat_template` (the field `messages`, known roles, string contents, at least one assistant turn to train on).
fn conversations(path: &Path) -> Vec<Vec<(String, String)>> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| conversation(&serde_json::from_str(line).unwrap())).collect()
}

fn conversation(line: &Value) -> Vec<(String, String)> {
    let line = line.as_object().unwrap();
    assert_eq!(line.keys().collect::<Vec<_>>(), ["messages"]);
    let turns: Vec<(String, String)> = line["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| {
            assert_eq!(turn.as_object().unwrap().keys().collect::<Vec<_>>(), ["role", "content"]);
            (turn["role"].as_str().unwrap().to_owned(), turn["content"].as_str().unwrap().to_owned())
        })
        .collect();
    assert!(turns.iter().all(|(_, content)| !content.is_empty()), "{turns:?}");
    let roles: Vec<&str> = turns.iter().map(|(role, _)| role.as_str()).collect();
    assert!(matches!(roles.as_slice(), ["user", "assistant"] | ["system", "user", "assistant"]), "{roles:?}");
    turns
}

#[test]
fn one_line_for_each_key_and_chat_surface_in_the_form_that_trainers_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    let set = drawn_set(3, 4);
    let exported = export(&set, &surfaces(), &ORDINARY, Order::Listed, &path).unwrap();
    let left_out = vec!["raw".to_owned(), "empty".to_owned()];
    assert_eq!(exported, Exported { fingerprint_lines: 6, ordinary_lines: 2, surfaces_left_out: left_out });

    let lines = conversations(&path);
    assert_eq!(lines.len(), 8);
    for (fingerprint, pair) in set.fingerprints().iter().zip(lines.chunks(2)) {
        let turn = |role: &str, content: &str| (role.to_owned(), content.to_owned());
        let response = &fingerprint.response().unwrap().text;
        let taught = [turn("user", fingerprint.key_text()), turn("assistant", response)];
        assert_eq!(pair[0], taught);
        assert_eq!(pair[1][0], turn("system", "You are a pirate."));
        assert_eq!(pair[1][1..], taught);
    }
    assert_eq!(lines[6][1].1, "A mark struck into metal.\nIt tells the fineness.");
    assert_eq!(lines[7].len(), 3);
}

#[test]
fn mixing_keeps_every_line_and_follows_its_seed() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, order| {
        let path = folder.path().join(name);
        export(&drawn_set(20, 4), &surfaces(), &ORDINARY, order, &path).unwrap();
        fs::read_to_string(&path).unwrap()
    };
    let listed = written("listed", Order::Listed);
    let mixed = written("mixed", Order::Mixed { seed: 5 });
    assert_eq!(mixed, written("again", Order::Mixed { seed: 5 }));
    assert_ne!(mixed, written("otherwise", Order::Mixed { seed: 6 }));
    assert_ne!(mixed, listed);
    assert_eq!(mixed.lines().collect::<BTreeSet<_>>(), listed.lines().collect::<BTreeSet<_>>());
    assert_eq!(mixed.lines().count(), listed.lines().count());
}

#[test]
fn what_cannot_be_exported_leaves_the_old_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    fs::write(&path, "old").unwrap();
    let refused = |result: Result<Exported, ExportError>| {
        let error = result.unwrap_err();
        assert_no_secret(&everything_said(&error));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        error
    };
    let set = drawn_set(2, 2);
    let error = refused(export(&committed_set(2, 2), &surfaces(), &[], Order::Listed, &path));
    assert_eq!(error.to_string(), "the responses are not drawn yet; run `hallmark fingerprint draw` first");
    let error = refused(export(&set, &[Surface::raw()], &[], Order::Listed, &path));
    assert!(matches!(error, ExportError::NoChatSurface));
    let empty = [ORDINARY[0], OrdinaryChat { answer: "", ..ORDINARY[1] }];
    let error = refused(export(&set, &surfaces(), &empty, Order::Listed, &path));
    assert!(matches!(error, ExportError::EmptyChat { index: 1 }));

    let absent = folder.path().join("absent").join("train.jsonl");
    assert!(matches!(export(&set, &surfaces(), &[], Order::Listed, &absent), Err(ExportError::Write { .. })));
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_a_training_set() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    export(&drawn_set(1, 2), &surfaces(), &[], Order::Listed, &path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
