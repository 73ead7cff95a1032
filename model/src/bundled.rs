//! The bundled model: a small Llama that this project trained on Shakespeare, carried inside the program so that the
//! demo and the tests have a real model on a machine without a network. Its card is `model/bundled/README.md`;
//! `model/examples/pretrain.rs` makes it.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use sha3::{Digest, Keccak256};
use thiserror::Error;

use crate::partial::{self, PartialFolder};

/// Files of the model folder.
const FILES: [(&str, &[u8]); 6] = [
    ("README.md", include_bytes!("../bundled/README.md")),
    ("config.json", include_bytes!("../bundled/config.json")),
    ("generation_config.json", include_bytes!("../bundled/generation_config.json")),
    ("model.safetensors", include_bytes!("../bundled/model.safetensors")),
    ("tokenizer.json", include_bytes!("../bundled/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../bundled/tokenizer_config.json")),
];

/// Why the bundled model could not be laid out.
#[derive(Debug, Error)]
pub enum BundledError {
    #[error("failed to write the bundled model to {}; set TMPDIR to a folder that can be written", folder.display())]
    Write {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The folder of the bundled model, written on first use among the temporary files.
///
/// Its name holds a digest of the contents and the user: another version of the program never finds the wrong model,
/// and users of one machine do not meet. It appears by renaming, so it is whole or absent whatever happens meanwhile.
/// Where its name is taken and cannot be freed, the model goes to a new folder that only this user can read.
pub fn directory() -> Result<PathBuf, BundledError> {
    directory_in(&std::env::temp_dir())
}

fn directory_in(parent: &Path) -> Result<PathBuf, BundledError> {
    let failed = |source| BundledError::Write { folder: parent.to_owned(), source };
    // Whose files this process makes: a new file tells it, on every system.
    let user =
        tempfile::tempfile_in(parent).and_then(|file| file.metadata()).map(|file| owner(&file)).map_err(failed)?;
    let folder = parent.join(name(user));
    if is_usable(&folder, user) {
        return Ok(folder);
    }
    // Whether it worked shows in the folder. Another process may have been quicker, which is as good.
    replace(parent, &folder, user).ok();
    if is_usable(&folder, user) {
        return Ok(folder);
    }
    let private = tempfile::Builder::new().prefix("hallmark-bundled-").tempdir_in(parent).map_err(failed)?;
    write(private.path()).map_err(failed)?;
    Ok(private.keep())
}

fn name(user: u32) -> String {
    let digests: Vec<u8> = FILES.iter().flat_map(|(_, bytes)| <[u8; 32]>::from(Keccak256::digest(bytes))).collect();
    let digest = <[u8; 32]>::from(Keccak256::digest(digests));
    let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("hallmark-bundled-{digest}-{user}")
}

/// Whether every file is there with its contents, and nobody else can change the folder or a file: others can write to
/// the temporary files too, and could alter a folder of theirs after it was looked at.
fn is_usable(folder: &Path, user: u32) -> bool {
    let is_ours = |found: &Metadata| owner(found) == user && !others_can_write(found);
    folder.symlink_metadata().is_ok_and(|found| found.is_dir() && is_ours(&found))
        && FILES.iter().all(|(name, bytes)| {
            let path = folder.join(name);
            path.symlink_metadata().is_ok_and(|found| found.is_file() && is_ours(&found))
                && fs::read(path).is_ok_and(|found| found == *bytes)
        })
}

#[cfg(unix)]
const GROUP_AND_OTHERS_WRITE: u32 = 0o022;

#[cfg(unix)]
fn owner(metadata: &Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}

#[cfg(unix)]
fn others_can_write(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & GROUP_AND_OTHERS_WRITE != 0
}

/// Nobody else may write, whatever the umask says.
#[cfg(unix)]
fn keep_to_ourselves(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let mut permissions = path.metadata()?.permissions();
    permissions.set_mode(permissions.mode() & !GROUP_AND_OTHERS_WRITE);
    fs::set_permissions(path, permissions)
}

/// Elsewhere each user has temporary files of his own.
#[cfg(not(unix))]
fn owner(_metadata: &Metadata) -> u32 {
    0
}

#[cfg(not(unix))]
fn others_can_write(_metadata: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn keep_to_ourselves(_path: &Path) -> io::Result<()> {
    Ok(())
}

fn replace(parent: &Path, folder: &Path, user: u32) -> io::Result<()> {
    // A file is nothing that this program put there; it stays.
    if folder.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        // Moved before it is judged: another process may have put a sound one there since it was looked at.
        let aside = tempfile::Builder::new().prefix("hallmark-bundled-").tempdir_in(parent)?;
        let moved = aside.path().join("moved");
        fs::rename(folder, &moved)?;
        if is_usable(&moved, user) {
            return fs::rename(&moved, folder);
        }
    }
    let partial = PartialFolder::beside(folder)?;
    write(partial.path())?;
    Ok(partial.finish()?)
}

fn write(folder: &Path) -> io::Result<()> {
    keep_to_ourselves(folder)?;
    FILES.iter().try_for_each(|(name, bytes)| {
        let path = folder.join(name);
        partial::write(&path, bytes)?;
        keep_to_ourselves(&path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(parent: &Path) -> u32 {
        owner(&parent.metadata().unwrap())
    }

    #[test]
    fn a_folder_is_written_once_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = directory_in(parent.path()).unwrap();
        let written = fs::metadata(folder.join("config.json")).unwrap().modified().unwrap();
        assert_eq!(directory_in(parent.path()).unwrap(), folder);
        assert_eq!(fs::metadata(folder.join("config.json")).unwrap().modified().unwrap(), written);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_copy_is_written_anew() {
        let parent = tempfile::tempdir().unwrap();
        let folder = directory_in(parent.path()).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        assert_eq!(directory_in(parent.path()).unwrap(), folder);
        assert!(is_usable(&folder, user(parent.path())));
    }

    #[cfg(unix)]
    #[test]
    fn a_sound_folder_that_another_process_put_there_stays() {
        use std::os::unix::fs::MetadataExt as _;

        let parent = tempfile::tempdir().unwrap();
        let folder = directory_in(parent.path()).unwrap();
        let file = |folder: &Path| fs::metadata(folder.join("config.json")).unwrap().ino();
        let before = file(&folder);
        replace(parent.path(), &folder, user(parent.path())).unwrap();
        assert_eq!(file(&folder), before);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;

        let parent = tempfile::tempdir().unwrap();
        let folder = directory_in(parent.path()).unwrap();
        for (path, mode) in [(folder.clone(), 0o775), (folder.join("tokenizer.json"), 0o646)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(!is_usable(&folder, user(parent.path())), "{}", path.display());
            assert_eq!(directory_in(parent.path()).unwrap(), folder);
            assert!(is_usable(&folder, user(parent.path())));
        }
    }

    #[test]
    fn a_folder_of_another_user_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let folder = directory_in(parent.path()).unwrap();
        let user = user(parent.path());
        assert!(is_usable(&folder, user));
        #[cfg(unix)]
        assert!(!is_usable(&folder, user + 1));
        assert_ne!(name(user), name(user + 1));
    }

    #[test]
    fn a_name_that_cannot_be_freed_leads_to_a_folder_of_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let user = user(parent.path());
        // A file is left alone, so it stands for a folder that somebody else owns.
        let taken = parent.path().join(name(user));
        fs::write(&taken, "taken").unwrap();
        let folder = directory_in(parent.path()).unwrap();
        assert!(folder != taken && is_usable(&folder, user));
        assert_eq!(fs::read_to_string(&taken).unwrap(), "taken");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let (parent, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = directory_in(elsewhere.path()).unwrap();
        let link = parent.path().join(name(user(parent.path())));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let folder = directory_in(parent.path()).unwrap();
        assert!(folder.symlink_metadata().unwrap().is_dir());
        assert!(is_usable(&target, user(parent.path())), "what the link names is left alone");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_the_folder_as_far_as_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt as _;

        let parent = tempfile::tempdir().unwrap();
        let plain = parent.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&directory_in(parent.path()).unwrap()), mode(&plain) & !GROUP_AND_OTHERS_WRITE);
    }
}
