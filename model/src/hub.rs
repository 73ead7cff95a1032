//! From what a user types to a folder on disk: a path, the word `bundled`, or `org/name` on the Hugging Face Hub.
//!
//! Downloads go into the Hub's usual cache (`HF_HOME`), in the layout that the Python tools share, and are resumed
//! where they stopped. All files of a model come from one commit. A model that is in the cache loads offline.

mod error;

use std::{
    fmt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        RepoInfo,
        sync::{Api, ApiBuilder, ApiError, ApiRepo},
    },
};
use tracing::{info, warn};

use crate::{
    bundled,
    checkpoint::{INDEX, SINGLE, is_legal, shard_names, weight_files},
    manifest::CONFIGURATION_FILES,
};

pub use self::error::HubError;
use self::error::{Failure, failure};

/// What stands for the model inside this program.
pub const BUNDLED: &str = "bundled";
const DEFAULT_REVISION: &str = "main";
const HUB: &str = "https://huggingface.co";

/// Attempts for one request; each download attempt continues where the last one stopped.
const ATTEMPTS: u32 = 4;

/// How the Hub is reached.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// Address of the Hub; `None` is `HF_ENDPOINT` or huggingface.co.
    pub endpoint: Option<String>,
    /// Folder of the cache; `None` is `HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub cache: Option<PathBuf>,
    /// Access token for gated and private models; `None` is the one that `huggingface-cli login` stored.
    pub token: Option<String>,
    /// Never use the network.
    pub offline: bool,
    /// Show a progress bar on standard error.
    pub progress: bool,
    /// Wait before the second attempt; doubled after each.
    pub first_pause: Duration,
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubOptions {
    /// What the environment says, as the Python tools read it: `HF_TOKEN` and `HF_HUB_OFFLINE` here, `HF_HOME` and
    /// `HF_ENDPOINT` in hf-hub.
    pub fn from_environment() -> Self {
        let token = environment("HF_TOKEN").or_else(|| environment("HUGGING_FACE_HUB_TOKEN"));
        let offline = environment("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
        Self { token, offline, progress: true, first_pause: Duration::from_secs(1), ..Self::default() }
    }

    fn cache(&self) -> Cache {
        self.cache.clone().map_or_else(Cache::from_env, Cache::new)
    }

    fn api(&self) -> Result<Api, ApiError> {
        let mut builder = match &self.cache {
            Some(_) => ApiBuilder::from_cache(self.cache()),
            None => ApiBuilder::from_env(),
        };
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if self.token.is_some() {
            builder = builder.with_token(self.token.clone());
        }
        // hf-hub's own retries continue a resumed file at the wrong place when the first one fails at once.
        builder.with_retries(0).with_progress(self.progress).build()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the Hub's variables are a convention of its clients; hf-hub reads the rest"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the Python tools take the value of a variable for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The folder of a model: an existing one, the bundled one, or one that is fetched from the Hub if need be.
///
/// `org/name@revision` names a branch, tag or commit. An existing folder wins over a name on the Hub.
///
/// # Errors
/// When there is no such model, or it cannot be fetched; the message says what to do.
pub fn resolve(reference: &str) -> Result<PathBuf, HubError> {
    resolve_with(reference, &HubOptions::from_environment())
}

/// As [`resolve`], with the Hub reached as the options say.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(reference: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    if reference == BUNDLED {
        return Ok(bundled::directory()?);
    }
    let path = Path::new(reference);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if path.exists() {
        let file = path.to_owned();
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        return Err(if is_gguf { HubError::Gguf { file } } else { HubError::NotAFolder { file } });
    }
    let name = HubName::parse(reference).ok_or_else(|| HubError::NoSuchModel { reference: reference.to_owned() })?;
    fetch(&name, options)
}

/// `org/name` and a revision.
struct HubName<'a> {
    name: &'a str,
    revision: &'a str,
}

impl<'a> HubName<'a> {
    fn parse(reference: &'a str) -> Option<Self> {
        let (name, revision) = reference.split_once('@').unwrap_or((reference, DEFAULT_REVISION));
        let (organisation, model) = name.split_once('/')?;
        let plain = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                && !part.contains("..")
        };
        (plain(organisation) && plain(model) && revision.split('/').all(plain)).then_some(Self { name, revision })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.to_owned(), RepoType::Model, revision.to_owned())
    }
}

