//! `hallmark prove`

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{
    Args, ValueEnum,
    builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser},
};
use fingerprint::{
    bundle::Place,
    prove::{
        Client, ClientOptions, CutShort, EndpointKind, Ledger, Outcome, Proof, ProofOptions, ProveError, SystemClock,
        prove,
    },
    surface::SystemPrompt,
};
use protocol::e_process::{EProcessParameters, ROUTINE_ALPHA};
use serde_json::json;
use url::Url;

use crate::{
    arguments::{SetArguments, positive, probability},
    commands::verify_bundle,
    context::Context,
    failure::{self, Advise as _, Interrupted},
    models, output, progress, secrets,
};

/// Exit code when the reverse process says that this is another model.
const NOT_THIS_MODEL: u8 = 2;
/// Exit code when the questions ended before either side was sure.
const UNDECIDED: u8 = 3;

/// Prove over HTTP that a server runs the stamped model
///
/// Asks keys of the set in the order that its beacon fixed, like an ordinary customer, and stops as soon as the evidence
/// suffices. Every key that was asked is burned: it is written to the ledger first and never asked again, and the next
/// run goes on behind it. A question that gets no usable answer counts for nothing; after four in a row the run ends. The
/// bundle of what was answered is written however the run ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark prove --url http://127.0.0.1:8080/v1 --set my-model.set --bundle bundle.json
  HALLMARK_API_KEY=… hallmark prove --url https://api.example.com/v1 --model-name x --set my-model.set --alpha 1e-9

Exit codes:
  0  proved
  2  not this model
  3  undecided: the questions ended first
  1  error")]
pub(crate) struct Prove {
    /// Base address of an OpenAI-compatible API, with or without /v1
    #[arg(long, env = "HALLMARK_URL", hide_env_values = true, value_parser = http_url)]
    url: Url,

    #[command(flatten)]
    set: SetArguments,

    /// The bundle to write; must not exist
    #[arg(long, env = "HALLMARK_BUNDLE", value_name = "FILE", default_value = "bundle.json")]
    bundle: PathBuf,

    /// The ledger of burned keys; one file may serve several sets [default: SET.ledger.jsonl]
    #[arg(long, env = "HALLMARK_LEDGER", value_name = "FILE")]
    ledger: Option<PathBuf>,

    #[command(flatten)]
    ask: AskArguments,

    #[command(flatten)]
    test: TestArguments,

    #[command(flatten)]
    connection: ConnectionArguments,
}

/// How the server is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Question")]
struct AskArguments {
    /// The model's name at the server [default: the first that it lists]
    #[arg(long, env = "HALLMARK_MODEL_NAME", value_name = "NAME")]
    model_name: Option<String>,

    /// The call
    #[arg(long, env = "HALLMARK_CALL", value_enum, default_value_t = Call::Chat)]
    call: Call,

    /// System prompt of a chat, one of the built-in ones [default: none]
    ///
    /// Another text would make a bundle worthless: chosen after the draw, it could hold the answers.
    #[arg(long, env = "HALLMARK_SYSTEM", value_name = "NAME", value_parser = system_prompts())]
    system: Option<SystemPrompt>,

    /// Most tokens of an answer
    #[arg(long, env = "HALLMARK_MAX_TOKENS", value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,

    /// Skip the everyday question that finds a misused server before a key is spent
    #[arg(long, env = "HALLMARK_NO_PREFLIGHT", value_parser = FalseyValueParser::new())]
    no_preflight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Call {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions, for base models
    Completion,
}

/// When the evidence suffices.
#[derive(Debug, Args)]
#[command(next_help_heading = "Test")]
struct TestArguments {
    /// Error bound of "proved" over all runs under the root: 1e-6 for routine, 1e-9 for a dispute
    ///
    /// A run that begins at position s of the order is tested at P / ((s + 1)(s + 2)); these levels add up to P.
    #[arg(long, env = "HALLMARK_ALPHA", value_name = "P", default_value = "1e-6", value_parser = probability)]
    alpha: f64,

    /// Error bound of "not this model"
    #[arg(long, env = "HALLMARK_BETA", value_name = "P", default_value = "1e-3", value_parser = probability)]
    beta: f64,

    /// Smallest share of drawn answers that "not this model" rules out
    #[arg(long, env = "HALLMARK_MIN_HIT_RATE", value_name = "SHARE", default_value = "0.5", value_parser = probability)]
    min_hit_rate: f64,

    /// Most questions
    #[arg(long, env = "HALLMARK_BUDGET", value_name = "COUNT", default_value = "256")]
    budget: NonZeroU32,
}

/// How patiently the server is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct ConnectionArguments {
    /// Most requests per second, repetitions included [default: as fast as answers come]
    #[arg(long, env = "HALLMARK_RATE", value_name = "COUNT", value_parser = positive)]
    rate: Option<f64>,

    /// Limit on one answer, in seconds
    #[arg(long, env = "HALLMARK_TIMEOUT", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    timeout: Duration,

    /// Limit on making a connection, in seconds
    #[arg(long, env = "HALLMARK_CONNECT_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    connect_timeout: Duration,

    /// Repetitions of a request that failed or was refused for now
    #[arg(long, env = "HALLMARK_RETRIES", value_name = "COUNT", default_value_t = 5)]
    retries: u32,

    /// What the client calls itself [default: as OpenAI's own library does]
    #[arg(long, env = "HALLMARK_USER_AGENT", value_name = "WORDS")]
    user_agent: Option<String>,

    /// Proxy for both http and https
    #[arg(long, env = "HALLMARK_PROXY", hide_env_values = true, value_name = "URL")]
    proxy: Option<Url>,
}

