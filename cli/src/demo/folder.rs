//! Where a demo writes, and how.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use crate::{clock, models};

/// The demo's folder. Everything in it may be thrown away.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder that was asked for, or a new one here, or among the temporary files when this folder is read-only.
    pub(crate) fn create(wanted: Option<&Path>, now: Duration) -> anyhow::Result<Self> {
        if let Some(wanted) = wanted {
            models::require_free(wanted)?;
            fs::create_dir_all(wanted).with_context(|| format!("failed to create the folder {}", wanted.display()))?;
            return Ok(Self { path: wanted.to_owned() });
        }
        let stamp: String = clock::date_and_time(now).chars().filter(char::is_ascii_digit).collect();
        let name = format!("hallmark-demo-{stamp}");
        match create_new(Path::new("."), &name) {
            Ok(path) => Ok(Self { path }),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                let parent = std::env::temp_dir();
                let path = create_new(&parent, &name)
                    .with_context(|| format!("failed to create a folder in {}", parent.display()))?;
                Ok(Self { path })
            }
            Err(error) => Err(error).with_context(|| format!("failed to create the folder {name}")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that appears complete or not at all.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(content)?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                // A temporary file is private; a report is for showing around.
                file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            }
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }
}

/// Two demos in one minute get two folders.
fn create_new(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let base = if parent == Path::new(".") { PathBuf::from(name) } else { parent.join(name) };
    let mut path = base.clone();
    for attempt in 2..=100_u32 {
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = base.with_file_name(format!("{name}-{attempt}"));
            }
            result => return result.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_and_a_file_appears_whole() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let wanted = parent.path().join("demo");
        let folder = Folder::create(Some(&wanted), Duration::ZERO).expect("a new folder");
        let path = folder.write("report.txt", b"text").expect("a file");
        assert_eq!(fs::read(path).expect("the file"), b"text");
        assert!(Folder::create(Some(&wanted), Duration::ZERO).is_err());
    }

    #[test]
    fn two_demos_in_one_minute_get_two_folders() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let first = create_new(parent.path(), "demo").expect("a folder");
        let second = create_new(parent.path(), "demo").expect("a folder");
        assert_ne!(first, second);
    }
}
