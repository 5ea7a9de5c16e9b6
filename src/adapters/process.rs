//! What the operating system allows this process.

use rustix::process::{Resource, getrlimit};

/// How many files may be open at the same time; `None`: any number.
pub fn open_files_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
