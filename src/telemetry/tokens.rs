//! The tokens that this process was given, by scope. No token is kept here, only its times.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    domain::{ticks::Ticks, token},
    ports::{Clock, SystemClock},
};

/// The service or purpose of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Event Hubs.
    EventHubs,
    /// Cosmos DB.
    Cosmos,
    /// Azure Storage.
    Storage,
    /// IoT Hub.
    IotHub,
    /// Anything else.
    Other,
    /// The signature in `blob.container_url`, which is used instead of a token.
    Signature,
    /// The certificate in `serve.certificate_file`.
    Certificate,
}

impl Scope {
    /// The scope of a request for a token.
    pub fn of(scopes: &[&str]) -> Self {
        let has = |part: &str| scopes.iter().any(|scope| scope.contains(part));
        match () {
            () if has("eventhubs.azure") => Self::EventHubs,
            () if has("cosmos") || has("documents.azure") => Self::Cosmos,
            () if has("storage.azure") => Self::Storage,
            () if has("iothubs.azure") => Self::IotHub,
            () => Self::Other,
        }
    }

    /// Its name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::EventHubs => "eventhubs",
            Self::Cosmos => "cosmos",
            Self::Storage => "storage",
            Self::IotHub => "iothub",
            Self::Other => "other",
            Self::Signature => "storage_sas",
            Self::Certificate => "certificate",
        }
    }

    /// The credential that ends, for people.
    pub const fn what(self) -> &'static str {
        match self {
            Self::EventHubs => "the token for Event Hubs",
            Self::Cosmos => "the token for Cosmos DB",
            Self::Storage => "the token for Azure Storage",
            Self::IotHub => "the token for IoT Hub",
            Self::Other => "a token",
            Self::Signature => "the SAS in blob.container_url",
            Self::Certificate => "the certificate in serve.certificate_file",
        }
    }
}

/// The known state of one token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// When the present token was first given.
    pub obtained: Option<Ticks>,
    /// When it ends.
    pub expires: Option<Ticks>,
    /// When a request for a token last failed, and why, unless a token was given since.
    pub failed: Option<(Ticks, String)>,
}

/// Shared by the credential and the readers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<BTreeMap<Scope, Given>>>);

impl Tokens {
    /// Records that a token was given. It may be the same as before.
    pub fn given(&self, scope: Scope, expires: Option<Ticks>) {
        self.note(scope, |given| {
            if given.expires != expires || given.obtained.is_none() {
                given.obtained = Some(SystemClock.now());
            }
            (given.expires, given.failed) = (expires, None);
        });
    }

    /// Records when the configured credential ends.
    pub fn configured(&self, scope: Scope, expires: Ticks) {
        self.note(scope, |given| given.expires = Some(expires));
    }

    /// Records that no token was given.
    pub fn refused(&self, scope: Scope, reason: String) {
        self.note(scope, |given| given.failed = Some((SystemClock.now(), reason)));
    }

    /// The state of all tokens.
    pub fn all(&self) -> BTreeMap<Scope, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tokens as facts.
    pub(super) fn facts(&self) -> Vec<token::Token> {
        let now = SystemClock.now();
        let left = |expires: Ticks| {
            std::time::Duration::try_from_secs_f64(expires.seconds_since(now).max(0.0)).unwrap_or_default()
        };
        let fact = |(scope, given): (Scope, Given)| token::Token {
            what: scope.what().to_owned(),
            by_hand: matches!(scope, Scope::Signature | Scope::Certificate),
            left: given.expires.map(left),
            failed: given.failed.map(|(_, reason)| reason),
        };
        self.all().into_iter().map(fact).collect()
    }

    fn note(&self, scope: Scope, change: impl FnOnce(&mut Given)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(scope).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_token_was_given_when_it_was_given_first_and_a_failure_is_over_with_the_next() {
        let (tokens, later) =
            (Tokens::default(), SystemClock.now().after(std::time::Duration::from_secs(60)));
        tokens.given(Scope::Cosmos, Some(later));
        let first = tokens.all()[&Scope::Cosmos].clone();
        std::thread::sleep(std::time::Duration::from_millis(2));
        tokens.given(Scope::Cosmos, Some(later));
        assert_eq!(tokens.all()[&Scope::Cosmos], first);
        tokens.refused(Scope::Cosmos, "503".into());
        let failed = tokens.all()[&Scope::Cosmos].clone();
        assert_eq!(
            (failed.expires, failed.failed.map(|(_, reason)| reason)),
            (Some(later), Some("503".into()))
        );
        assert_eq!(tokens.facts()[0].failed.as_deref(), Some("503"));
        tokens.given(Scope::Cosmos, Some(later.after(std::time::Duration::from_secs(1))));
        let next = tokens.all()[&Scope::Cosmos].clone();
        assert!(next.obtained > first.obtained && next.failed.is_none(), "{next:?}");
    }

    #[test]
    fn scopes_are_known_by_their_services() {
        for (scope, found) in [
            ("https://eventhubs.azure.net/.default", Scope::EventHubs),
            ("https://account.documents.azure.com/.default", Scope::Cosmos),
            ("https://cosmos.azure.com/.default", Scope::Cosmos),
            ("https://storage.azure.com/.default", Scope::Storage),
            ("https://iothubs.azure.net/.default", Scope::IotHub),
            ("https://vault.azure.net/.default", Scope::Other),
        ] {
            assert_eq!(Scope::of(&[scope]), found, "{scope}");
        }
    }
}
