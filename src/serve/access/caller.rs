//! The identity of a caller.

use std::sync::Arc;

/// An admitted caller. Log lines name it, and limits are counted per caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The name of the policy in the configuration, or an id of Entra ID. Never the name or address of a person.
    pub name: Arc<str>,
    /// The kind of the name. Two callers of different kinds are different callers, even with the same name.
    pub kind: Kind,
}

/// The kind of a caller's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A shared access policy: the name is the name of the policy.
    Policy,
    /// An application that acts for itself: the name is its client id.
    Application,
    /// A person who uses an application: the name is the person's object id. With the application's id, all users of the Azure CLI would be
    /// one caller.
    User,
}

impl Kind {
    /// The kind in logs and as a label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Application => "application",
            Self::User => "user",
        }
    }
}
