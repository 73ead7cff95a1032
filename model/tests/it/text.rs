//! Text to ids and back, and chat templates, beside transformers.

use std::{fs, path::Path};

use model::{
    ChatTemplate, Message, SpecialTokens, Tokenizer,
    chat::{ChatError, UnixSeconds},
    tokenizer::TokenizerError,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::smollm2;

#[derive(Deserialize)]
struct Goldens {
    now: u64,
    templates: Vec<GoldenTemplate>,
}

#[derive(Deserialize)]
struct GoldenTemplate {
    name: String,
    source: String,
    special_tokens: serde_json::Map<String, Value>,
    cases: Vec<GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    rendered: Option<String>,
    refused: Option<String>,
}

#[test]
fn templates_render_as_in_transformers() {
    let goldens: Goldens = serde_json::from_str(include_str!("../golden/chat.json")).unwrap();
    for golden in goldens.templates {
        let template = ChatTemplate::new(&golden.source, golden.special_tokens).unwrap().at(UnixSeconds(goldens.now));
        for (index, case) in golden.cases.into_iter().enumerate() {
            let rendered = template.render(&case.messages, case.add_generation_prompt);
            match (rendered, case.rendered, case.refused) {
                (Ok(rendered), Some(expected), None) => assert_eq!(rendered, expected, "{} {index}", golden.name),
                (Err(ChatError::Refused { reason }), None, Some(expected)) => {
                    assert_eq!(reason, expected, "{} {index}", golden.name);
                }
                (rendered, _, refused) => panic!("{} {index}: {rendered:?} {refused:?}", golden.name),
            }
        }
    }
}

/// A folder with a byte-level tokenizer of 256 bytes, one special token and what `config` adds.
fn folder(config: Option<&Value>) -> tempfile::TempDir {
    let mut next = 0x100;
    let vocab: serde_json::Map<_, _> = (0..=255u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable { u32::from(byte) } else { next };
            next += u32::from(!printable);
            (char::from_u32(code).unwrap().to_string(), json!(byte))
        })
        .chain([("<s>".to_owned(), json!(256))])
        .collect();
    let definition = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "normalizer": null,
        "added_tokens": [{"id": 256, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), serde_json::to_vec_pretty(&definition).unwrap()).unwrap();
    if let Some(config) = config {
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    folder
}

#[test]
fn post_processor_adds_bos_only_when_asked_and_truncation_is_off() {
    let folder = folder(None);
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("abc", SpecialTokens::Add).unwrap(), [256, 97, 98, 99]);
    assert_eq!(tokenizer.encode("abc", SpecialTokens::Omit).unwrap(), [97, 98, 99]);
    assert_eq!(tokenizer.encode_template("<s>a").unwrap(), [256, 97]);
    assert_eq!(tokenizer.vocab_size(), 257);
    assert!(!tokenizer.is_special(256), "the file says that it is text");
}

#[test]
fn configuration_adds_tokens_and_makes_named_ones_special() {
    let config = json!({
        "bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": false,
        "added_tokens_decoder": {"257": {"content": "</s>", "lstrip": true, "normalized": false, "rstrip": false,
            "single_word": false, "special": false}},
        "extra_special_tokens": ["<x>"],
    });
    let (plain, configured) = (folder(None), folder(Some(&config)));
    let tokenizer = Tokenizer::load(configured.path()).unwrap();
    assert_eq!(tokenizer.encode("a </s><x>", SpecialTokens::Add).unwrap(), [256, 97, 257, 258]);
    assert!([256, 257, 258].iter().all(|id| tokenizer.is_special(*id)));
    assert_eq!(tokenizer.decode(&[256, 97, 257, 98, 9999], true), "ab");
    assert_eq!(tokenizer.decode(&[256, 97, 257, 98, 9999], false), "<s>a</s>b");
    assert_ne!(tokenizer.digest(), Tokenizer::load(plain.path()).unwrap().digest());
}

#[test]
fn digest_survives_another_layout_of_the_file() {
    let folder = folder(None);
    let path = folder.path().join("tokenizer.json");
    let before = Tokenizer::load(folder.path()).unwrap().digest();
    let definition: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fs::write(&path, definition.to_string()).unwrap();
    assert_eq!(Tokenizer::load(folder.path()).unwrap().digest(), before);
}

