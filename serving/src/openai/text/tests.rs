use std::{future::poll_fn, num::NonZeroUsize};

use model::Likelihood;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::{
    engine::completion_channel,
    openai::testkit::{ids, tokenizer},
};

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// What a client gets of these tokens, piece by piece, and how far the stream came.
fn pieces(ids: &[u32], stops: &[String]) -> (Vec<Said>, FinishReason, Progress) {
    let (sender, stream) = completion_channel(NonZeroUsize::new(ids.len().max(1)).unwrap());
    for id in ids {
        let likelihood = Some(Box::new(Likelihood { chosen: -1.0, likeliest: Vec::new() }));
        sender.token(GeneratedToken { id: *id, likelihood });
    }
    sender.finish(FinishReason::Length);
    let mut stream = TextStream::new(&tokenizer(), stream, stops.to_vec(), true);
    let mut pieces = Vec::new();
    runtime().block_on(async {
        loop {
            match poll_fn(|context| stream.poll_next(context)).await.unwrap() {
                TextEvent::Piece(said) => pieces.push(said),
                TextEvent::Finished(reason) => return (pieces, reason, stream.progress()),
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_token_goes_out_once_and_with_its_own_text(
        text in "[a-e é🦀水\n]{0,40}",
        stops in prop::collection::vec("[a-e é🦀]{1,3}", 0..3),
    ) {
        let ids = ids(&text);
        let decoded = tokenizer().decode(&ids, true);
        let (pieces, reason, progress) = pieces(&ids, &stops);
        let said: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        prop_assert!(decoded.starts_with(&said));
        let stopped = stops.iter().any(|stop| decoded.contains(stop.as_str()));
        prop_assert_eq!(reason == FinishReason::Stop, stopped);
        prop_assert!(stopped || said == decoded);

        let (mut text_bytes, mut token_bytes, mut count) = (0, 0, 0);
        for (index, piece) in pieces.iter().enumerate() {
            text_bytes += piece.text.len();
            for token in piece.tokens.iter().flatten() {
                prop_assert_eq!(&token.bytes, &tokenizer().token_bytes(ids[count]).unwrap());
                prop_assert!(token_bytes < text_bytes, "a token goes out with text of its own, or behind all text");
                prop_assert!(token.offset <= said.chars().count());
                token_bytes += token.bytes.len();
                count += 1;
            }
            // Only the last token may be cut, and none is late.
            prop_assert!(token_bytes <= text_bytes || index + 1 == pieces.len());
        }
        prop_assert!(token_bytes >= said.len());
        prop_assert!(progress.generated.get() >= u64::try_from(count).unwrap());
        prop_assert!(stopped || count == ids.len());
    }
}

#[test]
fn text_of_an_engine_is_cut_at_stop_strings_and_has_no_more_tokens_than_were_allowed() {
    let (sender, stream) = completion_channel(NonZeroUsize::new(4).unwrap());
    let mut stream = TextStream::new(&tokenizer(), stream, vec!["STOP".to_owned()], false);
    runtime().block_on(async {
        for piece in ["one ST", "OP two"] {
            sender.text(piece.to_owned()).await;
        }
        let mut text = String::new();
        while let TextEvent::Piece(said) = poll_fn(|context| stream.poll_next(context)).await.unwrap() {
            assert!(said.tokens.is_none());
            text += &said.text;
        }
        assert_eq!((text.as_str(), stream.progress().generated), ("one ", TokenCount::new(4)));
        assert!(sender.is_abandoned());
    });
}
