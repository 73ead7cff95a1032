//! Checkpoints of a run: a folder beside the output, replaced as a whole, so that it is always one finished checkpoint.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use model::train::Trainer;
use serde::{Deserialize, Serialize};

use super::{
    EmbedError, EmbedOptions,
    material::{Material, OrdinaryTexts},
    run::State,
};
use crate::set::FingerprintSet;

const RUN: &str = "run.json";
const ORDINARY: &str = "ordinary.json";
const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";

/// What a run is of. Two runs with equal descriptions go through the same states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Description {
    commitment: String,
    beacon: String,
    base: String,
    options: serde_json::Value,
}

/// The checkpoints of one run.
#[derive(Debug)]
pub(super) struct Checkpoints {
    folder: PathBuf,
    description: Description,
    /// Whether anything is written.
    enabled: bool,
    pub(super) resumed: bool,
}

impl Checkpoints {
    /// Starts a run's checkpoints, or finds those of the run to be resumed.
    pub(super) fn open(output: &Path, set: &FingerprintSet, options: &EmbedOptions) -> Result<Self, EmbedError> {
        let folder = folder_of(output);
        let text = |value: Option<String>| value.unwrap_or_default();
        let description = Description {
            commitment: text(set.root().map(|root| root.to_string())),
            beacon: text(set.beacon().map(|beacon| beacon.value.to_string())),
            base: set.base().manifest.to_string(),
            options: written_and_read(options).map_err(io::Error::other).map_err(at(&folder))?,
        };
        let checkpoints = Self { folder, description, enabled: options.checkpoint_every > 0, resumed: options.resume };
        let folder = checkpoints.folder.clone();
        match (options.resume, folder.exists()) {
            (true, false) => return Err(EmbedError::NothingToResume { folder }),
            (false, true) => return Err(EmbedError::Unfinished { folder }),
            (true, true) => checkpoints.compare(&checkpoints.read(RUN)?)?,
            (false, false) => {}
        }
        Ok(checkpoints)
    }

    fn compare(&self, found: &Description) -> Result<(), EmbedError> {
        let Description { commitment, beacon, base, options } = &self.description;
        let differences = [
            ("set", *commitment != found.commitment || *beacon != found.beacon),
            ("base model", *base != found.base),
            ("recipe (options)", *options != found.options),
        ];
        match differences.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(EmbedError::OtherRun { folder: self.folder.clone(), what }),
            None => Ok(()),
        }
    }

    /// Where they are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ordinary texts of the run to be resumed, if it had got so far.
    pub(super) fn ordinary(&self) -> Result<Option<OrdinaryTexts>, EmbedError> {
        if self.resumed && self.folder.join(ORDINARY).exists() { self.read(ORDINARY).map(Some) } else { Ok(None) }
    }

    pub(super) fn keep_ordinary(&self, texts: &OrdinaryTexts) -> Result<(), EmbedError> {
        if !self.enabled {
            return Ok(());
        }
        create_for_owner(&self.folder).map_err(at(&self.folder))?;
        self.put(RUN, &self.description)?;
        self.put(ORDINARY, texts)
    }

    /// Puts the trainer where the run stopped and returns what else it carried; a fresh state for a fresh run.
    pub(super) fn restore(&self, trainer: &mut Trainer<'_>, material: &Material) -> Result<State, EmbedError> {
        // Stopped between the two renames of `write`, a run has the old checkpoint only.
        let found = ["latest", "old"].into_iter().find(|name| self.folder.join(name).exists());
        if let Some(name) = found.filter(|_| self.resumed) {
            trainer.restore(&self.folder.join(name).join(WEIGHTS))?;
            return self.read(&format!("{name}/{STATE}"));
        }
        let keys = material.responses.len();
        Ok(State { history: Vec::new(), hits: vec![vec![false; keys]; material.surfaces.len()] })
    }

    /// Replaces the last checkpoint. The old one stays until the new one is whole.
    pub(super) fn write(&self, trainer: &Trainer<'_>, state: &State) -> Result<(), EmbedError> {
        let (fresh, latest, old) = (self.folder.join("fresh"), self.folder.join("latest"), self.folder.join("old"));
        let clear = |folder: &Path| if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) };
        clear(&fresh).and_then(|()| fs::create_dir_all(&fresh)).map_err(at(&fresh))?;
        trainer.save(&fresh.join(WEIGHTS))?;
        fs::File::open(fresh.join(WEIGHTS)).and_then(|file| file.sync_all()).map_err(at(&fresh))?;
        self.put(&format!("fresh/{STATE}"), state)?;
        if latest.exists() {
            clear(&old).and_then(|()| fs::rename(&latest, &old)).map_err(at(&latest))?;
        }
        fs::rename(&fresh, &latest).map_err(at(&latest))?;
        clear(&old).map_err(at(&old))
    }

    /// Where a resumed run writes its model when the output is there already.
    pub(super) fn again(&self) -> PathBuf {
        self.folder.join("stamped")
    }

    fn put(&self, name: &str, value: &impl Serialize) -> Result<(), EmbedError> {
        let file = self.folder.join(name);
        let bytes = serde_json::to_vec(value).map_err(io::Error::other).map_err(at(&file))?;
        crate::atomic::replace(&file, crate::atomic::Access::Owner, |writer| writer.write_all(&bytes))
            .map_err(at(&file))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, EmbedError> {
        let file = self.folder.join(name);
        let bytes = fs::read(&file).map_err(at(&file))?;
        serde_json::from_slice(&bytes).map_err(io::Error::other).map_err(at(&file))
    }
}

/// Where the checkpoints of a run with this output are.
pub(super) fn folder_of(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    output.with_file_name(name)
}

/// A folder that nobody but its owner can look into: what is in it is as secret as the set.
fn create_for_owner(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Options as they come back from a checkpoint: a number may change in its last place on the way.
fn written_and_read(options: &EmbedOptions) -> serde_json::Result<serde_json::Value> {
    serde_json::from_str(&serde_json::to_string(options)?)
}

fn at(file: &Path) -> impl FnOnce(io::Error) -> EmbedError + use<> {
    let file = file.to_owned();
    move |source| EmbedError::Checkpointing { file, source }
}
