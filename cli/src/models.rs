//! Models as commands name them: a folder, `org/name`, or `bundled`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fingerprint::set::FingerprintSet;
use model::{ChatTemplate, Config, Model, Tokenizer, hub};
use protocol::ids::TokenizerDigest;

use crate::format;

/// Loads a model, weights and all.
pub(crate) fn load(reference: &str) -> anyhow::Result<Model> {
    Model::load(reference).with_context(|| format!("failed to load the model {reference}"))
}

/// Where a model's files are; fetched first, if they are on the Hub.
pub(crate) fn folder(reference: &str) -> anyhow::Result<PathBuf> {
    hub::resolve(reference).map_err(model::Error::from).with_context(|| format!("failed to find the model {reference}"))
}

/// Loads the base of a set and refuses another one.
pub(crate) fn load_base(reference: &str, set: &FingerprintSet) -> anyhow::Result<Model> {
    let base = load(reference)?;
    set.require_base(&base.manifest_digest, &base.tokenizer.digest())
        .with_context(|| format!("{reference} is not the base of this set"))?;
    Ok(base)
}

/// What renders prompts, without the weights.
pub(crate) struct Renderer {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) chat: Option<ChatTemplate>,
}

impl Renderer {
    /// Loads tokenizer and template of a model and refuses one with another tokenizer than the set's.
    pub(crate) fn load(reference: &str, set: &FingerprintSet) -> anyhow::Result<Self> {
        let failed = || format!("failed to load the tokenizer of {reference}");
        let directory = hub::resolve(reference).map_err(model::Error::from).with_context(failed)?;
        let tokenizer = Tokenizer::load(&directory).map_err(model::Error::from).with_context(failed)?;
        let chat = ChatTemplate::load(&directory).map_err(model::Error::from).with_context(failed)?;
        require_tokenizer(&tokenizer.digest(), set).with_context(|| format!("{reference} cannot render this set"))?;
        Ok(Self { tokenizer, chat })
    }
}

/// Refuses a model whose tokenizer is not the one that the set was generated for. A stamped model has it too.
pub(crate) fn require_tokenizer(digest: &TokenizerDigest, set: &FingerprintSet) -> anyhow::Result<()> {
    // The base digest is the set's own here, so only the tokenizer is compared.
    Ok(set.require_base(&set.parameters().base, digest)?)
}

/// How a set remembers its base: the whole path of a folder, so that later commands find it from anywhere.
pub(crate) fn lasting_name(reference: &str) -> String {
    match Path::new(reference).canonicalize() {
        Ok(path) if path.is_dir() => path.display().to_string(),
        _ => reference.to_owned(),
    }
}

/// `Llama, 135 M parameters, 30 blocks`.
pub(crate) fn summary(config: &Config) -> String {
    format!(
        "{:?}, {} parameters, {} blocks",
        config.architecture,
        format::count_short(config.parameter_count()),
        config.layers
    )
}

/// Refuses an output folder that holds something. Checked before any work is done; the writers check again.
pub(crate) fn require_free(folder: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => anyhow::bail!("the folder {} is not empty; name a new one", folder.display()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to look into the folder {}", folder.display())),
    }
}

/// Refuses a file that exists, before work is done for it.
pub(crate) fn require_absent(file: &Path) -> anyhow::Result<()> {
    if file.symlink_metadata().is_ok() {
        anyhow::bail!("{} exists already; name another file or move it away", file.display());
    }
    Ok(())
}

/// The last part of a reference, as a model's name in the API.
pub(crate) fn short_name(reference: &str) -> String {
    let path = PathBuf::from(reference);
    path.file_name().map_or_else(|| reference.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_last_part() {
        assert_eq!(short_name("bundled"), "bundled");
        assert_eq!(short_name("org/name"), "name");
        assert_eq!(short_name("/a/b/"), "b");
    }

    #[test]
    fn a_folder_with_content_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(require_free(folder.path()).is_ok());
        assert!(require_free(&folder.path().join("new")).is_ok());
        std::fs::write(folder.path().join("file"), "x").expect("a file");
        assert!(require_free(folder.path()).is_err());
        assert!(require_absent(&folder.path().join("file")).is_err());
    }
}
