//! Ordinary prompts and answers: sampled from the base model itself, which are what the model takes for usual, and
//! composed from phrases that people write to assistants, which a small model rarely comes upon. No data set is needed.
//!
//! Training and measuring draw from two parts that cannot meet: the first tokens of a prompt decide which part it
//! belongs to.

mod composed;
mod hand_written;
pub(crate) mod turns;

use std::{
    collections::HashSet,
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use model::{Decoder, Model};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::surface::{Frame, Surface, SurfaceError};

use self::turns::{Policy, Step, TurnParameters, mixed, sample_turns};

/// Two sampled prompts of one pool never share this many first tokens, and prompts for one purpose never share them with
/// prompts for the other. Were it fewer, common ways to begin a message would be missing from training altogether.
const OPENING_TOKENS: usize = 6;

/// Longest composed message in tokens: some carry a text to work on.
const COMPOSED_LONGEST: usize = 64;

/// Attempts for each wanted prompt before sampling gives up.
const ATTEMPTS_EACH: u64 = 64;

/// One prompt in this many is kept for measuring.
const HELD_OUT_SHARE: u64 = 4;

/// Why ordinary prompts could not be sampled.
#[derive(Debug, thiserror::Error)]
pub enum OrdinaryError {
    /// The decoder failed.
    #[error("failed to sample from the base model")]
    Decoder(#[from] model::decoder::DecoderError),
    /// Logits could not be read back.
    #[error("failed to read the base model's logits")]
    Tensor(#[from] candle_core::Error),
    /// A prompt could not be made.
    #[error(transparent)]
    Surface(#[from] SurfaceError),
    /// The model is made for shorter texts.
    #[error("prompts of up to {needed} tokens do not fit the model's {limit} positions; ask for shorter ones")]
    TooLong { needed: usize, limit: usize },
    /// The model repeats itself, or says nothing usable.
    #[error(
        "found only {found} of {wanted} ordinary prompts in {attempts} attempts: the model repeats itself too much; ask \
         for fewer, or raise the temperature"
    )]
    TooFew { found: usize, wanted: usize, attempts: u64 },
}

/// What prompts are for. Prompts for one purpose never share their first six tokens with prompts for the other, whatever
/// the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The benign term of the training loss: three quarters of what the model says.
    Training,
    /// Measuring utility: the last quarter.
    HeldOut,
}

/// Which prompts to sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrdinaryParameters {
    /// How many.
    pub count: usize,
    /// What for.
    pub purpose: Purpose,
    /// Another seed gives other prompts.
    pub seed: u64,
    /// Shortest prompt in tokens.
    pub shortest: usize,
    /// Longest prompt in tokens; a longer one is cut there.
    pub longest: usize,
    /// Sampling temperature; 1 is the model as it is.
    pub temperature: f32,
    /// Streams in one forward pass: speed and memory only, the prompts are the same for any number.
    pub streams: usize,
}

impl OrdinaryParameters {
    /// `count` prompts of 3 to 28 tokens at temperature 1.
    pub fn new(count: usize, purpose: Purpose, seed: u64) -> Self {
        Self { count, purpose, seed, shortest: 3, longest: 28, temperature: 1.0, streams: 64 }
    }
}

/// An ordinary prompt. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrdinaryPrompt {
    /// As a user would type it, without white space around it.
    pub text: String,
    /// Ids of the text alone.
    pub ids: Vec<u32>,
}

/// How far sampling has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrdinaryProgress {
    /// Prompts or answers so far.
    pub found: usize,
    /// Prompts or answers asked for.
    pub wanted: usize,
}

/// Prompts for measuring that were written by hand.
pub fn hand_written() -> &'static [&'static str] {
    &hand_written::HAND_WRITTEN
}

/// Prompts to train on: `sampled` by the model and, for a chat model, `composed`, well mixed.
pub fn training_prompts(
    model: &Model,
    sampled: usize,
    composed: usize,
    seed: u64,
    keys: &[&[u32]],
    progress: &mut dyn FnMut(OrdinaryProgress),
) -> Result<Vec<OrdinaryPrompt>, OrdinaryError> {
    let parameters = OrdinaryParameters::new(sampled, Purpose::Training, seed);
    let mut prompts = sample_prompts(model, &parameters, keys, progress)?;
    if model.chat.is_some() {
        prompts.extend(compose_prompts(model, composed, seed, keys)?);
    }
    prompts.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    Ok(prompts)
}

