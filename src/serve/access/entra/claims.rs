//! The claims of a token.

use std::{slice, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use time::OffsetDateTime;

use super::super::{Caller, Denied, Kind};
use crate::config::is_guid;

/// Maximum difference between clocks. Five minutes are the default of Microsoft's libraries, and IoT Hub allows the same for signatures.
const LEEWAY: Duration = Duration::from_secs(300);

/// The claims that are read. `upn`, `email`, `name` and similar ones are not read, so they can never appear in a log.
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
    /// The application, in tokens of version 1.
    appid: Option<String>,
    /// The application, in tokens of version 2.
    azp: Option<String>,
    /// Only in tokens of people: what the application may do for them.
    scp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// The audiences of the token.
    pub(super) fn audiences(&self) -> &[String] {
        match &self.aud {
            OneOrMany::One(audience) => slice::from_ref(audience),
            OneOrMany::Many(audiences) => audiences,
        }
    }

    /// # Errors
    /// The token is not valid at this time.
    pub(super) fn check_time(&self, now: OffsetDateTime) -> Result<(), Denied> {
        let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(i64::MAX);
        let now = now.unix_timestamp();
        if now > self.exp.saturating_add(leeway) {
            return Err(Denied::Expired);
        }
        let begin = self.nbf.unwrap_or(i64::MIN);
        if now < begin.saturating_sub(leeway) { Err(Denied::NotYetValid) } else { Ok(()) }
    }

    /// The identity of the token.
    ///
    /// # Errors
    /// It has no identity in the form of an id.
    pub(super) fn caller(&self) -> Result<Caller, Denied> {
        let application = || self.appid.as_deref().or(self.azp.as_deref());
        let (kind, name) = match self.scp {
            Some(_) => (Kind::User, self.oid.as_deref()),
            None => (Kind::Application, application().or(self.oid.as_deref())),
        };
        // Only ids may appear in logs, whatever an issuer writes.
        let name = name.filter(|name| is_guid(name)).ok_or(Denied::Malformed)?;
        Ok(Caller { name: name.to_ascii_lowercase().into(), kind })
    }
}

/// The fields of a token's header that are used.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

/// The id of the key that signed the token, according to its header.
pub(super) fn key_id(token: &str) -> Result<String, Denied> {
    let [Some(header), Some(_), Some(_), None] = parts(token) else {
        return Err(Denied::Malformed);
    };
    // Not with `jsonwebtoken::decode_header`: it reports unknown algorithms as malformed, including `none`.
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Denied::Malformed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| Denied::Malformed)?;
    if header.alg != "RS256" {
        return Err(Denied::WrongAlgorithm);
    }
    header.kid.ok_or(Denied::UnknownKey)
}

/// The first four parts of a token. A valid token has three.
fn parts(token: &str) -> [Option<&str>; 4] {
    let mut parts = token.split('.');
    [parts.next(), parts.next(), parts.next(), parts.next()]
}
