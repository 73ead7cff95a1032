//! Writing a checkpoint so that it differs from its source in nothing but the replaced values.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use candle_core::Tensor;

use super::{Checkpoint, CheckpointError, EMBEDDING, INDEX, OUTPUT, SINGLE, Shard, value};
use crate::{
    manifest::CONFIGURATION_FILES,
    partial::{self, PartialFolder},
};

/// Licences have many spellings: LICENSE, LICENSE.txt, license.md, NOTICE.
const LEGAL_PREFIXES: [&str; 4] = ["license", "licence", "notice", "use_policy"];

/// Whether a file states the terms of the model; such files travel with it.
pub(crate) fn is_legal(name: &str) -> bool {
    let name = name.to_lowercase();
    LEGAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn save(
    checkpoint: &Checkpoint,
    directory: &Path,
    replaced: &BTreeMap<String, Tensor>,
) -> Result<(), CheckpointError> {
    check_replacements(checkpoint, replaced)?;
    let folder = PartialFolder::beside(directory)?;
    for shard in &checkpoint.shards {
        write_shard(checkpoint, shard, folder.path(), replaced)?;
    }
    for companion in companions(checkpoint)? {
        copy(&companion, folder.path())?;
    }
    folder.finish()?;
    Ok(())
}

fn check_replacements(checkpoint: &Checkpoint, replaced: &BTreeMap<String, Tensor>) -> Result<(), CheckpointError> {
    for (name, tensor) in replaced {
        if name == OUTPUT && checkpoint.config().tie_word_embeddings {
            return Err(CheckpointError::ReplacedTie);
        }
        let (_, entry) = checkpoint.find(name)?;
        if tensor.dims() != entry.shape {
            return Err(CheckpointError::ReplacedShape {
                tensor: name.clone(),
                expected: entry.shape.clone(),
                found: tensor.dims().to_vec(),
            });
        }
    }
    Ok(())
}

/// The header is copied: names, order, types, shapes, offsets and metadata are all unchanged.
fn write_shard(
    checkpoint: &Checkpoint,
    shard: &Shard,
    directory: &Path,
    replaced: &BTreeMap<String, Tensor>,
) -> Result<(), CheckpointError> {
    let path = inside(directory, &shard.file);
    let failed = write_failed(&path);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(&failed)?);
    out.write_all(&shard.header_bytes()?).map_err(&failed)?;
    for entry in &shard.header.entries {
        // A redundant copy of tied embeddings follows them.
        let tied = entry.name == OUTPUT && checkpoint.config().tie_word_embeddings;
        match replaced.get(if tied { EMBEDDING } else { &entry.name }) {
            Some(replacement) => {
                value::encode(shard, entry, replacement, |bytes| out.write_all(bytes).map_err(&failed))?;
            }
            None => out.write_all(&shard.bytes(entry)?).map_err(&failed)?,
        }
    }
    partial::sync(out).map_err(&failed)
}

/// Files of the source folder that belong to the model and are no weights.
fn companions(checkpoint: &Checkpoint) -> Result<Vec<PathBuf>, CheckpointError> {
    let directory = checkpoint.directory();
    // Beside a single file an index is a leftover that nobody reads.
    let is_split = !checkpoint.shards.iter().any(|shard| shard.file.ends_with(SINGLE));
    let failed = |source| CheckpointError::Read { file: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // An index may give a weight file any name, a licence's too; that file has been written.
        let is_terms = is_legal(name) && !name.ends_with(".safetensors");
        let wanted = CONFIGURATION_FILES.contains(&name) || (is_split && name == INDEX) || is_terms;
        // `is_file` follows links: the Hub's cache consists of them.
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn copy(file: &Path, directory: &Path) -> Result<(), CheckpointError> {
    let path = inside(directory, file);
    let bytes = fs::read(file).map_err(|source| CheckpointError::Read { file: file.to_owned(), source })?;
    // Read and written rather than copied: a read-only source must not give a read-only result.
    partial::write(&path, &bytes).map_err(write_failed(&path))
}

fn inside(directory: &Path, file: &Path) -> PathBuf {
    // Every path here came from joining a folder and a file name.
    directory.join(file.file_name().unwrap_or_default())
}

fn write_failed(file: &Path) -> impl Fn(io::Error) -> CheckpointError + use<'_> {
    move |source| CheckpointError::Write { file: file.to_owned(), source }
}
