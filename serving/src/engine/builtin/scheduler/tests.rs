//! The scheduler on a decoder that does as it is told: it fails, panics and records, which no real one does on demand.
//! What a real decoder does is tested in `tests/it`.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{LogitAdjustments, SamplingParameters};

use super::*;
use crate::engine::{
    CompletionEvent, CompletionStream, Engine as _, FinishReason,
    builtin::{BuiltinEngine, BuiltinSettings},
};

const VOCABULARY: u32 = 256;
const CONTEXT: usize = 512;
/// A decoder that is fed this token fails.
const POISON: u32 = 250;
/// A decoder that is fed this token panics.
const BOMB: u32 = 251;
/// A decoder that is fed this token answers NaN.
const NOT_A_NUMBER: u32 = 252;
/// A prefix with this token cannot be copied.
const UNCOPYABLE: u32 = 253;

#[derive(Clone, Debug, Default)]
struct Script {
    /// For each step the number of tokens that each stream appended.
    steps: Arc<Mutex<Vec<Vec<usize>>>>,
    caches_alive: Arc<AtomicUsize>,
    pace: Duration,
    /// Has no memory for a stream, and takes the engine's thread with it.
    dies: bool,
}

#[derive(Debug)]
struct ScriptedCache {
    ids: Vec<u32>,
    capacity: usize,
    alive: Arc<AtomicUsize>,
}

impl Drop for ScriptedCache {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Scripted;

impl Forward for Script {
    type Cache = ScriptedCache;

    fn new_cache(&self, capacity: usize) -> Result<ScriptedCache, Failure> {
        assert!(!self.dies, "the script says so");
        self.caches_alive.fetch_add(1, Ordering::SeqCst);
        Ok(ScriptedCache { ids: Vec::new(), capacity, alive: self.caches_alive.clone() })
    }

    fn clear(&self, cache: &mut ScriptedCache) {
        cache.ids.clear();
    }

    fn copy_prefix(&self, from: &ScriptedCache, to: &mut ScriptedCache, tokens: usize) -> Result<(), Failure> {
        to.ids = from.ids[..tokens].to_vec();
        if to.ids.contains(&UNCOPYABLE) { Err(Arc::new(Scripted)) } else { Ok(()) }
    }

