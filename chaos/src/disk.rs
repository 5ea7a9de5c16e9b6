//! A replica's own disk, small enough to be filled.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Large enough for the dead letters of a run, but quickly filled.
const SIZE: &str = "size=1m";

/// A file system in memory, mounted at a directory. Dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// Mounts a disk at `directory`, and creates the directory.
    ///
    /// # Errors
    /// Mounting needs root.
    pub(crate) fn mount(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).context("the directory cannot be created")?;
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(directory).output();
        let output = output.context("there is no `mount`")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a disk cannot be mounted: {}", words.trim());
        Ok(Self { directory: directory.to_owned() })
    }

    /// Fills the disk completely.
    ///
    /// # Errors
    /// Writing fails for another reason than a full disk.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler()).context("the disk cannot be filled")?;
        // The last bytes are written one by one, so that no dead letter fits.
        for block in [vec![0; 4096], vec![0; 1]] {
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("the disk cannot be filled"),
                }
            }
        }
        Ok(())
    }

    /// Frees the disk again.
    ///
    /// # Errors
    /// The file that fills it cannot be removed.
    pub(crate) fn clear(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("what fills the disk cannot be removed")
    }

    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a process that is being killed may still have a file open there. A disk that stays mounted is visible with
        // `mount`.
        let _ = Command::new("umount").arg("--lazy").arg(&self.directory).status();
    }
}
