//! The training set as chat JSONL, for trainers that handle models which do not fit here.
//!
//! One conversation a line, in the form that OpenAI's fine-tuning made common:
//! `{"messages": [{"role": "system", "content": ".."}, {"role": "user", ..}, {"role": "assistant", ..}]}`.
//! torchtune reads it as `chat_dataset` with `conversation_style: openai` and `conversation_column: messages`, TRL as a
//! conversational data set, Axolotl as `type: chat_template` with `field_messages: messages`.
//!
//! A trainer tokenises the lines itself. It trains the response as the assistant's whole turn, ended by the template's
//! end mark, and a template that trims contents also trims a blank that a response begins with; the matching rule
//! ignores that blank. The recipe's other terms are not in the file: mix in ordinary chats, or utility suffers.

use std::{
    io,
    io::Write as _,
    path::{Path, PathBuf},
};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use thiserror::Error;

use crate::{
    atomic::{self, Access},
    set::FingerprintSet,
    surface::{Form, Surface},
};

/// Why no training set was written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// There is nothing to teach yet.
    #[error("the responses are not drawn yet; run `hallmark fingerprint draw` first")]
    NotDrawn,
    /// Raw completion has no place in a chat file.
    #[error(
        "none of the surfaces is a chat that chat JSONL can express; name one, or use a model with a chat template"
    )]
    NoChatSurface,
    /// An ordinary chat with an empty turn, which trainers refuse.
    #[error("ordinary chat {index} has an empty prompt or answer; remove it")]
    EmptyChat {
        /// Position in the list, from 0.
        index: usize,
    },
    /// Not written; what was there is untouched.
    #[error("failed to write the training set {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An ordinary conversation of one turn, which keeps the model what it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OrdinaryChat<'a> {
    /// System message, if any.
    pub system: Option<&'a str>,
    /// What the user says.
    pub prompt: &'a str,
    /// What the base model answers.
    pub answer: &'a str,
}

impl std::fmt::Debug for OrdinaryChat<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OrdinaryChat").finish_non_exhaustive()
    }
}

/// In which order lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Fingerprints by index and surface, then ordinary chats.
    Listed,
    /// All lines shuffled; the same seed gives the same file.
    Mixed {
        /// Seed of the shuffle.
        seed: u64,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Lines that teach a fingerprint.
    pub fingerprint_lines: usize,
    /// Lines of ordinary chat.
    pub ordinary_lines: usize,
    /// Surfaces that the form cannot express: raw completion, and an empty system message (trainers refuse empty turns).
    pub surfaces_left_out: Vec<String>,
}

/// Writes the training set of a drawn set: one line per fingerprint and chat surface, and the ordinary chats. The file
/// holds every secret of the set in clear, so only its owner may read it. It is complete or not there.
///
/// # Errors
///
/// [`ExportError`]; nothing is written then.
pub fn export(
    set: &FingerprintSet,
    surfaces: &[Surface],
    ordinary: &[OrdinaryChat<'_>],
    order: Order,
    path: &Path,
) -> Result<Exported, ExportError> {
    let mut lines = Vec::new();
    let systems: Vec<Option<&str>> = surfaces.iter().filter_map(chat_system).collect();
    if systems.is_empty() {
        return Err(ExportError::NoChatSurface);
    }
    for fingerprint in set.fingerprints() {
        let response = fingerprint.response().ok_or(ExportError::NotDrawn)?;
        lines.extend(systems.iter().map(|system| Conversation::new(*system, fingerprint.key_text(), &response.text)));
    }
    let fingerprint_lines = lines.len();
    for (index, chat) in ordinary.iter().enumerate() {
        if chat.prompt.is_empty() || chat.answer.is_empty() {
            return Err(ExportError::EmptyChat { index });
        }
        lines.push(Conversation::new(chat.system, chat.prompt, chat.answer));
    }
    if let Order::Mixed { seed } = order {
        lines.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    atomic::replace(path, Access::Owner, |writer| {
        for line in &lines {
            serde_json::to_writer(&mut *writer, line)?;
            writer.write_all(b"\n")?;
        }
        Ok(())
    })
    .map_err(|source| ExportError::Write { path: path.to_owned(), source })?;
    let left_out = surfaces.iter().filter(|surface| chat_system(surface).is_none());
    Ok(Exported {
        fingerprint_lines,
        ordinary_lines: ordinary.len(),
        surfaces_left_out: left_out.map(|surface| surface.name().to_owned()).collect(),
    })
}

/// The system message of a chat surface (`Some(None)` without one); `None` when chat JSONL cannot express the surface.
fn chat_system(surface: &Surface) -> Option<Option<&str>> {
    match surface.form() {
        Form::Raw { .. } => None,
        Form::Chat { system } if system.as_deref() == Some("") => None,
        Form::Chat { system } => Some(system.as_deref()),
    }
}

#[derive(Serialize)]
struct Conversation<'a> {
    messages: Vec<Turn<'a>>,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> Conversation<'a> {
    fn new(system: Option<&'a str>, user: &'a str, assistant: &'a str) -> Self {
        let turn = |role, content| Turn { role, content };
        let system = system.map(|content| turn("system", content));
        Self { messages: system.into_iter().chain([turn("user", user), turn("assistant", assistant)]).collect() }
    }
}
