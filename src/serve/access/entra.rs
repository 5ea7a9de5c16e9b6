//! Tokens of Microsoft Entra ID: `Bearer {JWT}`.
//!
//! A token is accepted if a key of the issuer has signed it with RS256, if the issuer belongs to the configured tenant, if this service is
//! its audience, and if it is valid at this time. This service decides the algorithm, not the token: a token with `none`, or with HS256 and
//! the public key as the secret, is refused before any key is used. The configuration names the allowed identities, by role or by object
//! id. Roles that are assigned in Azure, such as `IoT Hub Data Reader`, are not in any token: IoT Hub asks Azure for them, and this service
//! cannot.

mod claims;
mod fetch;
mod key_set;
mod keys;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, dangerous::insecure_decode_claims, errors::ErrorKind,
};
use time::OffsetDateTime;

use self::{
    claims::{Claims, key_id},
    keys::{KeyCache, NoKey, Source},
    settings::{Checked, without_slash},
};
pub use self::{
    fetch::{Fetch, FetchError, Http},
    key_set::DocumentError,
    keys::{KeyError, KeyEvent, Report},
    settings::{Settings, SettingsError},
};
use super::{Caller, Denied};

/// Checks tokens of Entra ID.
#[derive(Debug)]
pub(super) struct Tokens {
    tenant: String,
    issuers: Vec<String>,
    /// Without the trailing slash.
    audiences: Vec<String>,
    roles: BTreeSet<String>,
    /// In lower case.
    principals: BTreeSet<String>,
    validation: Validation,
    keys: KeyCache,
}

impl Tokens {
    /// # Errors
    /// The settings cannot work.
    pub(super) fn new(
        settings: &Settings,
        fetch: Arc<dyn Fetch>,
        report: Report,
    ) -> Result<Self, SettingsError> {
        let Checked { tenant, issuers, audiences, principals, discovery } = settings.check()?;
        let source = Source {
            discovery,
            key_sets: settings.keys_url.iter().cloned().collect(),
            issuers: issuers.clone(),
            tenant: tenant.clone(),
        };
        Ok(Self {
            tenant,
            issuers,
            audiences,
            roles: settings.roles.clone(),
            principals,
            validation: signature_only(),
            keys: KeyCache::new(source, fetch, report),
        })
    }

    /// Begins to renew the keys if they are due.
    pub(super) fn refresh_keys(&self) {
        self.keys.refresh();
    }

    /// The age of the issuer's keys. `None`: there are none.
    pub(super) fn keys_age(&self) -> Option<Duration> {
        self.keys.age()
    }

    /// Identifies the caller by `token`, which is the text after `Bearer` and a space.
    ///
    /// # Errors
    /// The token is not valid, or its identity may not read.
    pub(super) async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, Denied> {
        let key_id = key_id(token)?;
        // A token for another service must not trigger a fetch of keys. The claims are trusted only after the signature is checked.
        let claims: Claims = insecure_decode_claims(token).map_err(|_| Denied::Malformed)?;
        self.check_parties(&claims)?;
        let key = self.keys.get(&key_id).await.map_err(|no_key| match no_key {
            NoKey::Unknown => Denied::UnknownKey,
            NoKey::Unavailable => Denied::KeysUnavailable,
        })?;
        let claims = self.signed(token, &key)?;
        self.check_parties(&claims)?;
        claims.check_time(now)?;
        self.check_right(&claims)?;
        claims.caller()
    }

    fn signed(&self, token: &str, key: &DecodingKey) -> Result<Claims, Denied> {
        let found = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        found.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Denied::WrongSignature,
            ErrorKind::InvalidAlgorithm => Denied::WrongAlgorithm,
            _ => Denied::Malformed,
        })
    }

    /// Whether the token is from the configured issuer and for this service.
    fn check_parties(&self, claims: &Claims) -> Result<(), Denied> {
        let is_of_tenant = claims.tid.as_ref().is_none_or(|tenant| tenant.eq_ignore_ascii_case(&self.tenant));
        if !(self.issuers.contains(&claims.iss) && is_of_tenant) {
            return Err(Denied::WrongIssuer);
        }
        let is_ours = |audience: &str| self.audiences.iter().any(|ours| ours == without_slash(audience));
        if claims.audiences().iter().any(|audience| is_ours(audience)) {
            Ok(())
        } else {
            Err(Denied::WrongAudience)
        }
    }

    fn check_right(&self, claims: &Claims) -> Result<(), Denied> {
        let has_role = claims.roles.iter().any(|role| self.roles.contains(role));
        let oid = claims.oid.as_deref().map(str::to_ascii_lowercase);
        let is_named = oid.is_some_and(|oid| self.principals.contains(&oid));
        if has_role || is_named { Ok(()) } else { Err(Denied::NoRole) }
    }
}

/// Checks only that the token is signed with RS256 and the key, and none of its claims. They are checked separately, with the caller's
/// clock and with reasons that can be counted.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}
