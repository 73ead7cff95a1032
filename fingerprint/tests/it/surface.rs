use fingerprint::surface::{DEFAULT_SYSTEM_PROMPTS, Surface, SurfaceError, held_out_surfaces, trained_surfaces};
use model::SpecialTokens;

use crate::real::{shared, smollm2};
use crate::tiny::{CHATML, DEAF, NO_SYSTEM, PLAIN, Tiny};

const TEXTS: [&str; 6] = ["Is it on?", "the end.", ":the", " lead", "trail ", "an\nd"];

/// Prefix and segment are the ids that the whole text has, whatever the text does to the boundary.
#[test]
fn prefix_and_segment_are_always_the_exact_ids() {
    for template in [CHATML, PLAIN, NO_SYSTEM] {
        let (_folder, model) = Tiny::chat(template).model();
        let chat = model.chat.as_ref();
        for text in TEXTS {
            let surface = Surface::chat();
            let rendered = chat.unwrap().render(&surface.messages(text).unwrap(), true).unwrap();
            let expected = model.tokenizer.encode_template(&rendered).unwrap();
            let prompt = surface.prompt(&model.tokenizer, chat, text).unwrap();
            assert_eq!(prompt.ids(), expected, "{text:?} in {template:?}");
        }
        let shared = Surface::chat().prompts(&model.tokenizer, chat, &TEXTS).unwrap();
        for (text, segment) in TEXTS.iter().zip(&shared.segments) {
            let ids = Surface::chat().ids(&model.tokenizer, chat, text).unwrap();
            assert_eq!([shared.prefix.as_slice(), segment].concat(), ids, "{text:?}");
        }
    }
}

#[test]
fn a_boundary_that_merges_shortens_the_prefix() {
    let (_folder, model) = Tiny::chat(PLAIN).model();
    let chat = model.chat.as_ref();
    let frame = Surface::chat().frame(&model.tokenizer, chat).unwrap();
    // "user: " ends with a token made of the colon and the blank.
    let usual = Surface::chat().prompt(&model.tokenizer, chat, "Is it?").unwrap();
    assert_eq!(usual.prefix, frame.prefix);
    // A text that begins with a blank and "the" takes nothing from it, one that ends in a full stop merges behind.
    let ids = Surface::chat().ids(&model.tokenizer, chat, "Is it.").unwrap();
    assert!(frame.user_part(&ids).is_none(), "the full stop and the line feed are one token");
    // In raw completion behind "x:" a text that begins with "t" takes the colon with it, unless "th" comes first.
    let raw = Surface::raw_after("colon", "x:");
    let frame = raw.frame(&model.tokenizer, None).unwrap();
    assert_eq!(frame.prefix.len(), 2);
    assert_eq!(raw.prompt(&model.tokenizer, None, "the end").unwrap().prefix, frame.prefix);
    let merged = raw.prompt(&model.tokenizer, None, "to").unwrap();
    assert_eq!(merged.prefix, frame.prefix[..1]);
    let shared = raw.prompts(&model.tokenizer, None, &["the end", "to"]).unwrap();
    assert_eq!(shared.prefix, frame.prefix[..1], "all share the shorter prefix");
    assert_eq!(shared.segments[0][0], frame.prefix[1]);
}

#[test]
fn chat_prefix_holds_everything_before_the_user() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let chat = model.chat.as_ref();
    let surface = Surface::chat_with_system("terse", "Be terse.");
    let frame = surface.frame(&model.tokenizer, chat).unwrap();
    let before = "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\n";
    let after = "<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(frame.prefix, model.tokenizer.encode_template(before).unwrap());
    assert_eq!(frame.suffix, model.tokenizer.encode_template(after).unwrap());
    let default = Surface::chat().text(chat, "Hi").unwrap();
    assert!(default.starts_with("<|im_start|>system\nBe kind.<|im_end|>\n"), "the template's own default");
}

#[test]
fn raw_prompts_begin_with_bos_only_where_the_tokenizer_adds_it() {
    for bos in [false, true] {
        let (_folder, model) = Tiny { bos, ..Tiny::default() }.model();
        let prompt = Surface::raw().prompt(&model.tokenizer, None, "Is it on?").unwrap();
        assert_eq!(prompt.prefix, if bos { vec![2] } else { vec![] });
        assert_eq!(prompt.ids(), model.tokenizer.encode("Is it on?", SpecialTokens::Add).unwrap());
        assert_eq!(prompt.segment, model.tokenizer.encode("Is it on?", SpecialTokens::Omit).unwrap());
    }
}

