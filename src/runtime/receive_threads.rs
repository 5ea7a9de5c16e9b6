//! Dedicated threads that receive events.
//!
//! From the connection over the session and the link to the decoded batch, an event wakes one task after the other. On a multi-threaded
//! runtime, each wake-up also wakes another worker, which looks for work. At a steady rate that costs more than the events themselves. So a
//! partition stays on one thread, together with its connection. Only the events that it dispatches move to other threads.

use std::{io, num::NonZeroUsize, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Maximum number of receive threads. One thread was measured to receive and decode more than 70,000 small events per second (ADR 8), which
/// is as much as 17 throughput units give.
const MOST: usize = 8;

/// Number of runtime workers beside these threads: one per processor except one, and at least one. Workers wake each other whenever there
/// may be work, so each additional worker costs CPU time at a steady rate (ADR 8).
pub fn workers_beside() -> usize {
    workers_of(processors())
}

fn workers_of(processors: usize) -> usize {
    processors.saturating_sub(1).max(1)
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The receive threads. Dropping this ends them, together with the tasks that still run on them.
pub struct ReceiveThreads {
    threads: Vec<Handle>,
    _end: DropGuard,
}

impl ReceiveThreads {
    /// Starts one thread per processor that this process may use, up to 8.
    ///
    /// # Errors
    /// The operating system refuses to start a thread.
    pub fn start() -> io::Result<Self> {
        let count = processors().min(MOST);
        let end = CancellationToken::new();
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            threads.push(runtime.handle().clone());
            let end = end.clone();
            thread::Builder::new().name(format!("receive-{number}")).spawn(move || {
                runtime.block_on(end.cancelled());
                // A DNS lookup that is still running must not delay the shutdown.
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { threads, _end: end.drop_guard() })
    }

    /// The thread with the fewest tasks.
    pub fn least_used(&self) -> Option<&Handle> {
        self.threads.iter().min_by_key(|thread| thread.metrics().num_alive_tasks())
    }

    /// The handles of all threads.
    pub fn handles(&self) -> &[Handle] {
        &self.threads
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, future::pending};

    use tokio::{sync::oneshot, task::JoinSet};

    use super::*;

    #[test]
    fn one_processor_is_left_to_the_receive_threads_if_there_are_several() {
        assert_eq!([1, 2, 3, 8].map(workers_of), [1, 1, 2, 7]);
    }

    #[tokio::test]
    async fn tasks_are_spread_and_each_stays_with_what_it_spawns() {
        let threads = ReceiveThreads::start().expect("threads");
        let count = threads.handles().len();
        let mut tasks = JoinSet::new();
        for _ in 0..2 * count {
            let here = || thread::current().name().map(ToOwned::to_owned);
            let (sender, receiver) = oneshot::channel();
            let task = async move {
                let of_child = tokio::spawn(async move { here() }).await.expect("no panic");
                sender.send((here(), of_child)).expect("somebody listens");
                pending::<()>().await;
            };
            tasks.spawn_on(task, threads.least_used().expect("there is one"));
            let (one, other) = receiver.await.expect("it runs");
            assert_eq!(one, other);
            assert!(one.is_some_and(|name| name.starts_with("receive-")));
        }
        let alive: BTreeSet<_> =
            threads.handles().iter().map(|thread| thread.metrics().num_alive_tasks()).collect();
        assert_eq!(alive, BTreeSet::from([2]));
        drop(threads);
        // The tasks that ran there are cancelled, so waiting for them ends.
        while let Some(ended) = tasks.join_next().await {
            assert!(ended.expect_err("it was cut off").is_cancelled());
        }
    }
}
