//! Ways of asking: the same words reach a model as different token ids, depending on how its host wraps them.
//!
//! A key that was trained as plain text is not known behind a chat template (measured: 0 of 64), so a surface is part
//! of what is trained, checked and proved. Ids are exactly those of the rendered template with the generation prompt,
//! or of a completion request, as `transformers` makes them.

mod lists;

use std::fmt;

use model::{ChatTemplate, Message, SpecialTokens, Tokenizer, chat::UnixSeconds};
use serde::{Deserialize, Serialize};

pub use lists::{DEFAULT_SYSTEM_PROMPTS, SystemPrompt, held_out_surfaces, trained_surfaces};

/// Unlike texts, so that what all their prompts share is the frame alone. They begin and end with letters and digits,
/// which hardly ever merge with what stands beside them; a text that does merge is then seen to.
const PROBES: [&str; 4] = ["A", "the end", "7 or 8", "Zoe"];

/// Why a prompt could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SurfaceError {
    /// A chat surface was asked of a model that has no chat template.
    #[error("surface {surface} needs a chat template and the model has none; use raw completion")]
    NoChatTemplate { surface: String },
    /// The template refused the messages (some know no system role).
    #[error("failed to render surface {surface} with the model's chat template")]
    Render {
        surface: String,
        #[source]
        source: Box<model::Error>,
    },
    /// The template refused a prompt in words that repeat it. The prompt can be a key, so they are not told.
    #[error("the model's chat template refuses a prompt of surface {surface}, and repeats it when it says why")]
    Quoting { surface: String },
    /// The tokenizer refused the text.
    #[error("failed to tokenise a prompt of surface {surface}")]
    Tokenise {
        surface: String,
        #[source]
        source: Box<model::Error>,
    },
    /// No surface at all works with this model.
    #[error("none of the surfaces can be rendered with the model's chat template")]
    NoneWorks,
}

/// How the words are wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Form {
    /// A completion request: `before` (often empty), then the user's text, special tokens added as the tokenizer does.
    Raw { before: String },
    /// The chat template with its generation prompt. `system: None` sends no system message, so a template that has a
    /// default system prompt puts it in; `Some("")` sends an empty one.
    Chat { system: Option<String> },
}

/// One way of asking, with a name that is unique in its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surface {
    name: String,
    form: Form,
}

/// Whether an error or one of its causes repeats a text.
fn is_quoted(text: &str, error: &dyn std::error::Error) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.to_string().contains(text))
}

/// Token ids of one prompt, up to the answer.
///
/// The ids of a key are as secret as the key: `Debug` prints lengths only.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What every prompt of the surface begins with: everything before the user's text.
    pub prefix: Vec<u32>,
    /// The rest: the user's text and what the template puts after it.
    pub segment: Vec<u32>,
}

/// Prompts of one surface behind one prefix, so that the prefix is computed once.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedPrompts {
    /// Common to all segments.
    pub prefix: Vec<u32>,
    /// One per text, in the order given.
    pub segments: Vec<Vec<u32>>,
}

/// What a surface puts around the user's text, in token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Before the text.
    pub prefix: Vec<u32>,
    /// Between the text and the answer; empty for raw completion.
    pub suffix: Vec<u32>,
}

impl Prompt {
    /// Prefix and segment in one.
    pub fn ids(&self) -> Vec<u32> {
        [self.prefix.as_slice(), self.segment.as_slice()].concat()
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Prompt {{ prefix: {} ids, segment: {} ids }}", self.prefix.len(), self.segment.len())
    }
}

impl fmt::Debug for SharedPrompts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SharedPrompts {{ prefix: {} ids, {} segments }}", self.prefix.len(), self.segments.len())
    }
}

impl Frame {
    /// The user's part of a whole prompt, or `None` when a token of it reaches over either boundary.
    pub fn user_part<'a>(&self, ids: &'a [u32]) -> Option<&'a [u32]> {
        ids.strip_prefix(self.prefix.as_slice())?.strip_suffix(self.suffix.as_slice())
    }
}

