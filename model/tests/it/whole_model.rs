use std::{fs, path::Path};

use model::{Manifest, Model, SpecialTokens, error::ModelError, hub::BUNDLED};
use serde_json::{Map, json};

use crate::support::{message, parity_fixture, write};

/// A fixture's decoder beside a byte-level tokenizer of this many tokens.
fn write_model(directory: &Path, tokens: usize) {
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(parity_fixture("llama2-gqa").join(file), directory.join(file)).unwrap();
    }
    let vocabulary: Map<_, _> =
        (0..tokens).map(|id| (char::from_u32(id as u32 + 33).unwrap().to_string(), json!(id))).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
    });
    write(directory, "tokenizer.json", tokenizer.to_string());
}

#[test]
fn a_folder_is_loaded_with_all_its_parts() {
    let directory = tempfile::tempdir().unwrap();
    write_model(directory.path(), 320);
    let model = Model::load(directory.path().to_str().unwrap()).unwrap();
    assert_eq!(model.directory, directory.path());
    assert_eq!((&model.config, model.config.vocab_size), (model.decoder.config(), 320));
    assert_eq!(model.manifest_digest, Manifest::of(directory.path()).unwrap().digest());
    assert_eq!(model.tokenizer.vocab_size(), 320);
    assert!(model.chat.is_none(), "no template, no chat");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_model(directory.path(), 321);
    let error = Model::open(directory.path()).unwrap_err();
    let expected = ModelError::Vocabulary { directory: directory.path().to_owned(), tokenizer: 321, embeddings: 320 };
    assert_eq!(message(&error), expected.to_string());
}

#[test]
fn the_bundled_model_is_a_chat_model() {
    let model = Model::load(BUNDLED).unwrap();
    assert!(model.chat.is_some());
    let ids = model.tokenizer.encode("To be, or not to be", SpecialTokens::Omit).unwrap();
    assert_eq!(model.decoder.token_losses(&ids).unwrap().len(), ids.len() - 1);
}

#[test]
fn a_reference_to_nothing_is_an_error_that_says_so() {
    let error = Model::load("no such folder").unwrap_err();
    assert!(message(&error).contains("\"no such folder\" is neither a folder"));
    assert!(!error.is_retryable());
}
