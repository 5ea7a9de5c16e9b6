//! The connection of one daemon process to the simulated world: requests take time, may fail, and end with the process.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::AbortHandle;

use crate::{plan::Fault, world::World};

/// One run of a daemon.
pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    /// Its name among the replicas.
    pub(crate) name: String,
    is_dead: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
    /// The write that its reads of the document store must include, like a session token.
    pub(crate) session: AtomicU64,
}

/// The second half of a request, after the world has chosen its faults.
pub(crate) struct Step {
    crash: bool,
}

impl Link {
    pub(crate) fn new(world: &Arc<World>, name: String) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            name,
            is_dead: AtomicBool::new(false),
            task: Mutex::new(None),
            session: AtomicU64::new(0),
        })
    }

    /// Sets the task that a crash aborts.
    pub(crate) fn runs_as(&self, task: AbortHandle) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// Ends the process. Its pending requests never return.
    pub(crate) fn kill(&self) {
        if !self.is_dead.swap(true, Ordering::Relaxed) {
            self.world.tell(format!("{} dies", self.name));
            if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
                task.abort();
            }
        }
    }

    /// Begins a request. It takes time, and the process may crash before the request is performed or before its answer
    /// arrives.
    pub(crate) async fn begin(&self, what: &str) -> Step {
        if self.is_dead() {
            pending::<()>().await;
        }
        self.world.tell(format!("{} {what}", self.name));
        let (before, crash) = match self.world.draws_rarely(Fault::Crash) {
            true => (self.world.below(2) == 0, true),
            false => (false, false),
        };
        self.wait().await;
        if before {
            self.crash().await;
        }
        Step { crash }
    }

    /// Ends a request that was performed. The answer takes time and may never arrive.
    pub(crate) async fn end(&self, step: Step) {
        if step.crash {
            self.crash().await;
        }
        self.wait().await;
        if self.is_dead() {
            pending::<()>().await;
        }
    }

    async fn crash(&self) {
        self.kill();
        pending::<()>().await;
    }

    async fn wait(&self) {
        let long = self.world.below(50) == 0;
        let most = Duration::from_millis(if long { 900 } else { 8 });
        tokio::time::sleep(self.world.span(Duration::from_micros(200), most)).await;
    }

    /// Performs an action later, even if the process has ended.
    pub(crate) fn later(&self, after: Duration, act: impl FnOnce(&World) + Send + 'static) {
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            act(&world);
        });
    }

    /// From here on reads must include this write.
    pub(crate) fn has_seen(&self, number: u64) {
        self.session.fetch_max(number, Ordering::Relaxed);
    }
}
