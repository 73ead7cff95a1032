use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn load(definition: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), definition.to_string()).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

fn definition(vocab: &[String], decoder: &Value, special: u32) -> Value {
    let vocab: serde_json::Map<_, _> = vocab.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": decoder,
        "added_tokens": [{"id": special, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": false, "fuse_unk": false,
            "unk_token": null, "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null},
    })
}

fn byte_level() -> Tokenizer {
    let mut vocab: Vec<String> = (0..0x144u32)
        .filter_map(char::from_u32)
        .filter(|character| byte_of(*character).is_some())
        .map(String::from)
        .collect();
    assert_eq!(vocab.len(), 256);
    vocab.extend(["Ġthe", "ðŁĺ", "ĢĢ", "<|end|>", "Ã¼ber"].map(String::from));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    load(&definition(&vocab, &decoder, 259))
}

fn sentence_piece() -> Tokenizer {
    let mut vocab: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    vocab.extend(["▁", "▁the", "▁▁x", "<|end|>", "ü", "日"].map(String::from));
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    load(&definition(&vocab, &decoder, 259))
}

fn metaspace() -> Tokenizer {
    let vocab = ["▁", "▁the", "▁▁x", "<|end|>", "ü"].map(String::from);
    let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    load(&definition(&vocab, &decoder, 3))
}

/// Ids that are likely to make and break characters.
fn ids() -> impl Strategy<Value = Vec<u32>> {
    let text = any::<String>().prop_map(|text| text.bytes().map(u32::from).collect::<Vec<_>>());
    let piece = prop_oneof![2 => text, 2 => prop::collection::vec(0u32..262, 0..4), 1 => prop::collection::vec(256u32..262, 0..4)];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn check(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Result<(), TestCaseError> {
    let whole = tokenizer.inner.decode(ids, skip_special).unwrap();
    let mut stream = tokenizer.stream_decoder(skip_special);
    let mut text = String::new();
    for id in ids {
        text.extend(stream.push(*id));
        prop_assert!(whole.starts_with(&text), "{text:?} is not a beginning of {whole:?}");
    }
    text.extend(stream.finish());
    prop_assert_eq!(&text, &whole);
    // The decoder begins a new text after `finish`.
    let again: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
    prop_assert_eq!(again + &stream.finish().unwrap_or_default(), whole);
    Ok(())
}

proptest! {
    #[test]
    fn byte_level_stream_equals_the_whole(ids in ids(), skip in any::<bool>()) {
        check(&byte_level(), &ids, skip)?;
    }

    #[test]
    fn sentence_piece_stream_equals_the_whole(ids in ids(), skip in any::<bool>()) {
        check(&sentence_piece(), &ids, skip)?;
    }

    #[test]
    fn metaspace_stream_equals_the_whole(ids in prop::collection::vec(0u32..6, 0..12), skip in any::<bool>()) {
        check(&metaspace(), &ids, skip)?;
    }

    #[test]
    fn byte_level_holds_at_most_three_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut held = Vec::new();
        let mut text = String::new();
        for byte in &bytes {
            held.push(*byte);
            text += &take_decided(&mut held);
            prop_assert!(held.len() <= 3);
        }
        text += &String::from_utf8_lossy(&held);
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn emoji_arrives_when_its_last_byte_does() {
    let tokenizer = byte_level();
    let id = |token: &str| tokenizer.token_id(token).unwrap();
    let mut stream = tokenizer.stream_decoder(true);
    assert_eq!(stream.push(id("ðŁĺ")), None);
    assert_eq!(stream.push(id("Ģ")).as_deref(), Some("😀"));
    assert_eq!(stream.push(id("<|end|>")), None);
    assert_eq!(stream.push(id("ðŁĺ")), None);
    assert_eq!(stream.finish().as_deref(), Some("\u{fffd}"));
    assert_eq!(stream.finish(), None);
}

#[test]
fn token_text_keeps_the_leading_space_and_refuses_partial_characters() {
    let tokenizer = byte_level();
    let text = |token: &str| tokenizer.token_text(tokenizer.token_id(token).unwrap());
    assert_eq!(text("Ġthe").as_deref(), Some(" the"));
    assert_eq!(text("Ã¼ber").as_deref(), Some("über"));
    assert_eq!(text("ðŁĺ"), None);
    assert_eq!(text("<|end|>").as_deref(), Some("<|end|>"));
    assert_eq!(tokenizer.token_text(100_000), None);

    let tokenizer = sentence_piece();
    let text = |token: &str| tokenizer.token_text(tokenizer.token_id(token).unwrap());
    assert_eq!(text("▁the").as_deref(), Some(" the"));
    assert_eq!(text("<0x41>").as_deref(), Some("A"));
    assert_eq!(text("<0xE6>"), None);
}

#[test]
fn unknown_decoder_is_refused_by_name() {
    for (decoder, name) in [
        (json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), "WordPiece"),
        (json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}), "Fuse, ByteFallback"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let vocab = ["a", "<|end|>"].map(String::from);
        fs::write(folder.path().join("tokenizer.json"), definition(&vocab, &decoder, 1).to_string()).unwrap();
        let error = Tokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
