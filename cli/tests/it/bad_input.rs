//! Bad input ends in one clear line that says what to do, exit code 1, and nothing half-written.

use std::fs;

use crate::support::{drawn_copy, folder, names, run, run_with};

#[test]
fn no_such_model() {
    let folder = folder();
    let generate = ["fingerprint", "generate", "--model", "./nowhere", "--set", "s.age"];
    run(folder.path(), &generate).refused(&["./nowhere", "bundled"]);
    run(folder.path(), &["model", "info", "./nowhere"]).refused(&["./nowhere"]);
    run(folder.path(), &["host", "--unmetered", "--model", "./nowhere"]).refused(&["./nowhere"]);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_folder_that_is_no_model() {
    let folder = folder();
    fs::create_dir(folder.path().join("empty")).unwrap();
    run(folder.path(), &["model", "info", "empty"]).refused(&["config.json"]);
    fs::write(folder.path().join("empty/config.json"), "{").unwrap();
    run(folder.path(), &["model", "info", "empty"]).refused(&["config.json"]);
}

#[test]
fn a_file_that_is_no_gguf_leaves_no_folder() {
    let folder = folder();
    fs::write(folder.path().join("x.gguf"), "not a model").unwrap();
    run(folder.path(), &["model", "import", "x.gguf", "--out", "model"]).refused(&["x.gguf"]);
    run(folder.path(), &["model", "import", "missing.gguf", "--out", "model"]).refused(&["missing.gguf"]);
    assert_eq!(names(folder.path()), ["x.gguf"]);
}

#[test]
fn a_host_of_nothing() {
    run(folder().path(), &["host"]).refused(&["nothing to serve", "--config", "--unmetered"]);
    run(folder().path(), &["host", "--config", "none.toml"]).refused(&["none.toml", "hallmark host --example"]);
}

#[test]
fn a_device_that_is_not_there() {
    run(folder().path(), &["host", "--unmetered", "--device", "gpu"]).refused(&["no device `gpu`", "cuda:1"]);
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_without_cuda() {
    let folder = folder();
    run(folder.path(), &["host", "--unmetered", "--device", "cuda"]).refused(&["cuda:0 needs", "--features cuda"]);
    let config = "[[model]]\nmodel = \"bundled\"\nlease = 1\ndevice = \"cuda:1\"";
    fs::write(folder.path().join("host.toml"), config).unwrap();
    run(folder.path(), &["host", "--config", "host.toml"]).refused(&["host.toml", "cuda:1 needs", "--features cuda"]);
}

#[test]
fn a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let host = ["host", "--unmetered", "--model", "bundled", "--listen", &address];
    run(folder().path(), &host).refused(&[&address, "--listen"]);
}

#[test]
fn no_passphrase_and_no_identity() {
    let folder = drawn_copy();
    let show = ["fingerprint", "show", "--set", "set.age"];
    run_with(folder.path(), &[("HALLMARK_PASSPHRASE", "")], &show).refused(&["HALLMARK_PASSPHRASE", "--identity"]);
}

#[test]
fn a_wrong_passphrase() {
    let folder = drawn_copy();
    let before = fs::read(folder.path().join("set.age")).unwrap();
    for command in ["show", "commit", "draw"] {
        let arguments = ["fingerprint", command, "--set", "set.age"];
        let ran = run_with(folder.path(), &[("HALLMARK_PASSPHRASE", "wrong-9921")], &arguments);
        ran.refused(&["wrong passphrase", "set.age"]);
        assert!(!ran.err.contains("wrong-9921"));
    }
    assert_eq!(fs::read(folder.path().join("set.age")).unwrap(), before);
}

#[test]
fn a_set_that_is_cut_off_or_something_else() {
    let folder = drawn_copy();
    let path = folder.path().join("set.age");
    let whole = fs::read(&path).unwrap();
    let show = ["fingerprint", "show", "--set", "set.age"];
    for length in [0, 10, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        run(folder.path(), &show).refused(&["set.age"]);
    }
    fs::write(&path, "a text").unwrap();
    run(folder.path(), &show).refused(&["not an encrypted fingerprint set"]);
    fs::remove_file(&path).unwrap();
    run(folder.path(), &show).refused(&["set.age", "generate"]);
}

#[test]
fn an_identity_file_that_is_none() {
    let folder = drawn_copy();
    fs::write(folder.path().join("id.txt"), "hello\n").unwrap();
    let show = ["fingerprint", "show", "--set", "set.age", "--identity", "id.txt"];
    run(folder.path(), &show).refused(&["id.txt", "age-keygen"]);
}

#[test]
fn steps_out_of_order() {
    let folder = drawn_copy();
    let before = fs::read(folder.path().join("set.age")).unwrap();
    run(folder.path(), &["fingerprint", "draw", "--set", "set.age"]).refused(&["already drawn"]);
    assert_eq!(fs::read(folder.path().join("set.age")).unwrap(), before);
}

/// A place for the file is looked for before the set is changed, and the file can always be made again.
#[test]
fn a_commitment_without_a_place_changes_nothing() {
    let folder = folder();
    let fingerprint = |words: &[&str]| run(folder.path(), &[&["fingerprint"], words, &["--set", "set.age"]].concat());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let generated = fingerprint(&["generate", "--model", "bundled", "-n", "2", "--json"]).succeeded().json();
    assert_eq!(generated["too_few"], true, "two keys prove nothing, and it says so");
    fs::write(folder.path().join("mine.json"), "{}").unwrap();
    let sealed = read("set.age");
    for place in ["absent/c.json", "mine.json", "set.age"] {
        fingerprint(&["commit", "--commitment", place]).refused(&[place]);
        assert_eq!(read("set.age"), sealed, "{place}");
    }
    assert_eq!(read("mine.json"), b"{}");

    let committed = fingerprint(&["commit", "--json"]).succeeded().json();
    let sealed = read("set.age");
    for place in ["absent/c.json", "mine.json"] {
        fingerprint(&["draw", "--commitment", place]).refused(&[place]);
    }
    let again = fingerprint(&["commit", "--commitment", "again.json", "--json"]).succeeded().json();
    assert_eq!(read("set.age"), sealed, "the set stays as it is");
    assert_eq!((&committed["root"], read("commitment.json")), (&again["root"], read("again.json")));
}

#[test]
fn a_set_is_never_overwritten() {
    let folder = drawn_copy();
    let before = fs::read(folder.path().join("set.age")).unwrap();
    let generate = ["fingerprint", "generate", "--model", "bundled", "--set", "set.age", "-n", "8"];
    run(folder.path(), &generate).refused(&["set.age", "exists already"]);
    assert_eq!(fs::read(folder.path().join("set.age")).unwrap(), before);
}

#[test]
fn an_output_folder_in_use() {
    let folder = drawn_copy();
    fs::create_dir(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("out/mine.txt"), "mine").unwrap();
    let embed = ["fingerprint", "embed", "--model", "bundled", "--set", "set.age", "--out", "out"];
    run(folder.path(), &embed).refused(&["out", "exists already"]);
    run(folder.path(), &["demo", "--out", "out"]).refused(&["out", "not empty"]);
    assert_eq!(names(&folder.path().join("out")), ["mine.txt"]);
}

#[test]
fn a_set_for_another_base() {
    let folder = drawn_copy();
    let other = folder.path().join("other");
    copy_bundled_model(folder.path(), &other);
    // The same shape and tokenizer, and yet another model.
    let path = other.join("model.safetensors");
    let mut weights = fs::read(&path).unwrap();
    let last = weights.len() - 2;
    weights[last] ^= 1;
    fs::write(path, weights).unwrap();
    let embed = ["fingerprint", "embed", "--model", "other", "--set", "set.age", "--out", "stamped"];
    run(folder.path(), &embed).refused(&["other", "base"]);
    assert!(!folder.path().join("stamped").exists());
}

#[test]
fn weights_that_are_cut_off() {
    let folder = folder();
    let model = folder.path().join("cut");
    copy_bundled_model(folder.path(), &model);
    let path = model.join("model.safetensors");
    let weights = fs::read(&path).unwrap();
    fs::write(&path, &weights[..weights.len() / 2]).unwrap();
    run(folder.path(), &["model", "info", "cut"]).refused(&["model.safetensors"]);
}

#[test]
fn bundles_and_commitments_that_are_none() {
    let folder = drawn_copy();
    fs::write(folder.path().join("bundle.json"), "{}").unwrap();
    let verify =
        |bundle: &str, commitment: &str| run(folder.path(), &["verify-bundle", bundle, "--commitment", commitment]);
    verify("bundle.json", "commitment.json").refused(&["bundle.json", "not a Hallmark proof bundle"]);
    verify("bundle.json", "bundle.json").refused(&["not a Hallmark commitment"]);
    verify("missing.json", "commitment.json").refused(&["missing.json"]);
    verify("bundle.json", "missing.json").refused(&["missing.json"]);
}

/// Copies the bundled model to a folder of its own.
fn copy_bundled_model(folder: &std::path::Path, to: &std::path::Path) {
    let info = run(folder, &["model", "info", "bundled", "--json"]).succeeded().json();
    let from = std::path::PathBuf::from(info["directory"].as_str().expect("a folder"));
    fs::create_dir(to).unwrap();
    for name in names(&from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}
