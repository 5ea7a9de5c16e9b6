//! Decides which requests are admitted: those with a signature of a configured policy, or with an Entra ID token of an allowed identity.
//!
//! Both ways are those of IoT Hub's service API, so its official clients work unchanged. Each request is decided separately, from its
//! `Authorization` header alone. Nothing is remembered about callers.
//!
//! [`Denied`] is the internal reason for a refusal. The client gets [`Denied::answer`], which does not contain the reason.

mod caller;
mod denied;
pub mod entra;
pub mod sas;
mod scope;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use time::OffsetDateTime;

pub use self::{
    caller::{Caller, Kind},
    denied::Denied,
};
use self::{entra::Tokens, sas::Signatures, scope::Hosts};

/// Maximum length of the `Authorization` value, in bytes. A token of Entra ID has 2 KB, and up to 8 KB with many groups.
const LONGEST: usize = 16 << 10;

/// Settings of access: who may send requests.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The host names that clients use for this service, without ports. A signature must be for one of them.
    pub hosts: Vec<String>,
    /// The shared access policies.
    pub policies: Vec<sas::Policy>,
    /// Maximum time until a signature's expiry. `None`: unlimited, as at IoT Hub.
    pub longest_signature: Option<Duration>,
    /// The accepted Entra ID tokens. `None`: no tokens are accepted.
    pub entra: Option<entra::Settings>,
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No request could be admitted.
    #[error("there is no policy and no tenant: nobody could be admitted")]
    Nobody,
    /// Signatures need a host name.
    #[error(
        "the hosts are missing or are not host names: list the host names, without ports, that clients have in `HostName`"
    )]
    Hosts,
    /// An error in the policies.
    #[error(transparent)]
    Policy(#[from] sas::PolicyError),
    /// An error in the settings of Entra ID.
    #[error(transparent)]
    Entra(#[from] entra::SettingsError),
}

/// Decides which requests are admitted.
pub struct Access {
    hosts: Hosts,
    signatures: Signatures,
    tokens: Option<Tokens>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, signatures, tokens } = self;
        let tokens = tokens.as_ref().map(|_| "entra");
        f.debug_struct("Access")
            .field("hosts", hosts)
            .field("policies", signatures)
            .field("tokens", &tokens)
            .finish()
    }
}

impl Access {
    /// Creates it from `settings`. `fetch` fetches the keys of Entra ID, and `report` receives what happens to them.
    ///
    /// # Errors
    /// The settings cannot work.
    pub fn new(
        settings: &Settings,
        fetch: Arc<dyn entra::Fetch>,
        report: entra::Report,
    ) -> Result<Self, SettingsError> {
        let signatures = Signatures::new(&settings.policies, settings.longest_signature)?;
        let tokens = settings.entra.as_ref().map(|entra| Tokens::new(entra, fetch, report)).transpose()?;
        if signatures.is_empty() && tokens.is_none() {
            return Err(SettingsError::Nobody);
        }
        if settings.hosts.is_empty() && !signatures.is_empty() {
            return Err(SettingsError::Hosts);
        }
        let hosts = Hosts::new(&settings.hosts).ok_or(SettingsError::Hosts)?;
        Ok(Self { hosts, signatures, tokens })
    }

    /// Identifies the caller that requests `path` at `now`. `authorization` has the values of all headers of that name. `path` is as it was
    /// sent, without the query.
    ///
    /// Waits only if keys of Entra ID have to be fetched, for at most 20 s. **Cancellation** is safe at any point.
    ///
    /// # Errors
    /// The request is not admitted.
    pub async fn admit(
        &self,
        authorization: &[&[u8]],
        path: &str,
        now: OffsetDateTime,
    ) -> Result<Caller, Denied> {
        let value = match authorization {
            [] => return Err(Denied::Missing),
            [value] if value.len() > LONGEST => return Err(Denied::Malformed),
            [value] => std::str::from_utf8(value).map_err(|_| Denied::Malformed)?,
            [_, _, ..] => return Err(Denied::Several),
        };
        let (scheme, credentials) = value.trim_ascii().split_once(' ').ok_or(Denied::Malformed)?;
        let credentials = credentials.trim_ascii_start();
        // Scheme names are case-insensitive (RFC 9110, 11.1).
        if scheme.eq_ignore_ascii_case("SharedAccessSignature") {
            if self.signatures.is_empty() {
                return Err(Denied::NotConfigured);
            }
            self.signatures.verify(credentials, &self.hosts, path, now)
        } else if scheme.eq_ignore_ascii_case("Bearer") {
            let tokens = self.tokens.as_ref().ok_or(Denied::NotConfigured)?;
            tokens.verify(credentials, now).await
        } else {
            Err(Denied::Malformed)
        }
    }

    /// Begins to fetch the keys of Entra ID if they are missing or older than an hour, and does not wait. A call at the start saves the
    /// first caller the wait, and shows in `report` whether the issuer can be reached. Periodic calls keep the keys fresh while there are
    /// no requests. Must be called within a runtime.
    pub fn refresh_keys(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.refresh_keys();
        }
    }

    /// The age of the Entra ID keys, for a gauge. `None`: there are none yet, or they are not needed.
    pub fn keys_age(&self) -> Option<Duration> {
        self.tokens.as_ref().and_then(Tokens::keys_age)
    }
}
