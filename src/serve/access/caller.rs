//! Who asks.

use std::sync::Arc;

/// Somebody who may ask. Audit lines name them, and limits count them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The policy as it is configured, or an id of Entra ID. Never a person's name or address.
    pub name: Arc<str>,
    /// What the name is of. Two callers of different kinds are two callers, whatever their names.
    pub kind: Kind,
}

/// What a caller's name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A shared access policy: the name is the policy's.
    Policy,
    /// An application that acts for itself: the name is its client id.
    Application,
    /// A person, through some application: the name is the person's object id. By the application's id everybody who uses
    /// the Azure CLI would be one caller.
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
