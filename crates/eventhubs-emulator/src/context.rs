//! The state that the sessions of one connection share.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{authorization::Authorization, namespace::Namespace};

/// The state that the sessions of one connection share.
#[derive(Debug, Clone)]
pub(super) struct SessionContext {
    pub(super) namespace: Arc<Namespace>,
    pub(super) tasks: TaskTracker,
    /// The authorization from the tokens that were put on this connection.
    pub(super) authorization: Arc<Authorization>,
}