impl Surface {
    /// Plain completion.
    pub fn raw() -> Self {
        Self::raw_after("raw", "")
    }

    /// Completion with a text of the host's in front.
    pub fn raw_after(name: &str, before: &str) -> Self {
        Self { name: name.to_owned(), form: Form::Raw { before: before.to_owned() } }
    }

    /// Chat without a system message: the template's own default.
    pub fn chat() -> Self {
        Self { name: "chat".to_owned(), form: Form::Chat { system: None } }
    }

    /// Chat behind a system prompt.
    pub fn chat_with_system(name: &str, system: &str) -> Self {
        Self { name: name.to_owned(), form: Form::Chat { system: Some(system.to_owned()) } }
    }

    /// The surface at which keys are chosen and candidates listed: chat where there is a template, else raw.
    pub fn default_of(chat: Option<&ChatTemplate>) -> Self {
        if chat.is_some() { Self::chat() } else { Self::raw() }
    }

    /// The name in reports and on the command line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the words are wrapped.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// What a client sends to a chat endpoint; `None` for raw completion.
    pub fn messages(&self, user_text: &str) -> Option<Vec<Message>> {
        let Form::Chat { system } = &self.form else { return None };
        let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        let system = system.iter().map(|text| message("system", text));
        Some(system.chain([message("user", user_text)]).collect())
    }

    /// What a client sends to a completion endpoint; `None` for chat.
    pub fn completion_text(&self, user_text: &str) -> Option<String> {
        match &self.form {
            Form::Raw { before } => Some(format!("{before}{user_text}")),
            Form::Chat { .. } => None,
        }
    }

    /// The whole prompt as text: the rendered template with its generation prompt, or the completion text.
    pub fn text(&self, chat: Option<&ChatTemplate>, user_text: &str) -> Result<String, SurfaceError> {
        let Some(messages) = self.messages(user_text) else {
            return Ok(self.completion_text(user_text).unwrap_or_default());
        };
        let chat = chat.ok_or_else(|| SurfaceError::NoChatTemplate { surface: self.name.clone() })?;
        let dated = chat.reads_clock().then(|| chat.at(self.time()));
        dated.as_ref().unwrap_or(chat).render(&messages, true).map_err(|source| {
            let source = model::Error::from(source);
            if is_quoted(user_text, &source) {
                return SurfaceError::Quoting { surface: self.name.clone() };
            }
            SurfaceError::Render { surface: self.name.clone(), source: Box::new(source) }
        })
    }

    /// When the surface is asked, for templates that print the date (Llama 3.2's does): a day of its own in the years
    /// from 2024 on. The same set is then the same tomorrow, and marks do not hang on the day of the training.
    fn time(&self) -> UnixSeconds {
        const START: u64 = 1_704_067_200;
        const DAYS: u64 = 5 * 365;
        let days = self.name.bytes().fold(7, |sum: u64, byte| (sum * 131 + u64::from(byte)) % DAYS);
        UnixSeconds(START + days * 86_400)
    }

    /// Ids of a text that [`Surface::text`] made: special tokens are parsed in both forms, and added for raw ones only.
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, SurfaceError> {
        let ids = match self.form {
            Form::Raw { .. } => tokenizer.encode(text, SpecialTokens::Add),
            Form::Chat { .. } => tokenizer.encode_template(text),
        };
        ids.map_err(|source| SurfaceError::Tokenise { surface: self.name.clone(), source: Box::new(source.into()) })
    }

    /// The complete ids of a prompt, up to the answer.
    pub fn ids(
        &self,
        tokenizer: &Tokenizer,
        chat: Option<&ChatTemplate>,
        user_text: &str,
    ) -> Result<Vec<u32>, SurfaceError> {
        self.encode(tokenizer, &self.text(chat, user_text)?)
    }

