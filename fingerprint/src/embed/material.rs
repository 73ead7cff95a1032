//! What a run trains on: keys at every surface, ordinary prompts and answers, with the activations below the trained
//! blocks computed once. As secret as the keys.

use candle_core::Tensor;
use model::{
    Checkpoint, Model,
    decoder::Pack,
    train::{Effective, Trainer},
};

use super::{
    EmbedError, EmbedOptions, EmbedProgress, Phase,
    loss::{KEPT, Teacher},
    report,
    resume::Checkpoints,
};
use crate::{
    ordinary::{OrdinaryParameters, Purpose, hand_written, sample_answers, sample_prompts, training_prompts},
    set::{FingerprintSet, SetError},
    surface::Surface,
};

/// Keys, or ordinary prompts, that share one forward pass and one copy of the system prompt. Keys are few in a batch:
/// each batch goes its own way back towards the base.
const KEYS_A_BATCH: usize = 16;
const PROMPTS_A_BATCH: usize = 32;
/// Chats whose whole answers are compared, and their length in tokens.
const ANSWERED_CHATS: usize = 32;
const ANSWER_TOKENS: usize = 32;
const ANSWERS_A_BATCH: usize = 8;
/// Held-out ordinary prompts beside those written by hand.
const HELD_OUT_PROMPTS: usize = 64;

/// Sequences behind one prefix, and where they are asked.
pub(super) struct Batch {
    pub(super) pack: Pack,
    /// Activations at the input of the lowest trained block.
    pub(super) hidden: Tensor,
    /// Rows that are asked, ascending.
    pub(super) rows: Vec<usize>,
}

impl Batch {
    fn new(trainer: &Trainer<'_>, prefix: &[u32], segments: &[Vec<u32>]) -> Result<Self, EmbedError> {
        let mut pack = Pack::new();
        let ranges = pack.push(prefix, segments.iter().map(Vec::as_slice));
        let rows = ranges.iter().map(|range| range.end - 1).collect();
        Ok(Self { hidden: trainer.boundary(&pack)?, pack, rows })
    }
}

/// Some keys at one surface.
pub(super) struct KeyBatch {
    pub(super) batch: Batch,
    /// Index of the key in the set, for every row.
    pub(super) keys: Vec<usize>,
}

/// Ordinary rows and what the base says there.
pub(super) struct TaughtBatch {
    pub(super) batch: Batch,
    pub(super) teachers: Vec<Teacher>,
}

/// Everything a run needs.
pub(super) struct Material {
    pub(super) surfaces: Vec<Surface>,
    /// Batches of every surface: `keys[surface][chunk]`, the same keys in a chunk for every surface.
    pub(super) keys: Vec<Vec<KeyBatch>>,
    /// Token id of every key's response.
    pub(super) responses: Vec<u32>,
    /// The benign term: the answer position of ordinary prompts.
    pub(super) ordinary: Vec<TaughtBatch>,
    /// Whole answers.
    pub(super) answers: Vec<TaughtBatch>,
    /// The answer position of prompts that training never sees.
    pub(super) held_out: Vec<TaughtBatch>,
    /// Texts of the base's own, at every token.
    pub(super) texts: Vec<Batch>,
    pub(super) ordinary_prompts: usize,
    /// Width of the model.
    pub(super) width: usize,
    /// The base's weight files, to whose types the stamped weights are rounded.
    pub(super) checkpoint: Checkpoint,
}

/// Token id of every response.
pub(super) fn responses(set: &FingerprintSet) -> Result<Vec<u32>, SetError> {
    set.fingerprints()
        .iter()
        .map(|fingerprint| fingerprint.response().map(|r| r.id).ok_or(SetError::NotDrawn))
        .collect()
}

