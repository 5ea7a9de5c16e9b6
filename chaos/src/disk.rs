//! A disk of a replica's own, small enough to fill.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Room for the dead letters of a run, and soon full.
const SIZE: &str = "size=1m";

/// A file system in memory, mounted over a directory. It is unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// Mounts one over `directory`, which is created.
    ///
    /// # Errors
    /// That takes root.
    pub(crate) fn mount(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).context("the directory cannot be created")?;
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(directory).output();
        let output = output.context("there is no `mount`")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a disk cannot be mounted: {}", words.trim());
        Ok(Self { directory: directory.to_owned() })
    }

    /// Leaves no byte free.
    ///
    /// # Errors
    /// It cannot be written for another reason than that it is full.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler()).context("the disk cannot be filled")?;
        // The last bytes one by one: a dead letter needs more than one.
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

    /// Makes room again.
    ///
    /// # Errors
    /// What filled it cannot be removed.
    pub(crate) fn clear(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("what fills the disk cannot be removed")
    }

    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold a file there. What stays mounted is seen by whoever looks.
        let _ = Command::new("umount").arg("--lazy").arg(&self.directory).status();
    }
}
