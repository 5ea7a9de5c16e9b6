//! Small files that have either the old or the new content after a crash, never a part of it.
//!
//! All functions block: call them through [`tokio::task::spawn_blocking`].

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The suffix of files that are still being written.
const TEMPORARY: &str = ".tmp";

/// Permissions of created files: dead letters contain whole events, and only the daemon needs to read them.
const OWN_FILE: u32 = 0o600;
const OWN_DIRECTORY: u32 = 0o700;

/// Removes the permissions of all other users from one of our directories.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(OWN_DIRECTORY))
}

/// Content that is durable in a temporary file and not yet renamed to its target.
#[derive(Debug)]
pub(super) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// Writes `bytes` next to `target` and makes them durable. The target is not changed.
    ///
    /// The directory must exist. Each call uses a different name, so that a retry may run beside the attempt that it
    /// repeats.
    pub(super) fn write(target: &Path, bytes: &[u8]) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut temporary = OsString::from(name);
        // Random, because process ids repeat between containers that share a volume.
        temporary.push(format!(".{:016x}{TEMPORARY}", rand::random::<u64>()));
        let staged = Self { temporary: target.with_file_name(temporary), target: target.to_owned() };
        let created = File::options().write(true).create_new(true).mode(OWN_FILE).open(&staged.temporary);
        let written = created.and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        match written {
            Ok(()) => Ok(staged),
            Err(error) => {
                // This frees the space on a full disk. The first error is reported, because it shows what is wrong.
                let _ = fs::remove_file(&staged.temporary);
                Err(error)
            }
        }
    }

    /// Replaces the target, durably.
    pub(super) fn commit(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        sync_directory(self.target.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }
}

/// Replaces or creates `target` with `bytes`. When this returns, the content is durable.
pub(super) fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    Staged::write(target, bytes)?.commit()
}

/// Removes a file. When this returns, it is permanently gone, now or since earlier.
pub(super) fn remove(target: &Path) -> io::Result<()> {
    match fs::remove_file(target) {
        // It was removed before, but that removal may not be durable yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    match sync_directory(target.parent().ok_or(io::ErrorKind::InvalidInput)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // its directory is gone too
        other => other,
    }
}

/// Creates a directory with its parents, durably.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directory(parent)?;
    }
    match fs::DirBuilder::new().mode(OWN_DIRECTORY).create(directory) {
        // Another process created it first; if a file is in the way, that is an error.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        other => other?,
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Makes renames and new entries in a directory durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes incomplete files that a crash left in `directory`. Only for a caller that knows that nobody writes there.
pub(super) fn remove_temporaries(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// An external name as a file name: in lower case, because Event Hubs ignores case, and percent-encoded, so that two
/// names never share a file and no name leads out of its directory.
pub(super) fn file_name(name: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(name.len());
    let only_dots = name.bytes().all(|byte| byte == b'.');
    for character in name.chars().flat_map(char::to_lowercase) {
        let plain =
            matches!(character, 'a'..='z' | '0'..='9' | '-' | '_' | '$') || (character == '.' && !only_dots);
        if plain {
            encoded.push(character);
        } else {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// The lower-case name from which [`file_name`] made this file name; `None` if it did not make it.
pub(super) fn name_of(file: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok().filter(|name| file_name(name) == file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_directory_and_case_does_not_count() {
        assert_eq!(file_name("Contoso.servicebus.windows.net"), "contoso.servicebus.windows.net");
        assert_eq!(file_name("$Default"), "$default");
        assert_eq!(file_name(".."), "%2E%2E");
        assert_eq!(file_name("../a\\b%"), "..%2Fa%5Cb%25");
        assert_eq!(file_name("Ä"), file_name("ä"));
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x.json");
        replace(&target, b"old").unwrap();
        let staged = Staged::write(&target, b"new").unwrap();
        std::mem::forget(staged);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        remove_temporaries(directory.path()).unwrap();
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["x.json"]);
    }

    #[test]
    fn what_is_created_is_for_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let (inner, mode) = (directory.path().join("a/b"), |path: &Path| {
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        });
        create_directory(&inner).unwrap();
        let target = inner.join("x.json");
        replace(&target, b"x").unwrap();
        assert_eq!((mode(&directory.path().join("a")), mode(&inner), mode(&target)), (0o700, 0o700, 0o600));
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700, "the mode of an existing directory must be corrected");
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x"), "").unwrap();
        create_directory(&directory.path().join("x/y")).expect_err("x is a file");
        create_directory(&directory.path().join("a/b/c")).unwrap();
        create_directory(&directory.path().join("a/b/c")).unwrap();
    }

    #[test]
    fn a_file_is_removed_once_and_removing_it_again_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x.json");
        replace(&target, b"x").unwrap();
        remove(&target).unwrap();
        remove(&target).unwrap();
        assert!(!target.exists());
        remove(&directory.path().join("nowhere/x.json")).unwrap();
    }

    #[test]
    fn a_name_that_was_not_made_here_is_none() {
        for file in ["Twins", "%", "%zz", "%41", "%ff", "a b", "..", "%+1"] {
            assert_eq!(name_of(file), None, "{file}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_comes_back_from_its_file(name in ".{0,12}") {
            let file = file_name(&name);
            let back = name_of(&file);
            proptest::prop_assert_eq!(back.as_deref().map(file_name), Some(file));
        }

        #[test]
        fn different_names_never_share_a_file(a in "[A-Za-z%/.2F]{1,6}", b in "[A-Za-z%/.2F]{1,6}") {
            proptest::prop_assert_eq!(a.to_lowercase() == b.to_lowercase(), file_name(&a) == file_name(&b));
        }
    }
}