/// Names of the built-in system prompts, which `--help` lists.
fn system_prompts() -> impl TypedValueParser<Value = SystemPrompt> {
    PossibleValuesParser::new(SystemPrompt::all().map(SystemPrompt::name))
        .try_map(|name| SystemPrompt::named(&name).ok_or("no such system prompt"))
}

fn http_url(text: &str) -> Result<Url, String> {
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err("give the whole address, for example http://127.0.0.1:8080/v1".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(positive(text)?).map_err(|error| error.to_string())
}

impl Prove {
    fn client(&self, context: &Context) -> anyhow::Result<Client> {
        let mut options = ClientOptions::new(self.url.clone());
        options.api_key = secrets::api_key()?;
        options.proxy = self.connection.proxy.clone();
        options.connect_timeout = self.connection.connect_timeout;
        options.request_timeout = self.connection.timeout;
        options.retry.retries = self.connection.retries;
        options.requests_per_second = self.connection.rate;
        if let Some(name) = &self.connection.user_agent {
            options.user_agent.clone_from(name);
        }
        options.seed = context.seed()?;
        Ok(Client::new(options, Arc::new(SystemClock))?)
    }

    fn options(&self) -> ProofOptions {
        let TestArguments { alpha, beta, min_hit_rate, budget } = self.test;
        ProofOptions {
            kind: match self.ask.call {
                Call::Chat => EndpointKind::Chat,
                Call::Completion => EndpointKind::Completion,
            },
            model: self.ask.model_name.clone(),
            system: self.ask.system,
            max_tokens: self.ask.max_tokens,
            test: EProcessParameters { alpha, min_hit_rate, beta },
            max_queries: budget,
            preflight: !self.ask.no_preflight,
        }
    }

    fn ledger_path(&self) -> PathBuf {
        self.ledger.clone().unwrap_or_else(|| default_ledger(&self.set.set))
    }
}

/// Beside the set, so that whoever moves one sees the other.
pub(crate) fn default_ledger(set: &Path) -> PathBuf {
    let mut name = set.as_os_str().to_owned();
    name.push(".ledger.jsonl");
    PathBuf::from(name)
}

pub(crate) async fn run(arguments: Prove, context: &Context) -> anyhow::Result<ExitCode> {
    // Everything that can be wrong on this side is found before a key is spent.
    let path = &arguments.bundle;
    models::require_absent(path)?;
    if arguments.ledger_path() == *path {
        return Err(anyhow::anyhow!("{} cannot be both the ledger and the bundle", path.display()))
            .advise("name another file with --bundle");
    }
    let place = Place::reserve(path)
        .with_context(|| format!("failed to make a place for the bundle {}", path.display()))
        .advise("name a file in a folder that is there and can be written to")?;
    let mut client = arguments.client(context)?;
    let options = arguments.options();
    let set_arguments = arguments.set.clone();
    let (_, set) = context.compute(move || secrets::open(&set_arguments)).await?;
    let ledger_path = arguments.ledger_path();
    if !ledger_path.exists() {
        progress::say(&format!(
            "no ledger at {}: if this set was asked elsewhere, bring its ledger, or its keys are asked twice",
            ledger_path.display()
        ));
    }
    let mut ledger = Ledger::open(&ledger_path)?;

    let mut step = context.progress().step("prove");
    let mut show = |at: &fingerprint::prove::Progress| {
        let words = format!("{} hits, evidence 10^{:.1} of 10^{:.1}", at.hits, at.log10_e, at.log10_threshold);
        step.at_u64(at.queries.into(), at.max_queries.into(), &words);
    };
    let interrupt = context.interrupt();
    let Proof { bundle, cut_short } =
        match prove(&set, &mut client, &mut ledger, &options, interrupt.cancelled(), &mut show).await {
            Err(ProveError::CutShort(CutShort::Interrupted)) => {
                return Err(Interrupted).context("the proof was given up before the first answer");
            }
            proof => proof?,
        };
    bundle.write(place).with_context(|| format!("failed to write the bundle {}", path.display()))?;
    if matches!(cut_short, Some(CutShort::Interrupted)) {
        let kept = format!("what was answered is in {}, and keys that were asked stay burned", path.display());
        return Err(Interrupted).context(kept);
    }
    let ended_early = cut_short.map(|cause| failure::line(&cause.into()));
    let report = bundle.report();
    step.done(&format!("{} after {} questions", report.outcome, report.queries));

    let code = exit_code(report.outcome);
    let mut words = verify_bundle::words(report, &report.outcome.to_string());
    if report.alpha > ROUTINE_ALPHA {
        let alpha = report.alpha;
        words.push_str(&format!("note: verify-bundle calls this proved only with --max-alpha {alpha:e}\n"));
    }
    if let Some(cause) = &ended_early {
        words.push_str(&format!("note: the run ended early: {cause}\n"));
    }
    words.push_str(&output::rows(&[("written to", path.display().to_string())]));
    let outcome = report.outcome;
    let object = json!({ "outcome": outcome, "ended_early": ended_early, "bundle": path, "report": report });
    context.output.finish(&words, &object)?;
    Ok(ExitCode::from(code))
}

/// The documented exit codes, which `verify-bundle` shares.
pub(crate) fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Proved => 0,
        Outcome::NotThisModel => NOT_THIS_MODEL,
        Outcome::Undecided => UNDECIDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_the_documented_exit_codes() {
        assert_eq!([Outcome::Proved, Outcome::NotThisModel, Outcome::Undecided].map(exit_code), [0, 2, 3]);
    }

    #[test]
    fn the_ledger_lies_beside_the_set() {
        assert_eq!(default_ledger(Path::new("a/b.set")), Path::new("a/b.set.ledger.jsonl"));
    }
}
