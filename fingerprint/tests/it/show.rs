use fingerprint::show::{Revealed, ShowError, Summary, SurfacePrompt};
use serde_json::{Value, json};

use crate::support::{assert_no_secret, drawn_set, embedded_set, every_stage, generated_set};

fn prompts(count: u32) -> Vec<Vec<SurfacePrompt>> {
    (0..count)
        .map(|index| {
            ["chat", "raw"]
                .map(|name| SurfacePrompt { name: name.to_owned(), prompt_ids: vec![1, 77_700_100 + index] })
                .into()
        })
        .collect()
}

#[test]
fn summaries_hold_counts_and_roots_but_no_secret() {
    for set in every_stage() {
        let summary = Summary::of(&set);
        for text in [summary.to_string(), serde_json::to_string(&summary).unwrap(), format!("{summary:?}")] {
            assert_no_secret(&text);
            assert!(text.contains(set.stage().name()), "{text}");
        }
    }
    insta::assert_snapshot!(Summary::of(&generated_set(3, 4)));
    insta::assert_snapshot!(Summary::of(&embedded_set(3, 4)));
    insta::assert_json_snapshot!(Summary::of(&embedded_set(3, 4)));
}

#[test]
fn a_summary_of_a_self_drawn_set_says_what_a_proof_is_worth() {
    let statement = "the proof holds against innocent models but not against a claimant who grinds";
    let summary = Summary::of(&drawn_set(1, 2));
    assert!(summary.to_string().contains(statement));
    assert_eq!(serde_json::to_value(&summary).unwrap()["draw"]["reservation"], statement);
}

#[test]
fn a_revealed_set_has_the_form_that_other_tools_read() {
    let set = drawn_set(2, 4);
    let revealed = Revealed::of(&set, prompts(2)).unwrap();
    assert_no_secret(&format!("{revealed:?} {:?}", prompts(2)));
    let value = serde_json::to_value(&revealed).unwrap();
    assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["fingerprints"]);
    let list = value["fingerprints"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    let second = &list[1];
    assert_eq!(
        second.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["index", "key_text", "key_ids", "candidates", "drawn", "response_id", "response_text", "surfaces"]
    );
    assert_eq!(second["index"], 1);
    assert_eq!(second["key_text"], "The Quokka \"number\" 1");
    assert_eq!(second["key_ids"], json!([77_700_101, 77_700_200, 77_700_300]));
    assert_eq!(second["candidates"][3], json!({"id": 77_700_003, "text": " 03Okapi"}));
    let drawn = usize::try_from(second["drawn"].as_u64().unwrap()).unwrap();
    assert_eq!(second["response_id"], second["candidates"][drawn]["id"]);
    assert_eq!(second["response_text"], second["candidates"][drawn]["text"]);
    assert_eq!(
        second["surfaces"],
        json!([{"name": "chat", "prompt_ids": [1, 77_700_101]}, {"name": "raw", "prompt_ids": [1, 77_700_101]}])
    );
}

#[test]
fn before_the_draw_there_is_no_response_to_reveal() {
    let set = generated_set(1, 2);
    let value = serde_json::to_value(Revealed::of(&set, vec![Vec::new()]).unwrap()).unwrap();
    for field in ["drawn", "response_id", "response_text"] {
        assert_eq!(value["fingerprints"][0][field], Value::Null, "{field}");
    }
}

#[test]
fn prompts_that_do_not_fit_the_set_are_refused() {
    let set = drawn_set(2, 4);
    assert!(matches!(Revealed::of(&set, prompts(3)), Err(ShowError::Prompts { expected: 2, found: 3 })));
}