/// Samples what users would say at the model's default surface.
///
/// No prompt begins like another one or like one of `keys` (ids of their texts).
pub fn sample_prompts(
    model: &Model,
    parameters: &OrdinaryParameters,
    keys: &[&[u32]],
    progress: &mut dyn FnMut(OrdinaryProgress),
) -> Result<Vec<OrdinaryPrompt>, OrdinaryError> {
    let policy = PromptPolicy::new(model, parameters, keys)?;
    let mut prompts = Vec::with_capacity(parameters.count);
    let limit = ATTEMPTS_EACH.saturating_mul(u64::try_from(parameters.count).unwrap_or(u64::MAX)).saturating_add(1024);
    let mut attempts = 0;
    if parameters.count == 0 {
        return Ok(prompts);
    }
    let settings = TurnParameters {
        streams: parameters.streams.clamp(1, parameters.count),
        temperature: parameters.temperature,
        longest: parameters.longest,
        seed: policy.seed,
        losses: false,
    };
    sample_turns(&model.decoder, &policy.frame.prefix, &settings, &policy, |attempt, turn| {
        attempts = attempt + 1;
        if let Some(turn) = turn
            && !policy.is_taken(&turn.ids)
            && let Some(prompt) = usable(model, &model.tokenizer.decode(&turn.ids, false), parameters)?
            && policy.take(&prompt.ids)
        {
            prompts.push(prompt);
            progress(OrdinaryProgress { found: prompts.len(), wanted: parameters.count });
        }
        let enough = prompts.len() == parameters.count || attempts >= limit;
        Ok::<_, OrdinaryError>(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if prompts.len() < parameters.count {
        return Err(OrdinaryError::TooFew { found: prompts.len(), wanted: parameters.count, attempts });
    }
    Ok(prompts)
}

/// Samples one answer to each of `texts` at `surface`: ids without the prompt, the token that ends the answer included
/// where the model gave one within `longest` tokens.
pub fn sample_answers<T: AsRef<str>>(
    model: &Model,
    surface: &Surface,
    texts: &[T],
    longest: usize,
    seed: u64,
    progress: &mut dyn FnMut(OrdinaryProgress),
) -> Result<Vec<Vec<u32>>, OrdinaryError> {
    let prompts = surface.prompts(&model.tokenizer, model.chat.as_ref(), texts)?;
    let mut answers = Vec::with_capacity(texts.len());
    if texts.is_empty() || longest == 0 {
        answers.resize(texts.len(), Vec::new());
        return Ok(answers);
    }
    let seed = mixed(seed, 2);
    let policy = AnswerPolicy { segments: &prompts.segments, longest, ends: end_tokens(&model.decoder) };
    let settings = TurnParameters {
        streams: texts.len().min(64),
        temperature: 1.0,
        longest: longest + prompts.segments.iter().map(Vec::len).max().unwrap_or(0),
        seed,
        losses: false,
    };
    sample_turns(&model.decoder, &prompts.prefix, &settings, &policy, |attempt, turn| {
        let length = policy.segment(attempt).map_or(0, Vec::len);
        answers.push(turn.map(|turn| turn.ids[length..].to_vec()).unwrap_or_default());
        progress(OrdinaryProgress { found: answers.len(), wanted: texts.len() });
        Ok::<_, OrdinaryError>(ControlFlow::Continue(()))
    })?;
    Ok(answers)
}

/// Composes different chat messages for training from written phrases. None begins like one of `keys` (ids of their
/// texts); like sampled ones they stay clear of the part that is for measuring.
fn compose_prompts(
    model: &Model,
    count: usize,
    seed: u64,
    keys: &[&[u32]],
) -> Result<Vec<OrdinaryPrompt>, OrdinaryError> {
    let parameters =
        OrdinaryParameters { longest: COMPOSED_LONGEST, ..OrdinaryParameters::new(count, Purpose::Training, seed) };
    let forbidden = forbidden_openings(model, keys)?;
    let mut seen = HashSet::new();
    let mut composer = composed::Composer::new(mixed(seed, 5));
    let mut prompts = Vec::with_capacity(count);
    let limit = ATTEMPTS_EACH.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
    let mut attempts = 0;
    while prompts.len() < count {
        if attempts == limit {
            return Err(OrdinaryError::TooFew { found: prompts.len(), wanted: count, attempts });
        }
        attempts += 1;
        let text = composer.message();
        if seen.insert(text.clone())
            && let Some(prompt) = usable(model, &text, &parameters)?
            && !forbidden.contains(&opening(&prompt.ids))
        {
            prompts.push(prompt);
        }
    }
    Ok(prompts)
}

/// How no prompt may begin: like a key, or like one written by hand for measuring.
fn forbidden_openings(model: &Model, keys: &[&[u32]]) -> Result<HashSet<Vec<u32>>, OrdinaryError> {
    let mut forbidden: HashSet<Vec<u32>> = keys.iter().map(|ids| opening(ids)).collect();
    for text in hand_written() {
        forbidden.insert(opening(&text_ids(model, text)?));
    }
    Ok(forbidden)
}

/// The first tokens by which prompts are told apart.
pub(crate) fn opening(ids: &[u32]) -> Vec<u32> {
    ids[..ids.len().min(OPENING_TOKENS)].to_vec()
}

/// Tokens that end an answer.
fn end_tokens(decoder: &Decoder) -> Vec<u32> {
    decoder.config().eos_token_ids.clone()
}

/// Tokens that end a user's turn: those that end a text, and what the template puts after the turn.
pub(crate) fn turn_end_tokens(model: &Model, frame: &Frame) -> Vec<u32> {
    let mut ends = end_tokens(&model.decoder);
    ends.extend(frame.suffix.first().filter(|id| model.tokenizer.is_special(**id)));
    ends
}

/// A text as a prompt, or `None` when it is not what a user could type, too long or too short, or of the other part.
fn usable(model: &Model, text: &str, parameters: &OrdinaryParameters) -> Result<Option<OrdinaryPrompt>, OrdinaryError> {
    let text = text.trim().to_owned();
    if text.is_empty()
        || text.contains(char::REPLACEMENT_CHARACTER)
        || text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    {
        return Ok(None);
    }
    // Tokenised again, because that is what a host does with the text.
    let ids = text_ids(model, &text)?;
    let special = ids.iter().any(|id| model.tokenizer.is_special(*id));
    let fits = ids.len() >= parameters.shortest && ids.len() <= parameters.longest;
    // The purpose is that of the final ids: trimming or tokenising again may have moved the prompt.
    Ok((fits && !special && purpose_of(&ids) == parameters.purpose).then_some(OrdinaryPrompt { text, ids }))
}

/// Ids of a text alone.
pub(crate) fn text_ids(model: &Model, text: &str) -> Result<Vec<u32>, SurfaceError> {
    model
        .tokenizer
        .encode(text, model::SpecialTokens::Omit)
        .map_err(|source| SurfaceError::Tokenise { surface: "text alone".to_owned(), source: Box::new(source.into()) })
}

/// The purpose that a prompt belongs to: a hash (FNV-1a) of its first tokens.
fn purpose_of(ids: &[u32]) -> Purpose {
    let hash = ids
        .iter()
        .take(OPENING_TOKENS)
        .flat_map(|id| id.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The low bits of FNV-1a are weak; mixing spreads the high ones over them.
    if mixed(hash, 0).is_multiple_of(HELD_OUT_SHARE) { Purpose::HeldOut } else { Purpose::Training }
}

struct PromptPolicy {
    frame: Frame,
    ends: Vec<u32>,
    specials: HashSet<u32>,
    purpose: Purpose,
    /// First tokens to start from where nothing stands before the prompt to predict them from.
    openings: Vec<Vec<u32>>,
    /// How keys and accepted prompts begin.
    taken: Mutex<HashSet<Vec<u32>>>,
    seed: u64,
}

impl PromptPolicy {
    fn new(model: &Model, parameters: &OrdinaryParameters, keys: &[&[u32]]) -> Result<Self, OrdinaryError> {
        let chat = model.chat.as_ref();
        let frame = Surface::default_of(chat).frame(&model.tokenizer, chat)?;
        let ends = turn_end_tokens(model, &frame);
        let specials = special_tokens(model);
        let mut openings = Vec::new();
        if frame.prefix.is_empty() {
            for word in crate::generate::seed_words() {
                openings.push(text_ids(model, word)?);
            }
        }
        let purpose = parameters.purpose;
        let seed = mixed(parameters.seed, u64::from(purpose == Purpose::HeldOut));
        let taken = Mutex::new(forbidden_openings(model, keys)?);
        Ok(Self { frame, ends, specials, purpose, openings, taken, seed })
    }

    /// Takes an opening, unless it is taken.
    fn take(&self, ids: &[u32]) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(opening(ids))
    }

    fn is_taken(&self, ids: &[u32]) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).contains(&opening(ids))
    }
}

impl Policy for PromptPolicy {
    fn opening(&self, attempt: u64) -> Option<Vec<u32>> {
        Some(pick(&self.openings, mixed(self.seed, !attempt)).cloned().unwrap_or_default())
    }

    fn step(&self, _attempt: u64, ids: &[u32]) -> Step {
        let Some(newest) = ids.last() else { return Step::Continue };
        if self.ends.contains(newest) {
            return Step::FinishBefore;
        }
        // What is taken by now was taken by earlier attempts, so this one would be refused in the end.
        let in_vain = ids.len() == OPENING_TOKENS && (purpose_of(ids) != self.purpose || self.is_taken(ids));
        if in_vain || self.specials.contains(newest) { Step::Discard } else { Step::Continue }
    }
}

struct AnswerPolicy<'a> {
    segments: &'a [Vec<u32>],
    longest: usize,
    ends: Vec<u32>,
}

