//! A real SentencePiece vocabulary: pieces with scores, from which the merges have to be recovered.

use std::fs;

use model::{SpecialTokens, Tokenizer, gguf::WeightType};
use serde_json::json;

use super::{imported, model};
use crate::smollm2;

/// Pieces of a `tokenizer.model`: text, score and type of each (`sentencepiece_model.proto`, field 1).
fn pieces(bytes: &[u8]) -> Vec<(String, f32, i32)> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (field, value) = field(&mut rest);
        if let (1, Wire::Bytes(mut piece)) = (field, value) {
            let mut entry = (String::new(), 0.0, 1);
            while !piece.is_empty() {
                match self::field(&mut piece) {
                    (1, Wire::Bytes(text)) => entry.0 = String::from_utf8(text.to_vec()).unwrap(),
                    (2, Wire::Fixed32(bits)) => entry.1 = f32::from_bits(bits),
                    (3, Wire::Varint(kind)) => entry.2 = i32::try_from(kind).unwrap(),
                    _ => {}
                }
            }
            out.push(entry);
        }
    }
    out
}

enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

fn field<'a>(input: &mut &'a [u8]) -> (u64, Wire<'a>) {
    let tag = varint(input);
    let value = match tag & 7 {
        0 => Wire::Varint(varint(input)),
        2 => {
            let length = usize::try_from(varint(input)).unwrap();
            let (bytes, rest) = input.split_at(length);
            *input = rest;
            Wire::Bytes(bytes)
        }
        5 => {
            let (bytes, rest) = input.split_first_chunk().unwrap();
            *input = rest;
            Wire::Fixed32(u32::from_le_bytes(*bytes))
        }
        other => panic!("wire type {other}"),
    };
    (tag >> 3, value)
}

fn varint(input: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first().unwrap();
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

#[test]
#[ignore = "needs shared data"]
fn stories260k_vocabulary_gives_the_ids_of_its_tokenizer_json() {
    let reference = smollm2::shared().join("data/models/stories260K");
    let pieces = pieces(&fs::read(reference.join("tokenizer.model")).unwrap());
    let vocabulary = json!({
        "model": "llama", "bos": 1, "eos": 2, "unknown": 0,
        "tokens": pieces.iter().map(|piece| &piece.0).collect::<Vec<_>>(),
        "scores": pieces.iter().map(|piece| piece.1).collect::<Vec<_>>(),
        "token_type": pieces.iter().map(|piece| piece.2).collect::<Vec<_>>(),
    });
    let (folder, _) = imported(&model("llama", &vocabulary, 32), WeightType::Bf16);
    let ours = Tokenizer::load(&folder.path().join("out")).unwrap();
    let theirs = Tokenizer::load(&reference).unwrap();
    let corpus = fs::read_to_string(smollm2::shared().join("data/corpora/wikitext-2-valid.txt")).unwrap();
    let extra = ["Once upon a time", " 日本語 🙂 ß", "</s> text <s>", "\t\n  x"];
    for text in corpus.lines().take(400).chain(extra) {
        let ids = ours.encode(text, SpecialTokens::Omit).unwrap();
        assert_eq!(ids, theirs.encode(text, SpecialTokens::Omit).unwrap(), "{text:?}");
        assert_eq!(ours.decode(&ids, false), theirs.decode(&ids, false));
    }
}
