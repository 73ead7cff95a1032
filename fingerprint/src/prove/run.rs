//! The proof itself.

use std::{fmt, future::ready, num::NonZeroU32, pin::pin};

use protocol::{
    e_process::{EProcess, EProcessParameters},
    ids::LeafIndex,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    client::{Client, Confidentiality},
    endpoint::{EndpointKind, RequestShape},
    error::ClientError,
    ledger::{BurnedLeaf, Ledger, LedgerError},
};
use crate::{
    bundle::{Bundle, BundleError, EndpointRecord, Exact, FAILURES_IN_A_ROW, Recorder, TestRecord},
    commitment::{Commitment, CommitmentError},
    set::{FingerprintSet, SetError},
    surface::SystemPrompt,
};

/// Everyday prompts that find a misused server before a key is spent on it. Several, so that none announces a proof.
const EVERYDAY_PROMPTS: [&str; 8] = [
    "Hello! How are you today?",
    "Can you suggest a name for a small cat?",
    "Give me one tip for better sleep.",
    "What is a good first sentence for a letter?",
    "Name a city that is worth a visit in spring.",
    "How long should I boil an egg?",
    "Tell me something about the sea.",
    "What could I cook with rice and beans?",
];

/// How a proof ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The server runs a model that carries the set.
    Proved,
    /// The server's model does not answer keys as often as was looked for.
    NotThisModel,
    /// Neither, when queries or leaves ran out.
    Undecided,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Proved => "proved",
            Self::NotThisModel => "not this model",
            Self::Undecided => "undecided",
        })
    }
}

/// What is decided before the first query.
#[derive(Clone, Debug)]
pub struct ProofOptions {
    /// Chat or plain completion.
    pub kind: EndpointKind,
    /// The model's name at the server. None: the first that the server lists.
    pub model: Option<String>,
    /// System prompt, only for a chat. One of the built-in ones, so that it cannot have been chosen for the draw.
    pub system: Option<SystemPrompt>,
    /// Most tokens of an answer. A response is one token; a few more let a model begin with a blank.
    pub max_tokens: u32,
    /// Error bounds, and the hit rate that is looked for. `alpha` is the bound over all runs under the root; this one is
    /// tested at the part that belongs to its first position.
    pub test: EProcessParameters,
    /// Most queries.
    pub max_queries: NonZeroU32,
    /// Ask an everyday prompt first, so that a misused server costs no leaf.
    pub preflight: bool,
}

impl Default for ProofOptions {
    /// A routine proof by chat.
    fn default() -> Self {
        Self {
            kind: EndpointKind::Chat,
            model: None,
            system: None,
            max_tokens: 8,
            test: EProcessParameters::default(),
            max_queries: NonZeroU32::MIN.saturating_add(255),
            preflight: true,
        }
    }
}

/// How far a proof has come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Leaves asked so far.
    pub queries: u32,
    /// Most that will be asked: the budget, or the leaves that were left.
    pub max_queries: u32,
    /// Replies that were the drawn response.
    pub hits: u32,
    /// Replies without any text.
    pub empty: u32,
    /// Decimal logarithm of the evidence.
    pub log10_e: f64,
    /// Where it proves ownership.
    pub log10_threshold: f64,
    /// Leaves that stay unburned.
    pub leaves_left: u32,
}

/// A proof that was begun: what it came to, and why it ended early if it did.
#[derive(Debug)]
pub struct Proof {
    /// Everything that was answered. Undecided if the run ended early.
    pub bundle: Bundle,
    /// Why it ended before the evidence decided and the budget was spent.
    pub cut_short: Option<CutShort>,
}

/// Why a proof ended early. Leaves that were asked stay burned, and the next run goes on behind them.
#[derive(Debug, Error)]
pub enum CutShort {
    /// The caller wanted it to.
    #[error("the proof was interrupted")]
    Interrupted,
    /// The server, or the way to it, stopped working.
    #[error("{FAILURES_IN_A_ROW} questions in a row got no usable answer")]
    Server {
        /// What was wrong with the last.
        #[source]
        source: ClientError,
    },
    /// The ledger refuses.
    #[error("a key whose burning is not written down must not be asked")]
    Ledger {
        /// Why.
        #[source]
        source: LedgerError,
    },
}

