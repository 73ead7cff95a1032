//! Files that are there completely or not at all.
//!
//! The content goes to a temporary file in the same folder, is synced, and takes its name by a rename. A crash leaves
//! the old file or the new one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Who may read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only its owner, whatever the umask says.
    Owner,
    /// As the umask says.
    Public,
}

/// Writes `path`, in place of what was there. A symbolic link is followed: the file that it names is replaced. What is no
/// file is refused: a rename would put a file in the place of `/dev/null`.
pub(crate) fn replace(
    path: &Path,
    access: Access,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let target = if path.is_symlink() { fs::canonicalize(path)? } else { path.to_owned() };
    if target.exists() && !target.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let folder = folder_of(&target);
    let file = temporary(&folder, access)?;
    write_all(&file, write)?;
    file.persist(&target).map_err(|error| error.error)?;
    sync_folder(&folder)
}

/// Writes `path` where nothing was; [`io::ErrorKind::AlreadyExists`] otherwise, even if the file appears meanwhile.
pub(crate) fn create(
    path: &Path,
    access: Access,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    Reserved::new(path, access)?.fill(write)
}

/// A name that nothing has, and the temporary file beside it that will take it.
#[derive(Debug)]
pub(crate) struct Reserved {
    file: NamedTempFile,
    path: PathBuf,
}

impl Reserved {
    /// [`io::ErrorKind::AlreadyExists`] when there is such a file.
    pub(crate) fn new(path: &Path, access: Access) -> io::Result<Self> {
        // Asked first so that nothing is written in vain; the rename at the end is what decides.
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Self { file: temporary(&folder_of(path), access)?, path: path.to_owned() })
    }

    /// Writes the file, completely or not at all.
    pub(crate) fn fill(self, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
        write_all(&self.file, write)?;
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        sync_folder(&folder_of(&self.path))
    }
}

fn temporary(folder: &Path, access: Access) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".hallmark-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // The umask applies on top, as for any file that a program creates.
        let mode = match access {
            Access::Owner => 0o600,
            Access::Public => 0o666,
        };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _: Access = access;
    builder.tempfile_in(folder)
}

/// Writes the content and waits until it is on the disk.
fn write_all(file: &NamedTempFile, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::new(file.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes names in a folder durable: a new file or a rename must survive a power cut.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_write_that_fails_halfway_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let error = replace(&path, Access::Owner, |writer| {
            writer.write_all(&[b'x'; 100_000])?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(error.unwrap_err().to_string(), "disk full");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_file_that_appears_while_another_is_created_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let error = create(&path, Access::Owner, |writer| {
            fs::write(&path, "theirs")?;
            writer.write_all(b"ours")
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_and_an_unused_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent").join("file");
        assert_eq!(Reserved::new(&absent, Access::Public).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(Reserved::new(&folder.path().join("file"), Access::Public).unwrap());
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for path in [path.as_path(), folder.path()] {
            let error = replace(path, Access::Owner, |writer| writer.write_all(b"ours")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(names(folder.path()), ["socket"]);
    }

    #[test]
    fn a_bare_file_name_lies_in_the_working_folder() {
        assert_eq!(folder_of(Path::new("file")), Path::new("."));
        assert_eq!(folder_of(Path::new("a/file")), Path::new("a"));
        assert_eq!(folder_of(Path::new("/file")), Path::new("/"));
    }
}
