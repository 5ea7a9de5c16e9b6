//! The kind of storage behind a directory, according to `/proc/self/mountinfo`.
//!
//! A container's root is an overlay over its image: files written there are lost with the container. A volume of any
//! kind is a separate mount below the root.

use std::path::{Path, PathBuf};

/// Storage that is lost when the container or machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ephemeral {
    /// The writable layer of a container.
    ContainerRoot,
    /// Memory.
    Memory,
}

impl Ephemeral {
    /// A description for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::ContainerRoot => "the container's own disk, which is lost with the container",
            Self::Memory => "memory, which is lost with the container or machine",
        }
    }
}

/// Whether `directory`, an absolute path without links, is on storage that does not last. `None` if it lasts or if
/// nothing is known about it.
///
/// `mountinfo` is the text of that file (proc_pid_mountinfo(5)); lines that cannot be parsed are skipped.
pub fn ephemeral(mountinfo: &str, directory: &Path) -> Option<Ephemeral> {
    // If there are several mounts at the same place, the later one covers the earlier one.
    let around =
        mountinfo.lines().filter_map(Mount::parse).filter(|mount| directory.starts_with(&mount.place));
    let mount = around.max_by_key(|mount| mount.place.components().count())?;
    match mount.kind {
        "overlay" | "aufs" | "fuse.fuse-overlayfs" if mount.place == Path::new("/") => {
            Some(Ephemeral::ContainerRoot)
        }
        "tmpfs" | "ramfs" => Some(Ephemeral::Memory),
        _ => None,
    }
}

struct Mount<'a> {
    place: PathBuf,
    kind: &'a str,
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: the fifth field is the mount point; the first
    /// field after the separator is the file-system type.
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let place = unescape(mount.split(' ').nth(4)?)?;
        let kind = filesystem.split(' ').next().filter(|kind| !kind.is_empty())?;
        Some(Self { place: PathBuf::from(place), kind })
    }
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..3)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 8).ok()?);
        rest = &tail[3..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_described() {
        assert!(Ephemeral::ContainerRoot.describe().contains("lost with the container"));
        assert!(Ephemeral::Memory.describe().starts_with("memory"));
    }

    /// `mountinfo` in a Docker container, with a volume and a memory-backed mount.
    const CONTAINER: &str = "\
1573 1408 0:325 / / rw,relatime master:441 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
1574 1573 0:328 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1575 1573 0:329 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
1577 1573 8:1 /var/lib/docker/volumes/x/_data /var/lib/twinsync rw,relatime master:1 - ext4 /dev/sda1 rw
1578 1573 0:330 / /scratch rw - tmpfs tmpfs rw
1579 1577 8:1 /y /var/lib/twinsync/with\\040blank rw shared:2 master:3 - nfs4 server:/y rw
";

    /// `mountinfo` on a virtual machine.
    const MACHINE: &str = "\
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
26 25 0:23 / /tmp rw shared:2 - tmpfs tmpfs rw
27 25 0:99 / /var/lib/containers/merged rw - overlay overlay rw,lowerdir=/a
";

    #[test]
    fn the_innermost_mount_tells() {
        for (mounts, directory, expected) in [
            (CONTAINER, "/var/lib/other", Some(Ephemeral::ContainerRoot)),
            (CONTAINER, "/", Some(Ephemeral::ContainerRoot)),
            (CONTAINER, "/var/lib/twinsync-2/checkpoints", Some(Ephemeral::ContainerRoot)),
            (CONTAINER, "/var/lib/twinsync/checkpoints", None),
            (CONTAINER, "/var/lib/twinsync", None),
            (CONTAINER, "/var/lib/twinsync/with blank/x", None),
            (CONTAINER, "/scratch/x", Some(Ephemeral::Memory)),
            (CONTAINER, "/dev/shm", Some(Ephemeral::Memory)),
            (MACHINE, "/var/lib/twinsync", None),
            (MACHINE, "/tmp/x", Some(Ephemeral::Memory)),
            (MACHINE, "/var/lib/containers/merged/x", None),
        ] {
            assert_eq!(ephemeral(mounts, Path::new(directory)), expected, "{directory}");
        }
    }

    #[test]
    fn a_later_mount_on_the_same_place_covers_the_earlier() {
        let covered = format!("{MACHINE}28 25 0:7 / / rw - overlay overlay rw\n");
        assert_eq!(ephemeral(&covered, Path::new("/x")), Some(Ephemeral::ContainerRoot));
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_without_panic() {
        for text in ["", "\n", "x - y", "1 2 3 4 /\\ - overlay", "1 2 3 4 /\\99 - overlay o", "1 2 3 4 / - "]
        {
            assert_eq!(ephemeral(text, Path::new("/x")), None, "{text:?}");
        }
        let among = format!("nonsense\n{CONTAINER}");
        assert_eq!(ephemeral(&among, Path::new("/x")), Some(Ephemeral::ContainerRoot));
    }
}