#[test]
fn chat_prompts_never_get_a_second_bos() {
    let (_folder, model) = Tiny { bos: true, ..Tiny::chat(CHATML) }.model();
    let prompt = Surface::chat().prompt(&model.tokenizer, model.chat.as_ref(), "Is it on?").unwrap();
    assert!(!prompt.ids().contains(&2), "the template writes no <s>, so none is added");
}

#[test]
fn default_lists_fit_the_model() {
    let (_folder, model) = Tiny::chat(CHATML).model();
    let (tokenizer, chat) = (&model.tokenizer, model.chat.as_ref());
    let trained = trained_surfaces(tokenizer, chat, DEFAULT_SYSTEM_PROMPTS).unwrap();
    assert_eq!(trained.len(), 1 + DEFAULT_SYSTEM_PROMPTS);
    assert_eq!(trained[0], Surface::chat());
    let unseen = held_out_surfaces(tokenizer, chat).unwrap();
    assert!(unseen.len() >= 6);
    assert!(unseen.iter().all(|surface| !trained.iter().any(|trained| trained.form() == surface.form())));

    let (_folder, base) = Tiny::default().model();
    let raw = trained_surfaces(&base.tokenizer, None, DEFAULT_SYSTEM_PROMPTS).unwrap();
    assert_eq!(raw[0], Surface::raw());
    assert!(raw.iter().all(|surface| surface.messages("x").is_none()));
    assert!(!held_out_surfaces(&base.tokenizer, None).unwrap().is_empty());
}

#[test]
fn templates_without_room_for_a_system_prompt_leave_the_default() {
    for template in [NO_SYSTEM, DEAF] {
        let (_folder, model) = Tiny::chat(template).model();
        let (tokenizer, chat) = (&model.tokenizer, model.chat.as_ref());
        assert_eq!(trained_surfaces(tokenizer, chat, DEFAULT_SYSTEM_PROMPTS).unwrap(), [Surface::chat()]);
        assert!(held_out_surfaces(tokenizer, chat).unwrap().is_empty());
    }
}

/// Marks are trained and asked on one day: on today's, the set would be another one tomorrow.
#[test]
fn a_template_that_prints_the_date_gets_a_day_that_never_changes() {
    const DATED: &str = "{{ strftime_now('%d %B %Y') }}: {{ messages[-1].content }}";
    let (_folder, model) = Tiny::chat(DATED).model();
    let text = |surface: Surface| surface.text(model.chat.as_ref(), "Hi").unwrap();
    assert_eq!(text(Surface::chat()), "19 September 2028: Hi");
    assert_eq!(text(Surface::chat_with_system("brief", "Be brief.")), "08 November 2025: Hi");
}

#[test]
fn a_template_that_repeats_a_prompt_in_its_refusal_is_not_quoted() {
    for call in ["raise_exception('never ' ~ messages[-1].content)", "messages[-1].content|int"] {
        let template: &'static str = String::leak(format!("{{{{ {call} }}}}"));
        let (_folder, model) = Tiny::chat(template).model();
        let error = Surface::chat().prompt(&model.tokenizer, model.chat.as_ref(), "what the key says").unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("key says"), "{shown}");
    }
}

#[test]
fn chat_without_a_template_says_so() {
    let (_folder, model) = Tiny::default().model();
    let error = Surface::chat().prompt(&model.tokenizer, None, "Hi").unwrap_err();
    assert!(matches!(error, SurfaceError::NoChatTemplate { .. }));
    assert_eq!(error.to_string(), "surface chat needs a chat template and the model has none; use raw completion");
}

/// transformers' `apply_chat_template` with a generation prompt, on SmolLM2-135M-Instruct.
#[test]
#[ignore = "needs SmolLM2-135M-Instruct and shared data"]
fn chat_prompts_have_the_ids_that_transformers_gives() {
    let model = smollm2();
    let goldens = std::fs::read(shared().join("data/smollm2-goldens.json")).unwrap();
    let goldens: serde_json::Value = serde_json::from_slice(&goldens).unwrap();
    let mut compared = 0;
    for chat in goldens["chats"].as_array().unwrap() {
        let messages: Vec<(&str, &str)> = chat["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| (message["role"].as_str().unwrap(), message["content"].as_str().unwrap()))
            .collect();
        let (surface, text) = match messages.as_slice() {
            [("user", text)] => (Surface::chat(), text),
            [("system", system), ("user", text)] => (Surface::chat_with_system("golden", system), text),
            _ => continue,
        };
        let expected: Vec<u32> = serde_json::from_value(chat["ids_generation"].clone()).unwrap();
        let prompt = surface.prompt(&model.tokenizer, model.chat.as_ref(), text).unwrap();
        assert_eq!(prompt.ids(), expected, "{text:?}");
        compared += 1;
    }
    assert!(compared >= 2, "the goldens hold chats of one turn");
}