#[test]
fn unreadable_folders_are_named() {
    let error = Tokenizer::load(Path::new("/nowhere")).unwrap_err();
    assert!(matches!(&error, TokenizerError::Read { .. }) && error.to_string().contains("/nowhere/tokenizer.json"));
    let folder = tempfile::tempdir().unwrap();
    for (text, is_json) in [("{", false), ("{}", true), ("[1]", true), ("{\"model\": {\"type\": \"BPE\"}}", true)] {
        fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        let error = Tokenizer::load(folder.path()).unwrap_err();
        assert_eq!(matches!(error, TokenizerError::Definition { .. }), is_json, "{error:?}");
    }
}

#[test]
fn template_comes_from_its_own_file_before_the_configuration() {
    let config =
        json!({"chat_template": "configured {{ bos_token }}", "bos_token": {"content": "<b>"}, "eos_token": null});
    let folder = folder(Some(&config));
    fs::write(folder.path().join("special_tokens_map.json"), r#"{"bos_token": "<other>", "eos_token": "<e>"}"#)
        .unwrap();
    let render = || {
        let template = ChatTemplate::load(folder.path()).unwrap().unwrap();
        template.render(&[Message::user("x")], false).unwrap()
    };
    assert_eq!(render(), "configured <b>");
    fs::write(folder.path().join("chat_template.jinja"), "own {{ eos_token }}").unwrap();
    assert_eq!(render(), "own <e>");
    fs::write(folder.path().join("chat_template.jinja"), "{% if %}").unwrap();
    let error = ChatTemplate::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("chat_template.jinja"), "{error}");
}

#[test]
fn model_without_template_has_none() {
    assert!(ChatTemplate::load(folder(None).path()).unwrap().is_none());
    assert!(ChatTemplate::load(folder(Some(&json!({"chat_template": null}))).path()).unwrap().is_none());
}

#[test]
#[ignore = "needs shared data"]
fn smollm2_chats_have_the_ids_of_transformers() {
    let tokenizer = Tokenizer::load(&smollm2::folder()).unwrap();
    let template = ChatTemplate::load(&smollm2::folder()).unwrap().unwrap();
    let goldens = smollm2::goldens();
    let chats = goldens["chats"].as_array().unwrap();
    assert!(!chats.is_empty());
    for chat in chats {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        for (generation, key) in [(false, "ids"), (true, "ids_generation")] {
            let expected: Vec<u32> = serde_json::from_value(chat[key].clone()).unwrap();
            let rendered = template.render(&messages, generation).unwrap();
            assert_eq!(tokenizer.encode_template(&rendered).unwrap(), expected, "{messages:?}");
        }
    }
}

#[test]
#[ignore = "needs shared data"]
fn smollm2_strings_have_the_ids_of_transformers() {
    let tokenizer = Tokenizer::load(&smollm2::folder()).unwrap();
    let goldens = smollm2::goldens();
    let strings = goldens["strings"].as_array().unwrap();
    assert!(!strings.is_empty());
    for string in strings {
        let expected: Vec<u32> = serde_json::from_value(string["ids"].clone()).unwrap();
        let ids = tokenizer.encode(string["text"].as_str().unwrap(), SpecialTokens::Add).unwrap();
        assert_eq!(ids, expected, "{string}");
        assert_eq!(tokenizer.decode(&ids, false), string["decoded"].as_str().unwrap());
    }
}

#[test]
#[ignore = "needs shared data"]
fn smollm2_stream_equals_the_whole_for_any_text_and_any_ids() {
    let tokenizer = Tokenizer::load(&smollm2::folder()).unwrap();
    let size = u32::try_from(tokenizer.vocab_size()).unwrap();
    proptest!(|(text in any::<String>(), noise in prop::collection::vec(0..size, 0..20), skip in any::<bool>())| {
        let mut ids = tokenizer.encode(&text, SpecialTokens::Omit).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false), text);
        ids.extend(noise);
        let mut stream = tokenizer.stream_decoder(skip);
        let mut streamed: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
        streamed.extend(stream.finish());
        prop_assert_eq!(streamed, tokenizer.decode(&ids, skip));
    });
}