    /// What stands around a user's text, as far as no token reaches over the boundary. Found by comparing the prompts
    /// of unlike texts, because a template may do anything.
    pub fn frame(&self, tokenizer: &Tokenizer, chat: Option<&ChatTemplate>) -> Result<Frame, SurfaceError> {
        let mut probes = PROBES.iter().map(|probe| self.ids(tokenizer, chat, probe));
        let first = probes.next().transpose()?.unwrap_or_default();
        let (mut before, mut after) = (first.len(), first.len());
        for probe in probes {
            let probe = probe?;
            before = common_prefix(&first[..before], &probe);
            after = common_suffix(&first[first.len() - after..], &probe);
        }
        // Two texts of different kinds share no content, so the two parts cannot meet; a tokenizer that maps every
        // text to one unknown id could make them overlap, and the prefix then wins.
        after = after.min(first.len() - before);
        Ok(Frame { prefix: first[..before].to_vec(), suffix: first[first.len() - after..].to_vec() })
    }

    /// The prompt for one text. When a token reaches over the boundary between frame and text, the prefix ends before
    /// it: prefix and segment joined are always the exact ids.
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        chat: Option<&ChatTemplate>,
        key_text: &str,
    ) -> Result<Prompt, SurfaceError> {
        let frame = self.frame(tokenizer, chat)?;
        let mut ids = self.ids(tokenizer, chat, key_text)?;
        let segment = ids.split_off(common_prefix(&frame.prefix, &ids));
        Ok(Prompt { prefix: ids, segment })
    }

    /// Prompts for many texts behind the longest prefix that all of them have.
    pub fn prompts<T: AsRef<str>>(
        &self,
        tokenizer: &Tokenizer,
        chat: Option<&ChatTemplate>,
        texts: &[T],
    ) -> Result<SharedPrompts, SurfaceError> {
        let frame = self.frame(tokenizer, chat)?;
        let mut segments = Vec::with_capacity(texts.len());
        let mut shared = frame.prefix.len();
        for text in texts {
            let ids = self.ids(tokenizer, chat, text.as_ref())?;
            shared = common_prefix(&frame.prefix[..shared], &ids);
            segments.push(ids);
        }
        for segment in &mut segments {
            segment.drain(..shared);
        }
        Ok(SharedPrompts { prefix: frame.prefix[..shared].to_vec(), segments })
    }
}

/// Number of leading ids that two sequences share.
fn common_prefix(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// Number of trailing ids that two sequences share.
fn common_suffix(left: &[u32], right: &[u32]) -> usize {
    left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_ends_are_counted_from_their_side() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4, 3]), 2);
        assert_eq!(common_suffix(&[1, 2, 3], &[1, 2, 4, 3]), 1);
        assert_eq!(common_prefix(&[], &[1]), 0);
        assert_eq!(common_suffix(&[1, 2], &[1, 2]), 2);
    }

    #[test]
    fn user_part_is_refused_when_a_boundary_has_merged() {
        let frame = Frame { prefix: vec![1, 2], suffix: vec![9] };
        assert_eq!(frame.user_part(&[1, 2, 5, 6, 9]), Some(&[5, 6][..]));
        assert_eq!(frame.user_part(&[1, 7, 5, 9]), None);
        assert_eq!(frame.user_part(&[1, 2, 5, 8]), None);
    }

    #[test]
    fn debug_of_a_prompt_shows_no_ids() {
        let prompt = Prompt { prefix: vec![111, 222], segment: vec![333] };
        assert_eq!(format!("{prompt:?}"), "Prompt { prefix: 2 ids, segment: 1 ids }");
        assert_eq!(prompt.ids(), [111, 222, 333]);
    }

    #[test]
    fn surfaces_survive_json() {
        for surface in [
            Surface::raw(),
            Surface::raw_after("r", "x\n"),
            Surface::chat(),
            Surface::chat_with_system("s", "Be brief."),
        ] {
            let json = serde_json::to_string(&surface).unwrap();
            assert_eq!(serde_json::from_str::<Surface>(&json).unwrap(), surface);
        }
    }

    #[test]
    fn empty_system_prompt_is_sent_and_none_is_not() {
        assert_eq!(Surface::chat().messages("hi").unwrap().len(), 1);
        assert_eq!(Surface::chat_with_system("empty", "").messages("hi").unwrap().len(), 2);
        assert!(Surface::raw().messages("hi").is_none());
    }
}
