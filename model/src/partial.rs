//! Folders that are there completely or not at all: written and synced beside the final place, then renamed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Why a folder could not be made.
#[derive(Debug)]
pub(crate) enum PartialError {
    /// Something is there already.
    Occupied(PathBuf),
    /// A path could not be written.
    Write { path: PathBuf, source: io::Error },
}

/// For callers that have one reason to give up, whatever it was.
impl From<PartialError> for io::Error {
    fn from(error: PartialError) -> Self {
        match error {
            PartialError::Occupied(_) => Self::from(io::ErrorKind::AlreadyExists),
            PartialError::Write { source, .. } => source,
        }
    }
}

/// A folder beside the final one, so that the rename stays within one file system; removed unless it is finished.
pub(crate) struct PartialFolder {
    folder: tempfile::TempDir,
    directory: PathBuf,
}

impl PartialFolder {
    /// Refuses a directory that exists, unless it is empty.
    pub(crate) fn beside(directory: &Path) -> Result<Self, PartialError> {
        let directory = std::path::absolute(directory).map_err(write_failed(directory))?;
        // A link is something, also if it leads to nothing: the rename at the end would fail on it.
        let occupied = match directory.symlink_metadata() {
            Ok(found) => !found.is_dir() || !fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_none()),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        let (false, Some(parent), Some(name)) = (occupied, directory.parent(), directory.file_name()) else {
            return Err(PartialError::Occupied(directory));
        };
        fs::create_dir_all(parent).map_err(write_failed(parent))?;
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // Temporary folders are private by default; this one is going to be the result.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let folder = builder.tempdir_in(parent).map_err(write_failed(parent))?;
        Ok(Self { folder, directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name. Its files have to be on disk: see [`write`] and [`sync`].
    pub(crate) fn finish(mut self) -> Result<(), PartialError> {
        let failed = write_failed(&self.directory);
        sync_folder(self.path()).map_err(&failed)?;
        if self.directory.exists() {
            // Empty, as checked before; some systems do not rename over an empty folder.
            fs::remove_dir(&self.directory).map_err(&failed)?;
        }
        fs::rename(self.path(), &self.directory).map_err(&failed)?;
        // The folder has another name now: nothing is left to remove.
        self.folder.disable_cleanup(true);
        // The name must survive a power cut too. There is a parent: `beside` has made it.
        self.directory.parent().map_or(Ok(()), sync_folder).map_err(&failed)
    }
}

/// Writes a file that is on disk before its folder gets its name, so that a crash cannot leave an empty one under it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Ends a file that was written piece by piece, as [`write`] ends its own.
pub(crate) fn sync(writer: BufWriter<File>) -> io::Result<()> {
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn write_failed(path: &Path) -> impl Fn(io::Error) -> PartialError + use<> {
    let path = path.to_owned();
    move |source| PartialError::Write { path: path.clone(), source }
}
