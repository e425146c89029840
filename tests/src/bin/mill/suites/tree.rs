//! Files: what is made here is written only where it differs from what is there, so that cargo builds nothing twice.

use crate::failure::{Failure, Outcome};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("alloc-suites: cannot {what} {}: {error}", path.display()))
}

pub(super) fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| cannot("read", path, &error))
}

/// Writes a file unless it is as it should be.
pub(super) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Outcome {
    let contents = contents.as_ref();
    if fs::read(path).is_ok_and(|found| found == contents) {
        return Ok(());
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, contents));
    written.map_err(|error| cannot("write", path, &error))
}

/// What lies in a directory, by name.
pub(super) fn entries(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut entries = read().map_err(|error| cannot("read", dir, &error))?;
    entries.sort();
    Ok(entries)
}

/// The first entry of a directory with such a name.
pub(super) fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> Outcome<PathBuf> {
    let is_wanted = |path: &PathBuf| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy()));
    let missing = || Failure::new(format!("alloc-suites: {} lacks what the suite needs", dir.display()));
    entries(dir)?.into_iter().find(is_wanted).ok_or_else(missing)
}

/// What becomes of a file when it is copied, by its path with slashes: other contents, or nothing.
pub(super) type Change<'c> = dyn FnMut(&str, Vec<u8>) -> Option<Vec<u8>> + 'c;

/// Copies all files below a directory.
pub(super) fn copy(from: &Path, to: &Path, change: &mut Change<'_>) -> Outcome {
    copy_below(from, to, "", change)
}

fn copy_below(from: &Path, to: &Path, prefix: &str, change: &mut Change<'_>) -> Outcome {
    for entry in entries(from)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.is_dir() {
            copy_below(&entry, &to.join(&name), &format!("{path}/"), change)?;
        } else if let Some(contents) = change(&path, read(&entry)?) {
            write(&to.join(&name), contents)?;
        }
    }
    Ok(())
}
