use std::{io, path::PathBuf};

use hf_hub::api::sync::ApiError;
use thiserror::Error;

use super::HUB;
use crate::{bundled::BundledError, checkpoint::CheckpointError};

/// Why a reference does not lead to a model.
#[derive(Debug, Error)]
pub enum HubError {
    /// Neither a folder nor a name on the Hub.
    #[error("{reference:?} is neither a folder, nor org/name on the Hugging Face Hub, nor the word \"bundled\"")]
    NoSuchModel {
        /// What was asked for.
        reference: String,
    },
    /// A file where a folder is needed.
    #[error("{} is a file; name the folder that holds config.json and the weights", file.display())]
    NotAFolder {
        /// What was asked for.
        file: PathBuf,
    },
    /// A GGUF where a folder is needed.
    #[error("{} is a GGUF; turn it into a model folder first: hallmark model import {} --out FOLDER", file.display(), file.display())]
    Gguf {
        /// What was asked for.
        file: PathBuf,
    },
    /// The Hub does not show such a model to this user.
    #[error(
        "there is no folder {name} here, and the Hub has no such model or it is private; \
         check the name, or set HF_TOKEN to a token that may read it"
    )]
    Unknown {
        /// Model on the Hub.
        name: String,
    },
    /// The model's files need an accepted licence.
    #[error("{name} is gated; accept its terms at {HUB}/{name} and set HF_TOKEN to a token of that account")]
    Gated {
        /// Model on the Hub.
        name: String,
    },
    /// The model has no weights that can be read.
    #[error("{name} has no safetensors weights{}", gguf_hint(gguf.as_deref()))]
    NoSafetensors {
        /// Model on the Hub.
        name: String,
        /// A GGUF that it has instead.
        gguf: Option<String>,
    },
    /// A file that every model has is absent.
    #[error("{name} has no {file}, so it cannot be used")]
    NoFile {
        /// Model on the Hub.
        name: String,
        /// File that is absent.
        file: String,
    },
    /// The index of a split checkpoint cannot be used.
    #[error(transparent)]
    Index(CheckpointError),
    /// The Hub cannot be reached, and the cache does not hold the model.
    #[error(
        "the Hub cannot be reached and the cache does not hold all of {name}; \
         connect this machine, or name a folder, or \"bundled\""
    )]
    Offline {
        /// Model on the Hub.
        name: String,
        /// What the connection failed with; `None` when the network was switched off.
        #[source]
        source: Option<ApiError>,
    },
    /// The Hub refuses for now.
    #[error("the Hub asks this address to wait before it gives {name}; try again in a few minutes, or set HF_TOKEN")]
    RateLimited {
        /// Model on the Hub.
        name: String,
    },
    /// A partial download does not fit the file any more.
    #[error("the partial download of {file} cannot be continued; remove {} and try again", partial.display())]
    BrokenPartial {
        /// File that was fetched.
        file: String,
        /// Pattern of the files to remove.
        partial: PathBuf,
    },
    /// Another process is fetching the same file.
    #[error("another process is fetching {file} of {name}; wait for it and try again")]
    Locked {
        /// Model on the Hub.
        name: String,
        /// File that is being fetched.
        file: String,
    },
    /// The cache cannot take the file.
    #[error(
        "failed to write {file} of {name} to the cache in {}; \
         make the folder writable and see that it has room, or set HF_HOME to another", cache.display()
    )]
    Cache {
        /// Model on the Hub.
        name: String,
        /// File that was fetched.
        file: String,
        /// Folder of the cache.
        cache: PathBuf,
        /// What hf-hub said.
        #[source]
        source: ApiError,
    },
    /// Anything else, after all attempts.
    #[error("failed to fetch {file} of {name}; what arrived is kept, so trying again continues")]
    Fetch {
        /// Model on the Hub.
        name: String,
        /// File that was fetched, or "the list of files".
        file: String,
        /// What hf-hub said.
        #[source]
        source: ApiError,
    },
    /// The bundled model could not be written to the cache.
    #[error(transparent)]
    Bundled(#[from] BundledError),
}

fn gguf_hint(gguf: Option<&str>) -> String {
    gguf.map_or_else(String::new, |file| {
        format!("; fetch {file} and turn it into a model folder: hallmark model import {file} --out FOLDER")
    })
}

impl HubError {
    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Offline { .. } | Self::RateLimited { .. } | Self::Locked { .. } | Self::Fetch { .. })
    }
}

/// What an error of hf-hub means.
pub(super) enum Failure {
    Status(u16),
    /// The network, the server, or the connection between them.
    Transient,
    BrokenPartial,
    Locked,
    /// The disk or its owner.
    Cache,
    Other,
}

pub(super) fn failure(error: &ApiError) -> Failure {
    match error {
        ApiError::RequestError(error) => match error.as_ref() {
            // The partial file is already complete, or longer than the file.
            ureq::Error::StatusCode(416) => Failure::BrokenPartial,
            ureq::Error::StatusCode(status @ (408 | 500..=599)) => {
                tracing::debug!("the Hub answered {status}");
                Failure::Transient
            }
            ureq::Error::StatusCode(status) => Failure::Status(*status),
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Failure::Transient,
            _ => Failure::Other,
        },
        // A connection that ends inside a body arrives as an I/O error of the copy, beside those of the cache.
        ApiError::IoError(error) => match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory => Failure::Cache,
            _ => Failure::Transient,
        },
        ApiError::InvalidResume => Failure::BrokenPartial,
        ApiError::LockAcquisition(_) => Failure::Locked,
        _ => Failure::Other,
    }
}