/// Why a proof has no bundle.
#[derive(Debug, Error)]
pub enum ProveError {
    /// An option contradicts another.
    #[error("{what}")]
    Options {
        /// What is wrong.
        what: &'static str,
    },
    /// Every leaf is burned.
    #[error("all {leaves} keys of this set are burned; generate and embed a new set")]
    NoLeavesLeft {
        /// Leaves of the set.
        leaves: u32,
    },
    /// Too few leaves are left for any proof; none was burned.
    #[error(
        "{left} keys of this set are not burned yet, and a proof at this level takes at least {needed}; no key was burned: \
         generate and embed a new set, or ask for less with --alpha"
    )]
    TooFewLeaves {
        /// Leaves that are not burned.
        left: u32,
        /// Drawn replies in a row that prove.
        needed: u32,
    },
    /// The server cannot be used; no leaf was burned.
    #[error("the server cannot be asked, and no key was burned")]
    Preflight {
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The server answers nothing to an everyday prompt; no leaf was burned.
    #[error(
        "{host} answers an everyday prompt without any text, and no key was burned; check model and kind of call, or allow more tokens"
    )]
    Silent {
        /// Host and port.
        host: String,
    },
    /// It ended before the first answer.
    #[error("the proof has no answer yet and writes no bundle")]
    CutShort(#[from] CutShort),
    /// The ledger does not fit the set.
    #[error("the ledger cannot be used for this set")]
    Ledger(#[from] LedgerError),
    /// The set cannot prove anything.
    #[error("the set cannot prove ownership")]
    Set(#[from] SetError),
    /// The set has no commitment.
    #[error("the set cannot prove ownership")]
    Commitment(#[from] CommitmentError),
    /// The options are no test, or the bundle does not stand up to its own check.
    #[error("the proof gives no valid bundle")]
    Bundle(#[from] BundleError),
}

/// Asks the leaves of `set` until the evidence decides, and returns the bundle whatever the outcome is.
///
/// Every leaf is in `ledger`, on disk, before its key is sent. An answer without a reply counts for nothing and does not
/// end the proof, unless several come in a row. `progress` is called before the first query and after each. The proof ends
/// early when `interrupt` completes; dropping this future instead loses the answers, though never a line of the ledger.
///
/// # Errors
///
/// [`ProveError`] when there is nothing to write down: what was wrong was found before a leaf was burned, or the proof was
/// cut short before the first answer.
pub async fn prove(
    set: &FingerprintSet,
    client: &mut Client,
    ledger: &mut Ledger,
    options: &ProofOptions,
    interrupt: impl Future<Output = ()> + Send,
    progress: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Proof, ProveError> {
    check_options(options)?;
    let commitment = Commitment::of(set)?;
    let openings = set.openings()?;
    let (root, leaves) = (commitment.root(), set.parameters().fingerprints);
    let start = ledger.next_position(&root, leaves)?;
    if start == leaves {
        return Err(ProveError::NoLeavesLeft { leaves });
    }
    let mut recorder = recorder(&commitment, client, options, start)?;
    let needed = EProcess::fewest_queries(set.parameters().candidates, options.test.starting_at(start))
        .map_err(|source| BundleError::Test { source })?;
    let left = leaves.saturating_sub(start);
    if left < needed {
        return Err(ProveError::TooFewLeaves { left, needed });
    }
    let mut interrupt = pin!(interrupt);
    let shape = tokio::select! {
        biased;
        () = &mut interrupt => return Err(CutShort::Interrupted.into()),
        shape = preflight(client, recorder.request().clone(), options, start) => shape?,
    };
    recorder.set_model(shape.model.clone());

    let window = recorder.window();
    let report = |recorder: &Recorder<'_>| Progress {
        queries: recorder.tally().queries(),
        max_queries: u32::try_from(window.len()).unwrap_or(u32::MAX),
        hits: recorder.tally().drawn(),
        empty: recorder.tally().empty(),
        log10_e: recorder.tally().log10_e(),
        log10_threshold: recorder.tally().log10_threshold(),
        leaves_left: leaves.saturating_sub(start).saturating_sub(recorder.tally().queries()),
    };
    progress(&report(&recorder));
    let mut cut_short = None;
    for (position, leaf) in &window {
        // Looked at before a leaf is burned: a server that answers at once would otherwise never let it be seen.
        let interrupted = tokio::select! { biased; () = &mut interrupt => true, () = ready(()) => false };
        if interrupted {
            cut_short = Some(CutShort::Interrupted);
            break;
        }
        let opening = openings.open(*leaf)?;
        let (host, burned_unix_ms) = (client.host().to_owned(), client.clock().now());
        let burned = BurnedLeaf { commitment: root, position: *position, host, burned_unix_ms };
        if let Err(source) = ledger.burn(burned) {
            cut_short = Some(CutShort::Ledger { source });
            break;
        }
        let exchange = tokio::select! {
            // An answer that is there is kept even if the interrupt came at the same moment.
            biased;
            exchange = client.ask(&shape, opening.key_text, Confidentiality::Secret) => exchange,
            () = &mut interrupt => {
                cut_short = Some(CutShort::Interrupted);
                break;
            }
        };
        let failure = recorder.record(opening, exchange);
        progress(&report(&recorder));
        if recorder.tally().is_decided() {
            break;
        }
        if recorder.tally().is_given_up() {
            cut_short = failure.map(|source| CutShort::Server { source });
            break;
        }
    }
    match cut_short {
        Some(cause) if recorder.tally().queries() == 0 => Err(cause.into()),
        cut_short => Ok(Proof { bundle: recorder.finish()?, cut_short }),
    }
}

/// What is fixed before anything is sent, so that an impossible proof costs nothing. Only the model's name may still be
/// missing.
fn recorder<'a>(
    commitment: &'a Commitment,
    client: &Client,
    options: &ProofOptions,
    start: u32,
) -> Result<Recorder<'a>, ProveError> {
    let request = RequestShape {
        kind: options.kind,
        model: options.model.clone().unwrap_or_default(),
        system: options.system.map(|prompt| prompt.text().to_owned()),
        max_tokens: options.max_tokens,
    };
    let test = TestRecord {
        alpha: Exact(options.test.alpha),
        min_hit_rate: Exact(options.test.min_hit_rate),
        beta: Exact(options.test.beta),
        start,
        max_queries: options.max_queries,
    };
    Ok(Recorder::new(commitment, EndpointRecord { url: client.url(&request), request }, test)?)
}

fn check_options(options: &ProofOptions) -> Result<(), ProveError> {
    if options.kind == EndpointKind::Completion && options.system.is_some() {
        return Err(ProveError::Options { what: "a plain completion has no system prompt; use the chat call for one" });
    }
    if options.max_tokens == 0 {
        return Err(ProveError::Options { what: "an answer needs at least one token" });
    }
    Ok(())
}

/// Finds the model's name, and whether the server answers at all. Nothing secret is sent.
async fn preflight(
    client: &mut Client,
    mut shape: RequestShape,
    options: &ProofOptions,
    start: u32,
) -> Result<RequestShape, ProveError> {
    let failed = |source| ProveError::Preflight { source };
    if options.model.is_none() {
        // The list is never empty when it is no error.
        shape.model = client.models().await.map_err(failed)?.into_iter().next().unwrap_or_default();
    }
    if options.preflight {
        let prompt = EVERYDAY_PROMPTS[LeafIndex::new(start).as_usize() % EVERYDAY_PROMPTS.len()];
        let reply = client.ask(&shape, prompt, Confidentiality::Public).await.reply.map_err(failed)?;
        if reply.trim().is_empty() {
            return Err(ProveError::Silent { host: client.host().to_owned() });
        }
    }
    Ok(shape)
}
