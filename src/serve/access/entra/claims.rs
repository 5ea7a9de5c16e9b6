//! What a token says.

use std::{slice, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use time::OffsetDateTime;

use super::super::{Caller, Denied, Kind};
use crate::config::is_guid;

/// Clocks may differ by this much. Five minutes are the default of Microsoft's libraries, and what IoT Hub allows signatures.
const LEEWAY: Duration = Duration::from_secs(300);

/// What we read of a token. Not `upn`, `email`, `name` and their like: what is never read is in no log.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    aud: OneOrMany,
    exp: i64,
    nbf: Option<i64>,
    pub(super) tid: Option<String>,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    pub(super) oid: Option<String>,
    /// The application, in version 1 of tokens.
    appid: Option<String>,
    /// The application, in version 2.
    azp: Option<String>,
    /// Only tokens of people have it: what the application may do for them.
    scp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// Whom the token is for.
    pub(super) fn audiences(&self) -> &[String] {
        match &self.aud {
            OneOrMany::One(audience) => slice::from_ref(audience),
            OneOrMany::Many(audiences) => audiences,
        }
    }

    /// # Errors
    /// The token is not good at this time.
    pub(super) fn check_time(&self, now: OffsetDateTime) -> Result<(), Denied> {
        let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(i64::MAX);
        let now = now.unix_timestamp();
        if now > self.exp.saturating_add(leeway) {
            return Err(Denied::Expired);
        }
        let begin = self.nbf.unwrap_or(i64::MIN);
        if now < begin.saturating_sub(leeway) { Err(Denied::NotYetValid) } else { Ok(()) }
    }

    /// Whom the token is of.
    ///
    /// # Errors
    /// It does not say so by an id.
    pub(super) fn caller(&self) -> Result<Caller, Denied> {
        let application = || self.appid.as_deref().or(self.azp.as_deref());
        let (kind, name) = match self.scp {
            Some(_) => (Kind::User, self.oid.as_deref()),
            None => (Kind::Application, application().or(self.oid.as_deref())),
        };
        // Only ids get into logs, whatever an issuer writes.
        let name = name.filter(|name| is_guid(name)).ok_or(Denied::Malformed)?;
        Ok(Caller { name: name.to_ascii_lowercase().into(), kind })
    }
}

/// The header of a token, as far as it decides anything.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

/// The id of the key that the token says it is signed with.
pub(super) fn key_id(token: &str) -> Result<String, Denied> {
    let [Some(header), Some(_), Some(_), None] = parts(token) else {
        return Err(Denied::Malformed);
    };
    // Not by `jsonwebtoken::decode_header`: it calls algorithms that it does not know malformed, `none` among them.
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Denied::Malformed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| Denied::Malformed)?;
    if header.alg != "RS256" {
        return Err(Denied::WrongAlgorithm);
    }
    header.kid.ok_or(Denied::UnknownKey)
}

/// The first four parts of a token, which has three.
fn parts(token: &str) -> [Option<&str>; 4] {
    let mut parts = token.split('.');
    [parts.next(), parts.next(), parts.next(), parts.next()]
}