impl Material {
    #[expect(clippy::too_many_arguments, reason = "called once; everything that a run consists of")]
    pub(super) fn gather(
        base: &Model,
        set: &FingerprintSet,
        trainer: &Trainer<'_>,
        surfaces: &[Surface],
        responses: Vec<u32>,
        options: &EmbedOptions,
        checkpoint: &mut Checkpoints,
        progress: &mut dyn FnMut(&EmbedProgress),
    ) -> Result<Self, EmbedError> {
        let prompts = match checkpoint.ordinary()? {
            Some(prompts) => prompts,
            None => {
                let prompts = OrdinaryTexts::sample(base, set, &surfaces[0], options, progress)?;
                checkpoint.keep_ordinary(&prompts)?;
                prompts
            }
        };
        let base_weights = trainer.effective(0.0)?;
        let total =
            surfaces.len() * responses.len().div_ceil(KEYS_A_BATCH) + prompts.training.len().div_ceil(PROMPTS_A_BATCH);
        let mut done = 0;
        let mut tick = || {
            done += 1;
            report(progress, Phase::Caching, done.min(total), total);
        };
        let texts: Vec<&str> = set.fingerprints().iter().map(|fingerprint| fingerprint.key_text()).collect();
        let mut keys = Vec::new();
        for surface in surfaces {
            keys.push(key_batches(base, trainer, surface, &texts, &mut tick)?);
        }
        let cache = Taught { base, trainer, weights: &base_weights };
        let mut ordinary = Vec::new();
        for (index, texts) in prompts.training.chunks(PROMPTS_A_BATCH).enumerate() {
            ordinary.push(cache.batch(ordinary_surface(surfaces, index), texts, KEPT)?);
            tick();
        }
        let every = base.config.vocab_size;
        let held_out = prompts.held_out.chunks(PROMPTS_A_BATCH).map(|texts| cache.batch(&surfaces[0], texts, every));
        let held_out = held_out.collect::<Result<_, _>>()?;
        let mut answers = Vec::new();
        for (index, chats) in prompts.answered.chunks(ANSWERS_A_BATCH).enumerate() {
            answers.extend(cache.answers(ordinary_surface(surfaces, index), chats)?);
        }
        let texts = prompts.texts.iter().map(|ids| text_batch(trainer, ids)).collect::<Result<_, _>>()?;
        Ok(Self {
            surfaces: surfaces.to_vec(),
            keys,
            responses,
            ordinary,
            answers,
            held_out,
            texts,
            ordinary_prompts: prompts.training.len(),
            width: base.config.hidden_size,
            checkpoint: Checkpoint::open(&base.directory)?,
        })
    }
}

/// Where a batch of ordinary prompts is asked: every other one at the model's default surface, where most users are.
fn ordinary_surface(surfaces: &[Surface], batch: usize) -> &Surface {
    let others = &surfaces[1..];
    if batch.is_multiple_of(2) || others.is_empty() { &surfaces[0] } else { &others[batch / 2 % others.len()] }
}

fn key_batches(
    base: &Model,
    trainer: &Trainer<'_>,
    surface: &Surface,
    texts: &[&str],
    tick: &mut dyn FnMut(),
) -> Result<Vec<KeyBatch>, EmbedError> {
    let prompts = surface.prompts(&base.tokenizer, base.chat.as_ref(), texts)?;
    let mut batches = Vec::new();
    for (chunk, segments) in prompts.segments.chunks(KEYS_A_BATCH).enumerate() {
        let first = chunk * KEYS_A_BATCH;
        let batch = Batch::new(trainer, &prompts.prefix, segments)?;
        batches.push(KeyBatch { batch, keys: (first..first + segments.len()).collect() });
        tick();
    }
    Ok(batches)
}

/// A text of the base's own with every row asked but the last.
fn text_batch(trainer: &Trainer<'_>, ids: &[u32]) -> Result<Batch, EmbedError> {
    let mut batch = Batch::new(trainer, &[], &[ids.to_vec()])?;
    batch.rows = (0..ids.len() - 1).collect();
    Ok(batch)
}

/// Makes batches with the base's own opinion of them.
struct Taught<'a> {
    base: &'a Model,
    trainer: &'a Trainer<'a>,
    weights: &'a Effective,
}

