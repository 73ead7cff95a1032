//! `host.toml`: what a metered host serves, and how.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use model::ComputeDevice;
use protocol::{ids::LeaseId, units::Seconds};
use serde::{Deserialize, Deserializer, de};
use url::Url;

use crate::{failure::Advise as _, models};

/// The file. Every field but the models has a default that is right for `hallmark devnet`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostConfig {
    /// Where customers connect.
    #[serde(default = "listen")]
    pub(crate) listen: SocketAddr,
    /// Where the operator looks: metrics and the status page. Not for the public.
    #[serde(default = "operator")]
    pub(crate) operator: Option<SocketAddr>,
    /// The books: `sqlite:FILE` or `postgres://…`.
    #[serde(default = "books")]
    pub(crate) books: String,
    /// Folder of the journal of sent transactions.
    #[serde(default = "state")]
    pub(crate) state: PathBuf,
    /// Encrypted keystore file of the host's account.
    pub(crate) keystore: Option<PathBuf>,
    #[serde(default)]
    pub(crate) chain: ChainConfig,
    #[serde(default)]
    pub(crate) settlement: SettlementConfig,
    #[serde(default)]
    pub(crate) limits: LimitConfig,
    /// Certificate and key for HTTPS.
    pub(crate) tls: Option<TlsConfig>,
    #[serde(rename = "model")]
    pub(crate) models: Vec<ModelConfig>,
}

/// How the chain is reached and followed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ChainConfig {
    pub(crate) rpc: Vec<Url>,
    pub(crate) deployment: PathBuf,
    #[serde(deserialize_with = "span")]
    pub(crate) poll: Duration,
    /// How old what is known of the chain may be for a request to be admitted.
    #[serde(deserialize_with = "span")]
    pub(crate) most_age: Duration,
    pub(crate) confirmations: u64,
    pub(crate) max_fee_gwei: u32,
}

/// When statements become money.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SettlementConfig {
    #[serde(deserialize_with = "span")]
    pub(crate) every: Duration,
    /// In tokens: a lane that owes as much is claimed at once.
    pub(crate) claim_from: String,
    /// In tokens: a lane that owes less is never claimed.
    pub(crate) claim_least: String,
}

/// What clients may take.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitConfig {
    pub(crate) body_bytes: usize,
    pub(crate) open_requests: usize,
    pub(crate) max_tokens: NonZeroUsize,
    #[serde(deserialize_with = "span")]
    pub(crate) answer_time: Duration,
    /// How long running requests may go on after the host is told to stop.
    #[serde(deserialize_with = "span")]
    pub(crate) drain_time: Duration,
}

/// PEM files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A model that is served under a lease.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// Its name in the API [default: the last part of `model`].
    pub(crate) name: Option<String>,
    #[serde(deserialize_with = "lease")]
    pub(crate) lease: LeaseId,
    /// Encrypted keystore file of the lease key.
    pub(crate) lease_keystore: Option<PathBuf>,
    /// A folder in Hugging Face layout, `org/name`, or `bundled`. In front of another server only its tokenizer and chat template
    /// are used.
    pub(crate) model: String,
    /// What the built-in engine computes on: `cpu`, `cuda` or `cuda:1`.
    #[serde(default, deserialize_with = "device")]
    pub(crate) device: ComputeDevice,
    /// Another server that runs the model: where its API begins, `/v1` included.
    pub(crate) upstream: Option<Url>,
    /// The model's name there; needed if it serves several.
    pub(crate) upstream_model: Option<String>,
    /// How prompts are sent there.
    #[serde(default)]
    pub(crate) upstream_prompt: UpstreamPrompt,
    /// Shortens the context; needed where the other server tells none.
    pub(crate) context_length: Option<NonZeroUsize>,
    #[serde(default = "streams")]
    pub(crate) streams: NonZeroUsize,
    #[serde(default = "queue")]
    pub(crate) queue: usize,
}

/// How another server takes prompts.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UpstreamPrompt {
    /// As token ids.
    #[default]
    Tokens,
    /// As text, where it takes nothing else.
    Text,
}

impl HostConfig {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read the configuration {}", path.display()))
            .advise("name a file with --config; `hallmark host --example` prints one")?;
        let config: Self = toml::from_str(&text)
            .with_context(|| format!("{} is not a host's configuration", path.display()))
            .advise("`hallmark host --example` prints one with every field")?;
        config.check().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(config)
    }
}