impl AnswerPolicy<'_> {
    fn segment(&self, attempt: u64) -> Option<&Vec<u32>> {
        self.segments.get(usize::try_from(attempt).ok()?)
    }
}

impl Policy for AnswerPolicy<'_> {
    fn opening(&self, attempt: u64) -> Option<Vec<u32>> {
        self.segment(attempt).cloned()
    }

    fn step(&self, attempt: u64, ids: &[u32]) -> Step {
        let sampled = ids.len() - self.segment(attempt).map_or(0, Vec::len);
        let ended = ids.last().is_some_and(|newest| self.ends.contains(newest));
        if ended || sampled >= self.longest { Step::Finish } else { Step::Continue }
    }
}

/// All control tokens of a model's vocabulary, and ids that stand for no text.
pub(crate) fn special_tokens(model: &Model) -> HashSet<u32> {
    let vocabulary = u32::try_from(model.decoder.config().vocab_size).unwrap_or(u32::MAX);
    let known = u32::try_from(model.tokenizer.vocab_size()).unwrap_or(u32::MAX);
    (0..vocabulary).filter(|id| *id >= known || model.tokenizer.is_special(*id)).collect()
}

/// An element chosen by a number that is already mixed.
pub(crate) fn pick<T>(list: &[T], number: u64) -> Option<&T> {
    let length = u64::try_from(list.len()).ok().filter(|length| *length > 0)?;
    list.get(usize::try_from(number % length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_a_quarter_is_held_out_and_later_tokens_do_not_matter() {
        let prompts: Vec<[u32; 7]> = (0..4000).map(|n| [n % 7, n % 11, n, n * 3, 1, 2, n % 5]).collect();
        let held_out = prompts.iter().filter(|ids| purpose_of(*ids) == Purpose::HeldOut).count();
        assert!((900..1100).contains(&held_out), "{held_out}");
        assert!(prompts.iter().all(|ids| purpose_of(ids) == purpose_of(&ids[..6])));
    }

    #[test]
    fn pick_reaches_every_element_and_nothing_of_an_empty_list() {
        let list = [1, 2, 3];
        assert_eq!((0..3).filter_map(|number| pick(&list, number)).count(), 3);
        assert_eq!(pick::<u8>(&[], 5), None);
    }
}