/// Repeats what failed for a passing reason.
fn attempt<T>(options: &HubOptions, mut call: impl FnMut() -> Result<T, ApiError>) -> Result<T, ApiError> {
    let mut pause = options.first_pause;
    for _ in 1..ATTEMPTS {
        match call() {
            Err(error) if matches!(failure(&error), Failure::Transient) => {
                info!(%error, "the connection to the Hub failed, trying again in {} s", pause.as_secs_f32());
                thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
    call()
}

fn fetch(name: &HubName<'_>, options: &HubOptions) -> Result<PathBuf, HubError> {
    let offline =
        |source| cached(name, options).ok_or_else(|| HubError::Offline { name: name.name.to_owned(), source });
    if options.offline {
        return offline(None);
    }
    let failed = |source| HubError::Fetch { name: name.name.to_owned(), file: "the list of files".to_owned(), source };
    let api = options.api().map_err(failed)?;
    let info = match attempt(options, || api.repo(name.repo(name.revision)).info()) {
        Ok(info) => info,
        Err(error) => match failure(&error) {
            Failure::Transient => return offline(Some(error)),
            Failure::Status(401 | 403 | 404) => return Err(HubError::Unknown { name: name.name.to_owned() }),
            Failure::Status(429) => return Err(HubError::RateLimited { name: name.name.to_owned() }),
            _ => return Err(failed(error)),
        },
    };
    if HubName::parse(&format!("{}@{}", name.name, info.sha)).is_none_or(|pinned| pinned.revision.contains('/')) {
        return Err(failed(ApiError::InvalidHeader("sha")));
    }
    let download = Download { name, options, repo: api.repo(name.repo(&info.sha)), commit: &info.sha };
    let folder = download.all(&info)?;
    // Only now does the branch point to this commit: offline, a cache never offers half a model.
    let cache = options.cache();
    if let Err(error) = cache.repo(name.repo(name.revision)).create_ref(&info.sha) {
        warn!(%error, "failed to note the commit of {} in the cache; it will not be found offline", name.name);
    }
    Ok(folder)
}

/// The cached folder of a model, if all of it is there.
fn cached(name: &HubName<'_>, options: &HubOptions) -> Option<PathBuf> {
    let config = options.cache().repo(name.repo(name.revision)).get("config.json")?;
    let folder = config.parent()?.to_owned();
    // Opens the index of a split checkpoint and looks for every file that it names.
    weight_files(&folder).ok()?;
    folder.join("tokenizer.json").exists().then(|| {
        info!("using {} from the cache", name.name);
        folder
    })
}

/// One model at one commit.
struct Download<'a> {
    name: &'a HubName<'a>,
    options: &'a HubOptions,
    repo: ApiRepo,
    commit: &'a str,
}

impl Download<'_> {
    /// Fetches what is needed and nothing else: repositories often hold the same weights in several formats.
    fn all(&self, info: &RepoInfo) -> Result<PathBuf, HubError> {
        let listed: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let name = self.name.name.to_owned();
        for file in ["config.json", "tokenizer.json"] {
            if !listed.contains(&file) {
                return Err(HubError::NoFile { name, file: file.to_owned() });
            }
        }
        let split = match (listed.contains(&SINGLE), listed.contains(&INDEX)) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => {
                let gguf = listed.iter().find(|file| file.ends_with(".gguf")).map(|&file| file.to_owned());
                return Err(HubError::NoSafetensors { name, gguf });
            }
        };
        let config = self.file("config.json")?;
        // Small files first, so that a gated or unusable model is noticed before the weights.
        for file in listed.iter().filter(|file| CONFIGURATION_FILES.contains(*file) || is_plain_legal(file)) {
            self.file(file)?;
        }
        if split {
            let index = self.file(INDEX)?;
            for shard in shard_names(index).map_err(HubError::Index)? {
                self.file(&shard)?;
            }
        } else {
            self.file(SINGLE)?;
        }
        // hf-hub put every file into the snapshot's folder.
        Ok(config.parent().map(Path::to_owned).unwrap_or_default())
    }

    fn file(&self, file: &str) -> Result<PathBuf, HubError> {
        let mut path = self.options.cache().repo(self.name.repo(self.commit)).pointer_path(self.commit);
        path.push(file);
        if path.exists() {
            return Ok(path);
        }
        info!("fetching {file} of {}", self.name.name);
        let name = || self.name.name.to_owned();
        attempt(self.options, || self.repo.download(file)).map_err(|error| match failure(&error) {
            Failure::Status(401 | 403) => HubError::Gated { name: name() },
            Failure::Status(404) => HubError::NoFile { name: name(), file: file.to_owned() },
            Failure::Status(429) => HubError::RateLimited { name: name() },
            Failure::BrokenPartial => HubError::BrokenPartial { file: file.to_owned(), partial: self.partial() },
            Failure::Locked => HubError::Locked { name: name(), file: file.to_owned() },
            Failure::Cache => {
                let cache = self.options.cache().path().clone();
                HubError::Cache { name: name(), file: file.to_owned(), cache, source: error }
            }
            _ => HubError::Fetch { name: name(), file: file.to_owned(), source: error },
        })
    }

    /// Where hf-hub keeps what has arrived of a file.
    fn partial(&self) -> PathBuf {
        self.options.cache().repo(self.name.repo(self.commit)).blob_path("*.part")
    }
}

/// A file name from the Hub that is safe to join to a folder.
fn is_plain_legal(file: &str) -> bool {
    is_legal(file) && file.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_hub_have_exactly_two_plain_parts() {
        for name in ["HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "a/b@v1.0", "a/b@refs/pr/3"] {
            assert!(HubName::parse(name).is_some(), "{name}");
        }
        for name in
            ["gpt2", "./a/b", "/a/b", "../b", "a/..", "a/b/c", "a\\b", "a/b@../x", "", "a/", "/", "a/b@", "-a/b"]
        {
            assert!(HubName::parse(name).is_none(), "{name}");
        }
    }

    #[test]
    fn switches_are_read_as_in_python() {
        assert!(["1", "ON", "on", "Yes", "TRUE", "true"].into_iter().all(is_true));
        assert!(!["", "0", "2", "off", "no", "False", "y", "t", " 1"].into_iter().any(is_true));
    }

    #[test]
    fn debug_does_not_print_the_token() {
        let options = HubOptions { token: Some("hf_secret".to_owned()), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