impl HostConfig {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.models.is_empty(), "it names no [[model]] to serve");
        for (place, model) in self.models.iter().enumerate() {
            let others = self.models.iter().take(place);
            for other in others {
                anyhow::ensure!(other.lease != model.lease, "two models name lease {}", model.lease);
                anyhow::ensure!(
                    other.served_name() != model.served_name(),
                    "two models are called {}",
                    model.served_name()
                );
            }
            model.check().with_context(|| format!("the model {}", model.served_name()))?;
        }
        for (name, span) in [("[chain] poll", self.chain.poll), ("[settlement] every", self.settlement.every)] {
            anyhow::ensure!(!span.is_zero(), "{name} must be 1s at least");
        }
        Ok(())
    }
}

impl ModelConfig {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.upstream.is_none() || self.device == ComputeDevice::Cpu,
            "`device` is for the built-in engine, and `upstream` lets another server run the model; name one of them"
        );
        Ok(self.device.require_built()?)
    }

    /// Its name in the API.
    pub(crate) fn served_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| models::short_name(&self.model))
    }
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            rpc: Url::parse("http://127.0.0.1:8545").into_iter().collect(),
            deployment: "deployment.json".into(),
            poll: Duration::from_secs(1),
            most_age: Duration::from_secs(60),
            confirmations: 1,
            max_fee_gwei: 500,
        }
    }
}

impl Default for SettlementConfig {
    fn default() -> Self {
        Self { every: Duration::from_secs(10), claim_from: "0.05".to_owned(), claim_least: "0".to_owned() }
    }
}

impl Default for LimitConfig {
    fn default() -> Self {
        let limits = serving::Limits::default();
        Self {
            body_bytes: limits.body_bytes,
            open_requests: limits.open_requests,
            max_tokens: limits.max_completion_tokens,
            answer_time: limits.generation_timeout,
            drain_time: limits.drain_timeout,
        }
    }
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn operator() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 8090)))
}

fn books() -> String {
    "sqlite:hallmark-host/books.sqlite".to_owned()
}

fn state() -> PathBuf {
    "hallmark-host".into()
}

fn streams() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(15)
}

fn queue() -> usize {
    64
}

fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LeaseId, D::Error> {
    NonZeroU32::deserialize(deserializer).map(|number| LeaseId::new(number.get().into()))
}

fn device<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ComputeDevice, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// `90s`, `15m`, `12h`, `30d`.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let seconds: Seconds = crate::commands::chain::duration(&text).map_err(de::Error::custom)?;
    Ok(Duration::from_secs(seconds.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_says_what_the_defaults_are() {
        let example: HostConfig = toml::from_str(super::super::EXAMPLE).unwrap();
        let least: HostConfig =
            toml::from_str("[[model]]\nname = \"stories\"\nlease = 1\nmodel = \"bundled\"").unwrap();
        assert_eq!(format!("{example:?}"), format!("{least:?}"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("", "model"),
            ("[[model]]\nmodel = \"bundled\"", "lease"),
            ("[[model]]\nmodel = \"bundled\"\nlease = 0", "lease"),
            ("listen = 8080\n[[model]]\nmodel = \"bundled\"\nlease = 1", "listen"),
            ("[chain]\npoll = \"1\"\n[[model]]\nmodel = \"bundled\"\nlease = 1", "30d"),
            ("[[model]]\nmodel = \"bundled\"\nlease = 1\ndevice = \"gpu\"", "cuda:1"),
            ("port = 1\n[[model]]\nmodel = \"bundled\"\nlease = 1", "port"),
        ] {
            let error = toml::from_str::<HostConfig>(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    fn check(device: &str, more: &str) -> Result<(), String> {
        let text = format!("[[model]]\nmodel = \"bundled\"\nlease = 1\ndevice = \"{device}\"\n{more}");
        let config = toml::from_str::<HostConfig>(&text).unwrap();
        config.check().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_device_is_for_the_built_in_engine() {
        assert_eq!(check("cpu", ""), Ok(()));
        assert_eq!(check("cpu", "upstream = \"http://127.0.0.1:1/v1\""), Ok(()));
        let error = check("cuda:1", "upstream = \"http://127.0.0.1:1/v1\"").unwrap_err();
        assert!(error.contains("bundled") && error.contains("name one of them"), "{error}");
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_without_cuda_is_refused_at_the_start() {
        let error = check("cuda:1", "").unwrap_err();
        assert!(error.contains("cuda:1") && error.contains("--features cuda"), "{error}");
    }
}
