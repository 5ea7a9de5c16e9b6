//! Shared access signatures: `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}`.
//!
//! The signature is HMAC-SHA256 with a key of the policy, over the resource as it is written in the token, a newline and the expiry
//! (Microsoft's page "Control access to IoT Hub by using shared access signatures"). So one check works for all clients, however they
//! encode the resource: Node's `azure-iothub` 1.16 does not encode it at all, Python's `azure-iot-hub` 2.7, Java's and .NET's encode it
//! with upper-case escapes, and older samples for .NET with lower-case ones.
//!
//! The clients send these four parts and no others, in two orders.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};
use time::OffsetDateTime;

use super::{Caller, Denied, Kind, scope::Hosts};
pub use crate::config::Policy;
use crate::config::Secret;

/// How long after its expiry a signature is still accepted.
///
/// IoT Hub allows clocks to differ by five minutes (a maintainer in Azure/azure-iot-sdk-csharp#97; #565 observed the same over HTTP). A
/// client with a slow clock that works with the hub must also work here.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Minimum length of a key, in bytes. Keys that Azure generates have 32.
const SHORTEST_KEY: usize = 16;

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Python's and Java's clients send the name unencoded, so these characters would be misread.
    #[error("the policy name {0:?} is empty or has a control character, a `&` or a `%`: choose another")]
    Name(String),
    /// Two policies have the same name.
    #[error("there are two policies of the name {0:?}: remove or rename one")]
    Twice(String),
    /// A key is not base64, or is too short.
    #[error(
        "a key of the policy {0:?} is not base64: write the key only, as `openssl rand -base64 32` makes one"
    )]
    Key(String),
}

/// Checks signatures. `Debug` shows the names of the policies, and no key.
pub(super) struct Signatures {
    policies: Vec<Keyed>,
    /// Maximum time until an expiry.
    longest: Option<Duration>,
}

struct Keyed {
    name: Arc<str>,
    keys: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.policies.iter().map(|policy| &policy.name)).finish()
    }
}

impl Signatures {
    /// Creates a checker for signatures of `policies` that expire within `longest` of the time of the request.
    ///
    /// # Errors
    /// A policy cannot be used.
    pub(super) fn new(policies: &[Policy], longest: Option<Duration>) -> Result<Self, PolicyError> {
        let mut keyed: Vec<Keyed> = Vec::with_capacity(policies.len());
        for policy in policies {
            let is_bad = |character: char| character.is_control() || matches!(character, '&' | '%');
            if policy.name.is_empty() || policy.name.contains(is_bad) {
                return Err(PolicyError::Name(policy.name.clone()));
            }
            if keyed.iter().any(|other| *other.name == *policy.name) {
                return Err(PolicyError::Twice(policy.name.clone()));
            }
            let keys = [Some(&policy.primary_key), policy.secondary_key.as_ref()];
            let keys = keys.into_iter().flatten().map(key).collect::<Option<_>>();
            let keys = keys.ok_or_else(|| PolicyError::Key(policy.name.clone()))?;
            keyed.push(Keyed { name: policy.name.as_str().into(), keys });
        }
        Ok(Self { policies: keyed, longest })
    }

    /// Whether there is no policy.
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Identifies the caller that requests `path` by `token`, which is the text after `SharedAccessSignature` and a space.
    ///
    /// # Errors
    /// The signature is not valid for this request.
    pub(super) fn verify(
        &self,
        token: &str,
        hosts: &Hosts,
        path: &str,
        now: OffsetDateTime,
    ) -> Result<Caller, Denied> {
        let token = Token::parse(token)?;
        let name = self.signer(&token)?;
        let resource = percent_decode_str(token.resource).decode_utf8().map_err(|_| Denied::Malformed)?;
        if !hosts.cover(&resource, path) {
            return Err(Denied::WrongResource);
        }
        self.check_expiry(token.expiry.parse().map_err(|_| Denied::Malformed)?, now)?;
        Ok(Caller { name, kind: Kind::Policy })
    }