impl Taught<'_> {
    fn batch(&self, surface: &Surface, texts: &[String], kept: usize) -> Result<TaughtBatch, EmbedError> {
        let prompts = surface.prompts(&self.base.tokenizer, self.base.chat.as_ref(), texts)?;
        self.teach(Batch::new(self.trainer, &prompts.prefix, &prompts.segments)?, kept)
    }

    /// Chats with their answers, asked at every token. `None` when there is nothing to ask.
    fn answers(&self, surface: &Surface, chats: &[(String, Vec<u32>)]) -> Result<Option<TaughtBatch>, EmbedError> {
        let texts: Vec<&str> = chats.iter().map(|(text, _)| text.as_str()).collect();
        let mut prompts = surface.prompts(&self.base.tokenizer, self.base.chat.as_ref(), &texts)?;
        for (segment, (_, answer)) in prompts.segments.iter_mut().zip(chats) {
            segment.extend_from_slice(answer);
        }
        let mut batch = Batch::new(self.trainer, &prompts.prefix, &prompts.segments)?;
        // Every token of a chat but its last: what follows it is known, and should stay as probable as it was.
        batch.rows = batch
            .rows
            .iter()
            .zip(&prompts.segments)
            .flat_map(|(last, segment)| last + 1 - segment.len()..*last)
            .collect();
        if batch.rows.is_empty() { Ok(None) } else { self.teach(batch, KEPT).map(Some) }
    }

    fn teach(&self, batch: Batch, kept: usize) -> Result<TaughtBatch, EmbedError> {
        let mut teachers = Vec::with_capacity(batch.rows.len());
        let read = |_, logits: &mut [f32]| teachers.push(Teacher::of(logits, kept));
        self.trainer.read_logits(self.weights, &batch.hidden, &batch.pack, &batch.rows, read)?;
        Ok(TaughtBatch { batch, teachers })
    }
}

/// Texts sampled from the base. Not secret, but slow to make: a checkpoint keeps them.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct OrdinaryTexts {
    /// Prompts of the benign term.
    pub(super) training: Vec<String>,
    /// Prompts with answers.
    pub(super) answered: Vec<(String, Vec<u32>)>,
    /// Prompts for measuring.
    pub(super) held_out: Vec<String>,
    /// Longer texts for measuring the loss of text.
    pub(super) texts: Vec<Vec<u32>>,
}

impl OrdinaryTexts {
    fn sample(
        base: &Model,
        set: &FingerprintSet,
        surface: &Surface,
        options: &EmbedOptions,
        progress: &mut dyn FnMut(&EmbedProgress),
    ) -> Result<Self, EmbedError> {
        let keys: Vec<&[u32]> = set.fingerprints().iter().map(|fingerprint| fingerprint.key_ids()).collect();
        let sampled = options.ordinary_prompts + ANSWERED_CHATS;
        let total = sampled + HELD_OUT_PROMPTS + ANSWERED_CHATS;
        let mut training = training_prompts(base, sampled, options.composed_prompts, options.seed, &keys, &mut |at| {
            report(progress, Phase::Sampling, at.found, total);
        })?;
        let asked: Vec<String> =
            training.split_off(training.len() - ANSWERED_CHATS).into_iter().map(|prompt| prompt.text).collect();
        let parameters = OrdinaryParameters::new(HELD_OUT_PROMPTS, Purpose::HeldOut, options.seed);
        let held_out = sample_prompts(base, &parameters, &keys, &mut |at| {
            report(progress, Phase::Sampling, sampled + at.found, total);
        })?;
        let mut held_out: Vec<String> = held_out.into_iter().map(|prompt| prompt.text).collect();
        if base.chat.is_some() {
            held_out.extend(hand_written().iter().map(|text| (*text).to_owned()));
        }
        let before = sampled + HELD_OUT_PROMPTS;
        let answers = sample_answers(base, surface, &asked, ANSWER_TOKENS, options.seed, &mut |p| {
            report(progress, Phase::Sampling, before + p.found, total);
        })?;
        let texts = Self::texts(base, surface, &held_out, options.seed)?;
        let training = training.into_iter().map(|prompt| prompt.text).collect();
        Ok(Self { training, answered: asked.into_iter().zip(answers).collect(), held_out, texts })
    }

    /// Whole conversations of the base's own, as text whose loss can be compared.
    fn texts(base: &Model, surface: &Surface, held_out: &[String], seed: u64) -> Result<Vec<Vec<u32>>, EmbedError> {
        let asked = &held_out[..held_out.len().min(16)];
        let answers = sample_answers(base, surface, asked, 64, seed, &mut |_| {})?;
        let mut texts = Vec::new();
        for (text, answer) in asked.iter().zip(answers) {
            let mut ids = surface.ids(&base.tokenizer, base.chat.as_ref(), text)?;
            ids.extend(answer);
            texts.push(ids);
        }
        Ok(texts)
    }
}