    /// The next token is a hash of all tokens before it, so a lost, repeated or foreign one changes everything after it.
    fn forward(&self, streams: &mut [(&[u32], &mut ScriptedCache)]) -> Result<Vec<Vec<f32>>, Failure> {
        std::thread::sleep(self.pace);
        self.steps.lock().unwrap().push(streams.iter().map(|(tokens, _)| tokens.len()).collect());
        if streams.iter().any(|(tokens, _)| tokens.contains(&POISON)) {
            return Err(Arc::new(Scripted));
        }
        assert!(!streams.iter().any(|(tokens, _)| tokens.contains(&BOMB)), "boom");
        let rows = streams.iter_mut().map(|(tokens, cache)| {
            cache.ids.extend_from_slice(tokens);
            assert!(cache.ids.len() <= cache.capacity);
            if tokens.contains(&NOT_A_NUMBER) {
                return vec![f32::NAN; 256];
            }
            let next = next_token(&cache.ids);
            (0..VOCABULARY).map(|id| if id == next { 1.0 } else { 0.0 }).collect()
        });
        Ok(rows.collect())
    }
}

fn next_token(ids: &[u32]) -> u32 {
    ids.iter().fold(17, |hash: u32, id| (hash * 31 + id + 1) % 199)
}

fn expected(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    (0..count).for_each(|_| ids.push(next_token(&ids)));
    ids.split_off(prompt.len())
}

fn request(prompt: Vec<u32>, max_tokens: usize) -> GenerationRequest {
    GenerationRequest {
        prompt: prompt.into(),
        choices: NonZeroU16::MIN,
        max_tokens: NonZeroUsize::new(max_tokens).unwrap(),
        stop_tokens: Arc::from([]),
        sampling: SamplingParameters::GREEDY,
        adjustments: LogitAdjustments::default(),
        likeliest: None,
        cache_scope: None,
    }
}

fn engine(script: &Script, settings: &BuiltinSettings) -> BuiltinEngine {
    let pool = CachePool::new(CONTEXT, 32 * CONTEXT);
    BuiltinEngine::start_forward(script.clone(), pool, CONTEXT, 256, settings).unwrap()
}

fn one_slot() -> BuiltinSettings {
    BuiltinSettings { streams: NonZeroUsize::MIN, ..BuiltinSettings::default() }
}

async fn read(stream: CompletionStream) -> Result<(Vec<u32>, FinishReason), EngineError> {
    read_with_cached(stream).await.map(|(tokens, reason, _)| (tokens, reason))
}

async fn read_with_cached(mut stream: CompletionStream) -> Result<(Vec<u32>, FinishReason, u64), EngineError> {
    let mut tokens = Vec::new();
    let mut cached = 0;
    loop {
        match stream.next().await? {
            CompletionEvent::Token(token) => tokens.push(token.id),
            CompletionEvent::Finished(finish) => return Ok((tokens, finish.reason, cached)),
            CompletionEvent::Cached(count) => {
                assert!(tokens.is_empty(), "before the first token");
                cached = count.get();
            }
            CompletionEvent::Text(_) => panic!("this engine has no text"),
        }
    }
}

fn submit(engine: &BuiltinEngine, request: GenerationRequest) -> CompletionStream {
    let mut streams = submit_all(engine, request);
    assert_eq!(streams.len(), 1);
    streams.remove(0)
}

fn submit_all(engine: &BuiltinEngine, request: GenerationRequest) -> Vec<CompletionStream> {
    use crate::engine::Engine;
    engine.submit(request).unwrap()
}

#[tokio::test]
async fn streams_of_one_batch_keep_apart() {
    let engine = engine(&Script::default(), &BuiltinSettings::default());
    let prompts: Vec<Vec<u32>> =
        (1..100).map(|length| (0..length).map(|id| (id * 7 + length) % 200).collect()).collect();
    let streams: Vec<_> = prompts.iter().map(|prompt| submit(&engine, request(prompt.clone(), 20))).collect();
    for (prompt, stream) in prompts.iter().zip(streams) {
        assert_eq!(read(stream).await.unwrap(), (expected(prompt, 20), FinishReason::Length));
    }
}

#[tokio::test]
async fn long_prompt_is_read_in_pieces_beside_running_streams() {
    let script = Script { pace: Duration::from_millis(1), ..Script::default() };
    let settings = BuiltinSettings {
        prompt_tokens_per_step: NonZeroUsize::new(50).unwrap(),
        prompt_tokens_beside_streams: NonZeroUsize::new(10).unwrap(),
        ..BuiltinSettings::default()
    };
    let engine = engine(&script, &settings);
    let mut running = submit(&engine, request(vec![1], 200));
    running.next().await.unwrap();
    let prompt = vec![3; 300];
    assert_eq!(read(submit(&engine, request(prompt.clone(), 5))).await.unwrap().0, expected(&prompt, 5));
    drop(engine);
    let steps = script.steps.lock().unwrap();
    let with_both: Vec<_> = steps.iter().filter(|step| step.len() == 2).collect();
    assert!(with_both.len() >= 30, "30 pieces of 10, not {}", with_both.len());
    assert!(with_both.iter().all(|step| step.iter().sum::<usize>() <= 11), "{steps:?}");
}

#[tokio::test]
async fn stop_token_ends_a_stream_and_is_not_delivered() {
    let engine = engine(&Script::default(), &BuiltinSettings::default());
    let tokens = expected(&[5], 8);
    let stop = tokens[5];
    let first = tokens.iter().position(|token| *token == stop).unwrap();
    let request = GenerationRequest { stop_tokens: Arc::from([stop]), ..request(vec![5], 8) };
    assert_eq!(read(submit(&engine, request)).await.unwrap(), (tokens[..first].to_vec(), FinishReason::Stop));
}

#[tokio::test]
async fn dropped_stream_frees_its_slot() {
    let script = Script { pace: Duration::from_millis(1), ..Script::default() };
    let engine = engine(&script, &one_slot());
    let mut endless = submit(&engine, request(vec![1], 500));
    endless.next().await.unwrap();
    let waiting = submit(&engine, request(vec![2], 3));
    drop(endless);
    assert_eq!(read(waiting).await.unwrap().0, expected(&[2], 3));
    assert!(script.steps.lock().unwrap().len() < 400);
}

#[tokio::test]
async fn failed_batch_ends_its_streams_and_the_engine_goes_on() {
    for poison in [POISON, BOMB, NOT_A_NUMBER] {
        let script = Script::default();
        let engine = engine(&script, &BuiltinSettings::default());
        let error = read(submit(&engine, request(vec![1, poison], 10))).await.unwrap_err();
        assert!(matches!(error, EngineError::Compute { .. }), "{error}");
        assert!(error.is_retryable());
        assert_eq!(read(submit(&engine, request(vec![9], 10))).await.unwrap().0, expected(&[9], 10));
        drop(engine);
        assert_eq!(script.caches_alive.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn full_queue_refuses_until_there_is_room() {
    use crate::engine::Engine;
    let script = Script { pace: Duration::from_millis(1), ..Script::default() };
    let engine = engine(&script, &BuiltinSettings { queue: 1, ..one_slot() });
    let mut running = submit(&engine, request(vec![1], 500));
    running.next().await.unwrap();
    let waiting = submit(&engine, request(vec![2], 1));
    let refused = engine.submit(request(vec![3], 1)).unwrap_err();
    assert!(matches!(refused, EngineError::QueueFull { waiting: 1 }), "{refused}");
    drop(waiting);
    let admitted = submit(&engine, request(vec![4], 1));
    drop(running);
    assert_eq!(read(admitted).await.unwrap().0, expected(&[4], 1));
}

#[tokio::test]
async fn impossible_requests_are_refused_at_once() {
    use crate::engine::Engine;
    let engine = engine(&Script::default(), &BuiltinSettings::default());
    let refusal = |request| engine.submit(request).unwrap_err();
    assert!(matches!(refusal(request(vec![], 1)), EngineError::EmptyPrompt));
    assert!(matches!(refusal(request(vec![256], 1)), EngineError::UnknownToken { id: 256, vocabulary: 256 }));
    let error = refusal(request(vec![1; CONTEXT], 1));
    assert!(matches!(error, EngineError::ContextExceeded { prompt: CONTEXT, completion: 1, context: CONTEXT }));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn draining_engine_finishes_what_it_accepted() {
    use crate::engine::Engine;
    let engine = engine(&Script::default(), &one_slot());
    let accepted: Vec<_> = (0..4).map(|id| submit(&engine, request(vec![id], 30))).collect();
    engine.drain();
    assert!(matches!(engine.submit(request(vec![1], 1)), Err(EngineError::Draining)));
    engine.join();
    for (id, stream) in (0..).zip(accepted) {
        assert_eq!(read(stream).await.unwrap().0, expected(&[id], 30));
    }
}

#[tokio::test]
async fn dropped_engine_breaks_off_running_and_waiting_streams() {
    let script = Script { pace: Duration::from_millis(1), ..Script::default() };
    let engine = engine(&script, &one_slot());
    let running = submit(&engine, request(vec![1], 500));
    let waiting = submit(&engine, request(vec![2], 500));
    drop(engine);
    for stream in [running, waiting] {
        assert!(matches!(read(stream).await, Err(EngineError::Stopped)));
    }
}

#[tokio::test]
async fn requests_wait_for_cache_room_and_all_finish() {
    let script = Script::default();
    let pool = CachePool::new(CONTEXT, CONTEXT);
    let engine = BuiltinEngine::start_forward(script.clone(), pool, CONTEXT, 256, &BuiltinSettings::default()).unwrap();
    let sizes = [500, 10, 200, 60, 500, 1];
    let streams: Vec<_> = sizes.iter().map(|size| submit(&engine, request(vec![7], *size))).collect();
    for (size, stream) in sizes.iter().zip(streams) {
        assert_eq!(read(stream).await.unwrap().0, expected(&[7], *size));
    }
    assert!(script.caches_alive.load(Ordering::SeqCst) <= CONTEXT / 64);
}

fn scoped(scope: &str, prompt: Vec<u32>, max_tokens: usize) -> GenerationRequest {
    GenerationRequest { cache_scope: Some(scope.into()), ..request(prompt, max_tokens) }
}

/// The tokens that a request finds in a cache, if its completion is what it must be.
async fn cached(engine: &BuiltinEngine, request: GenerationRequest) -> u64 {
    let (prompt, max_tokens) = (request.prompt.clone(), request.max_tokens.get());
    let (tokens, _, cached) = read_with_cached(submit(engine, request)).await.unwrap();
    assert_eq!(tokens, expected(&prompt, max_tokens));
    cached
}

#[tokio::test]
async fn finished_prompts_and_completions_are_reused_within_their_scope() {
    let engine = engine(&Script::default(), &BuiltinSettings::default());
    let prompt: Vec<u32> = (0..40).collect();
    assert_eq!(cached(&engine, scoped("a", prompt.clone(), 20)).await, 0);
    assert_eq!(cached(&engine, scoped("a", prompt.clone(), 20)).await, 39, "the last token is always run");
    assert_eq!(cached(&engine, scoped("b", prompt.clone(), 20)).await, 0);
    assert_eq!(cached(&engine, request(prompt.clone(), 20)).await, 0);
    assert_eq!(cached(&engine, request(prompt.clone(), 20)).await, 0, "without a scope nothing is kept");
    // A chat goes on: prompt and completion, of which the last token was not appended, and a new turn.
    let turn = [prompt.clone(), expected(&prompt, 20), vec![7, 8, 9]].concat();
    assert_eq!(cached(&engine, scoped("a", turn.clone(), 5)).await, 59);
    assert_eq!(cached(&engine, scoped("a", [turn[..30].to_vec(), vec![1; 9]].concat(), 5)).await, 30);
    assert_eq!(cached(&engine, scoped("a", [turn[..15].to_vec(), vec![1; 9]].concat(), 5)).await, 0, "too short");
}

#[tokio::test]
async fn reuse_can_be_switched_off_and_failed_copies_only_cost_time() {
    let prompt: Vec<u32> = (0..40).collect();
    let off = engine(&Script::default(), &BuiltinSettings { reuse_prefixes: false, ..BuiltinSettings::default() });
    let on = engine(&Script::default(), &BuiltinSettings::default());
    let uncopyable = [vec![UNCOPYABLE], prompt.clone()].concat();
    for _ in 0..2 {
        assert_eq!(cached(&off, scoped("a", prompt.clone(), 5)).await, 0);
        assert_eq!(cached(&on, scoped("a", uncopyable.clone(), 5)).await, 0);
    }
}

#[tokio::test]
async fn an_engine_whose_thread_died_says_so() {
    let engine = engine(&Script { dies: true, ..Script::default() }, &BuiltinSettings::default());
    assert!(engine.probe().await.is_ok());
    let error = read(submit(&engine, request(vec![1], 5))).await.unwrap_err();
    assert!(matches!(error, EngineError::Stopped), "{error}");
    // The answer ends while the thread unwinds, a moment before the thread is gone.
    let gone = async {
        while engine.probe().await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    assert!(matches!(engine.probe().await, Err(EngineError::Stopped)));
}

#[tokio::test]
async fn an_engine_that_drains_takes_nothing() {
    let engine = engine(&Script::default(), &BuiltinSettings::default());
    engine.drain();
    assert!(matches!(engine.probe().await, Err(EngineError::Draining)));
}

#[tokio::test]
async fn what_a_broken_stream_leaves_is_not_reused() {
    for poison in [POISON, BOMB, NOT_A_NUMBER] {
        let engine = engine(&Script::default(), &BuiltinSettings::default());
        let broken = [(0..40).collect(), vec![poison]].concat();
        for _ in 0..2 {
            let error = read(submit(&engine, scoped("a", broken.clone(), 5))).await.unwrap_err();
            assert!(matches!(error, EngineError::Compute { .. }), "{error}");
        }
        assert_eq!(cached(&engine, scoped("a", (0..50).collect(), 5)).await, 0);
    }
}

#[tokio::test]
async fn running_stream_of_the_same_scope_lends_its_prompt() {
    let script = Script { pace: Duration::from_millis(1), ..Script::default() };
    let engine = engine(&script, &BuiltinSettings::default());
    let prompt: Vec<u32> = (0..40).collect();
    let mut running = submit(&engine, scoped("a", prompt.clone(), 400));
    running.next().await.unwrap();
    assert_eq!(cached(&engine, scoped("a", [prompt.clone(), vec![3; 5]].concat(), 5)).await, 40);
    assert_eq!(cached(&engine, scoped("b", prompt.clone(), 5)).await, 0);
    assert_eq!(cached(&engine, request(prompt, 5)).await, 0);
}

#[tokio::test]
async fn choices_read_their_prompt_once() {
    let script = Script::default();
    let engine = engine(&script, &BuiltinSettings::default());
    let prompt: Vec<u32> = (0..200).map(|id| id % 190).collect();
    let several = GenerationRequest { choices: NonZeroU16::new(4).unwrap(), ..request(prompt.clone(), 10) };
    for stream in submit_all(&engine, several) {
        assert_eq!(read(stream).await.unwrap().0, expected(&prompt, 10));
    }
    assert_eq!(cached(&engine, request(prompt.clone(), 1)).await, 0, "a request without a scope leaves nothing");
    drop(engine);
    let appended: usize = script.steps.lock().unwrap().iter().flatten().sum();
    assert_eq!(appended, 200 + 3 + 4 * 9 + 200, "the prompt, its last token thrice, nine tokens each");
}

#[tokio::test]
async fn choices_go_on_without_the_one_that_reads_for_them() {
    let script = Script { pace: Duration::from_millis(2), ..Script::default() };
    let settings =
        BuiltinSettings { prompt_tokens_per_step: NonZeroUsize::new(10).unwrap(), ..BuiltinSettings::default() };
    let engine = engine(&script, &settings);
    let prompt: Vec<u32> = (0..200).map(|id| id % 190).collect();
    let several = GenerationRequest { choices: NonZeroU16::new(3).unwrap(), ..request(prompt.clone(), 10) };
    let mut streams = submit_all(&engine, several);
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(streams.remove(0));
    for stream in streams {
        assert_eq!(read(stream).await.unwrap().0, expected(&prompt, 10));
    }
}

#[tokio::test]
async fn kept_prefixes_make_room_for_running_streams() {
    let script = Script::default();
    let pool = CachePool::new(CONTEXT, CONTEXT);
    let engine = BuiltinEngine::start_forward(script.clone(), pool, CONTEXT, 256, &BuiltinSettings::default()).unwrap();
    for scope in 0..20 {
        assert_eq!(cached(&engine, scoped(&scope.to_string(), (0..40).collect(), 80)).await, 0);
        assert!(script.caches_alive.load(Ordering::SeqCst) <= CONTEXT / 128);
    }
    assert_eq!(cached(&engine, scoped("19", (0..40).collect(), 5)).await, 39);
    assert_eq!(cached(&engine, scoped("0", (0..40).collect(), 5)).await, 0);
    assert_eq!(cached(&engine, request(vec![1], CONTEXT - 1)).await, 0);
    assert_eq!(cached(&engine, scoped("19", (0..40).collect(), 5)).await, 0, "a whole context took everything");
}
