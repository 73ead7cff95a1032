//! Which files hold the weights of a folder.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{CheckpointError, Shard};
use crate::gguf;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The largest published models have indices of a few megabytes.
const MAX_INDEX_BYTES: u64 = 100_000_000;

pub(super) struct Found {
    /// Weight files in the order of their names.
    pub(super) files: Vec<PathBuf>,
    /// Present when the weights are split.
    pub(super) index: Option<Index>,
}

pub(super) struct Index {
    file: PathBuf,
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// Whether there are safetensors, in one file or with an index.
pub(crate) fn has_safetensors(directory: &Path) -> bool {
    [SINGLE, INDEX].iter().any(|name| directory.join(name).exists())
}

/// Finds the weight files; a single file wins over an index, as in transformers.
pub(super) fn find(directory: &Path) -> Result<Found, CheckpointError> {
    let single = directory.join(SINGLE);
    if single.exists() {
        return Ok(Found { files: vec![single], index: None });
    }
    let file = directory.join(INDEX);
    if !file.exists() {
        let directory = directory.to_owned();
        if directory.join(gguf::FILE).exists() {
            return Err(CheckpointError::Quantized { directory });
        }
        let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        return Err(match pickled.iter().any(|name| directory.join(name).exists()) {
            true => CheckpointError::Pickle { directory },
            false => CheckpointError::NoWeights { directory },
        });
    }
    let index = Index::read(file)?;
    Ok(Found { files: index.files(directory)?, index: Some(index) })
}

/// Names of the weight files that an index lists, each checked to be a plain name inside its folder.
pub(crate) fn shard_names(index: PathBuf) -> Result<BTreeSet<String>, CheckpointError> {
    let index = Index::read(index)?;
    for (tensor, shard) in &index.weight_map {
        index.check_name(tensor, shard)?;
    }
    Ok(index.weight_map.into_values().collect())
}

impl Index {
    fn read(file: PathBuf) -> Result<Self, CheckpointError> {
        let mut text = Vec::new();
        File::open(&file)
            .and_then(|opened| opened.take(MAX_INDEX_BYTES + 1).read_to_end(&mut text))
            .map_err(|source| CheckpointError::Read { file: file.clone(), source })?;
        if text.len() as u64 > MAX_INDEX_BYTES {
            return Err(CheckpointError::IndexSize { file, limit: MAX_INDEX_BYTES });
        }
        match serde_json::from_slice::<RawIndex>(&text) {
            Ok(raw) => Ok(Self { file, weight_map: raw.weight_map }),
            Err(source) => Err(CheckpointError::Index { file, source }),
        }
    }

    /// The files, each once. A file outside the folder is never opened.
    fn files(&self, directory: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        for (tensor, shard) in &self.weight_map {
            self.check_name(tensor, shard)?;
            names.entry(shard).or_insert(tensor);
        }
        if names.is_empty() {
            return Err(CheckpointError::NoWeights { directory: directory.to_owned() });
        }
        names
            .into_iter()
            .map(|(shard, tensor)| {
                let path = directory.join(shard);
                if !path.exists() {
                    return Err(CheckpointError::MissingShard {
                        file: self.file.clone(),
                        tensor: tensor.to_owned(),
                        shard: shard.to_owned(),
                    });
                }
                Ok(path)
            })
            .collect()
    }

    fn check_name(&self, tensor: &str, shard: &str) -> Result<(), CheckpointError> {
        let plain = shard.ends_with(".safetensors")
            && !shard.starts_with('.')
            && shard.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !plain {
            return Err(CheckpointError::ShardName {
                file: self.file.clone(),
                tensor: tensor.to_owned(),
                shard: shard.to_owned(),
            });
        }
        Ok(())
    }

    /// Index and files agree on where every tensor is.
    pub(super) fn check(
        &self,
        shards: &[Shard],
        places: &HashMap<String, (usize, usize)>,
    ) -> Result<(), CheckpointError> {
        for (tensor, shard) in &self.weight_map {
            let found = places.get(tensor).and_then(|&(index, _)| shards[index].file.file_name());
            if found.is_none_or(|name| name != shard.as_str()) {
                return Err(CheckpointError::WrongShard {
                    file: self.file.clone(),
                    tensor: tensor.clone(),
                    shard: shard.clone(),
                });
            }
        }
        for (tensor, &(index, _)) in places {
            if !self.weight_map.contains_key(tensor) {
                return Err(CheckpointError::NotIndexed { file: shards[index].file.clone(), tensor: tensor.clone() });
            }
        }
        Ok(())
    }
}