    /// The policy that the token names and whose key has signed it.
    ///
    /// Every key of every policy is tried, whichever policy the token names. So an unknown policy takes as long as a known one with a wrong
    /// signature, and response times do not show which policies exist.
    fn signer(&self, token: &Token<'_>) -> Result<Arc<str>, Denied> {
        let text = format!("{}\n{}", token.resource, token.expiry);
        let names = token.policy.map(names).unwrap_or_default();
        let (mut is_known, mut signer) = (false, None);
        for policy in &self.policies {
            let has_signed = policy.has_signed(text.as_bytes(), &token.signature);
            if names.iter().any(|name| **name == *policy.name) {
                is_known = true;
                if has_signed.into() {
                    signer = Some(Arc::clone(&policy.name));
                }
            }
        }
        let otherwise = if is_known { Denied::WrongSignature } else { Denied::UnknownPolicy };
        signer.ok_or(otherwise)
    }

    /// `expiry` is in seconds since the Unix epoch.
    fn check_expiry(&self, expiry: u64, now: OffsetDateTime) -> Result<(), Denied> {
        let now = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        if now > expiry.saturating_add(TOLERANCE.as_secs()) {
            return Err(Denied::Expired);
        }
        let allowed =
            self.longest.map(|longest| now.saturating_add(longest.saturating_add(TOLERANCE).as_secs()));
        if allowed.is_some_and(|last| expiry > last) { Err(Denied::TooLong) } else { Ok(()) }
    }
}

impl Keyed {
    fn has_signed(&self, text: &[u8], signature: &[u8; 32]) -> Choice {
        self.keys.iter().fold(Choice::from(0), |found, key| {
            let expected: [u8; 32] = key.clone().chain_update(text).finalize().into_bytes().into();
            found | expected.ct_eq(signature)
        })
    }
}

fn key(key: &Secret) -> Option<Hmac<Sha256>> {
    let key = STANDARD.decode(key.expose().trim()).ok().filter(|key| key.len() >= SHORTEST_KEY)?;
    Hmac::new_from_slice(&key).ok()
}

/// The possible names for `skn`. In the encoding of Node's client, and in the unencoded text of Python's and Java's clients, a plus sign
/// means itself. In .NET's encoding it means a space. The signature decides between them: each policy has its own keys.
fn names(sent: &str) -> Vec<String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|name| name.into_owned());
    let plus_is_space = sent.contains('+').then(|| sent.replace('+', " "));
    [Some(sent), plus_is_space.as_deref()].into_iter().flatten().filter_map(decode).collect()
}

/// The parts of a token. All are as sent, except for the signature, which is decoded.
struct Token<'a> {
    resource: &'a str,
    signature: [u8; 32],
    expiry: &'a str,
    policy: Option<&'a str>,
}

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Result<Self, Denied> {
        let [mut resource, mut signature, mut expiry, mut policy] = [None; 4];
        for part in text.split('&') {
            let (name, value) = part.split_once('=').ok_or(Denied::Malformed)?;
            let place = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                // No client sends another part. An unknown part may restrict the scope of the signature.
                _ => return Err(Denied::Malformed),
            };
            if place.replace(value).is_some() {
                return Err(Denied::Malformed);
            }
        }
        let (Some(resource), Some(signature), Some(expiry)) = (resource, signature, expiry) else {
            return Err(Denied::Malformed);
        };
        // `parse` alone would accept a plus sign.
        if expiry.is_empty() || !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Denied::Malformed);
        }
        // A plus sign is not a space here: it is a digit of base64.
        let signature: Vec<u8> = percent_decode_str(signature).collect();
        let signature = STANDARD.decode(signature).map_err(|_| Denied::Malformed)?;
        let signature = signature.try_into().map_err(|_| Denied::Malformed)?;
        Ok(Self { resource, signature, expiry, policy })
    }
}
