//! The limits that the operating system sets for this process.

use std::{
    fs::read_to_string,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

/// Version 1 of control groups has no value for "no limit": it reports the largest possible number of whole pages. No machine has that much
/// memory.
const NO_LIMIT: u64 = 1 << 62;

/// How many files may be open at the same time; `None` if there is no limit.
pub fn open_files_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many bytes of memory the control group of this process may use; `None` if there is no limit, or if it is unknown.
pub fn memory_limit() -> Option<u64> {
    smallest_limit("/sys/fs/cgroup".as_ref(), &read_to_string("/proc/self/cgroup").ok()?)
}

/// The smallest limit on memory of the control groups that `groups` names and of those that they lie in. `mounts`: where control
/// groups are mounted; those of version 1 have a directory there for each controller. `groups`: a line for each hierarchy, as in
/// `/proc/self/cgroup`.
fn smallest_limit(mounts: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        match line.split_once(':')? {
            ("", group) => on_the_way(mounts, group, "memory.max"),
            (controllers, group) if controllers.split(',').any(|controller| controller == "memory") => {
                on_the_way(&mounts.join("memory"), group, "memory.limit_in_bytes")
            }
            (_, _) => None,
        }
    });
    limits.min()
}

/// The smallest number in a file of this name, from the group up to `root`. In a container, the container's own group is the
/// outermost that can be seen.
fn on_the_way(root: &Path, group: &str, file: &str) -> Option<u64> {
    // What begins above the container's view is shown with dots: its own limit is at the root then.
    let is_inside = !group.split('/').any(|part| part == "..");
    let own: PathBuf = if is_inside { root.join(group.trim_start_matches('/')) } else { root.to_owned() };
    // Version 2 says "max" where there is no limit, which is no number.
    let limit = |group: &Path| read_to_string(group.join(file)).ok()?.trim().parse().ok();
    let limits = own.ancestors().take_while(|group| group.starts_with(root)).filter_map(limit);
    limits.filter(|bytes| *bytes < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_holds() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path().join("memory.max"), "1\n").expect("written");
        let root = directory.path().join("root");
        let inner = root.join("service/worker");
        create_dir_all(&inner).expect("created");
        let limit = |group: &str| smallest_limit(&root, &format!("0::{group}\n"));
        assert_eq!(limit("/service/worker"), None, "there is no file with a limit");
        write(inner.join("memory.max"), "max\n").expect("written");
        assert_eq!(limit("/service/worker"), None, "`max` is no limit");
        write(root.join("service/memory.max"), "4096\n").expect("written");
        assert_eq!(limit("/service/worker"), Some(4096));
        write(inner.join("memory.max"), "1024\n").expect("written");
        assert_eq!(limit("/service/worker"), Some(1024));
        assert_eq!(limit("/"), None);
        assert_eq!(limit("/.."), None, "the path leads outside the visible hierarchy");
    }

    #[test]
    fn version_1_is_understood_beside_version_2() {
        const UNLIMITED: &str = "9223372036854771712\n";
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let inner = root.join("memory/service/worker");
        create_dir_all(&inner).expect("created");
        let groups = "12:memory:/service/worker\n4:cpu,cpuacct:/\n1:name=systemd:/a:b\n0::/\n";
        let limit = || smallest_limit(root, groups);
        assert_eq!(limit(), None, "there is no file with a limit");
        write(inner.join("memory.limit_in_bytes"), UNLIMITED).expect("written");
        assert_eq!(limit(), None, "the largest value is no limit");
        write(root.join("memory/memory.limit_in_bytes"), "8192\n").expect("written");
        assert_eq!(limit(), Some(8192), "the root that is visible is the container's");
        write(inner.join("memory.limit_in_bytes"), "4096\n").expect("written");
        assert_eq!(limit(), Some(4096));
        assert_eq!(smallest_limit(root, "4:cpuset,memory:/service/worker\n"), Some(4096));
        // Either version may have the memory controller. The other one has no limit.
        write(root.join("memory.max"), "1024\n").expect("written");
        assert_eq!(limit(), Some(1024));
    }

    #[test]
    fn what_makes_no_sense_is_no_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        create_dir_all(directory.path().join("memory")).expect("created");
        for text in ["", "-1", "much", "99999999999999999999999"] {
            write(directory.path().join("memory.max"), text).expect("written");
            write(directory.path().join("memory/memory.limit_in_bytes"), text).expect("written");
            assert_eq!(smallest_limit(directory.path(), "4:memory:/\n0::/\n"), None, "{text}");
        }
        write(directory.path().join("memory.max"), "1024").expect("written");
        for groups in ["", "0", "0:", "memory", "\n\n"] {
            assert_eq!(smallest_limit(directory.path(), groups), None, "{groups:?}");
        }
    }
}
