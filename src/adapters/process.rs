//! The limits that the operating system sets for this process.

use rustix::process::{Resource, getrlimit};

/// How many files may be open at the same time; `None` if there is no limit.
pub fn open_files_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
