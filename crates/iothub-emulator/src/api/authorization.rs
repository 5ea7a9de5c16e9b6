//! Authorization of calls: a shared access signature made with the hub's policy key, or a bearer token.
//!
//! A signature is `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}`. It is the
//! HMAC-SHA256 with the policy's key over the resource as it is written in the token, a newline and the expiry
//! (Microsoft's page "Control access to IoT Hub by using shared access signatures").

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use url::form_urlencoded;

/// Why a call is not authorized. The text is sent to the client, so it contains no signature and no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request has no authorization header")]
    Missing,
    #[error("the authorization is neither a shared access signature nor a bearer token")]
    Malformed,
    #[error("the signature is for another hub")]
    WrongResource,
    #[error("there is no such policy")]
    UnknownPolicy,
    #[error("the signature has expired")]
    Expired,
    #[error("the signature does not match resource, expiry and the policy's key")]
    WrongSignature,
    #[error("the token is not accepted")]
    WrongToken,
}

/// The credentials that are accepted.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) host_name: String,
    pub(super) policy: String,
    pub(super) key: Vec<u8>,
    /// The only bearer token that is accepted. `None` accepts every non-empty token.
    pub(super) token: Option<String>,
}

impl Access {
    /// Checks the authorization of a request at `now`, in seconds since the Unix epoch.
    pub(super) fn verify(&self, headers: &HeaderMap, now: i64) -> Result<(), Refusal> {
        let header = headers.get(header::AUTHORIZATION).ok_or(Refusal::Missing)?;
        let header = header.to_str().map_err(|_| Refusal::Malformed)?;
        match header.split_once(' ') {
            Some(("SharedAccessSignature", signature)) => self.verify_signature(signature, now),
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                let is_accepted = match &self.token {
                    Some(accepted) => accepted == token,
                    None => !token.trim().is_empty(),
                };
                if is_accepted { Ok(()) } else { Err(Refusal::WrongToken) }
            }
            Some(_) | None => Err(Refusal::Malformed),
        }
    }

    fn verify_signature(&self, token: &str, now: i64) -> Result<(), Refusal> {
        let field = |wanted: &str| {
            token.split('&').find_map(|part| part.split_once('=').filter(|(name, _)| *name == wanted))
        };
        let field = |wanted: &str| field(wanted).map(|(_, value)| value).ok_or(Refusal::Malformed);
        let (resource, signature, expiry, policy) =
            (field("sr")?, field("sig")?, field("se")?, field("skn")?);
        if decode(policy) != self.policy {
            return Err(Refusal::UnknownPolicy);
        }
        let signature = STANDARD.decode(decode(signature)).map_err(|_| Refusal::Malformed)?;
        // An HMAC accepts a key of any length. The comparison takes the same time for every signature.
        let mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|_| Refusal::WrongSignature)?;
        mac.chain_update(format!("{resource}\n{expiry}"))
            .verify_slice(&signature)
            .map_err(|_| Refusal::WrongSignature)?;
        if !decode(resource).eq_ignore_ascii_case(&self.host_name) {
            return Err(Refusal::WrongResource);
        }
        let expiry: i64 = expiry.parse().map_err(|_| Refusal::Malformed)?;
        if expiry <= now { Err(Refusal::Expired) } else { Ok(()) }
    }
}

/// Decodes one percent-encoded value. A plus sign stands for itself, because some clients do not encode the base64.
fn decode(value: &str) -> String {
    let plus = value.replace('+', "%2B");
    form_urlencoded::parse(format!("v={plus}").as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "hub.azure-devices.localhost";
    const NOW: i64 = 1_770_000_000;

    fn access(token: Option<&str>) -> Access {
        Access {
            host_name: HOST.to_owned(),
            policy: "service".to_owned(),
            key: b"some key".to_vec(),
            token: token.map(str::to_owned),
        }
    }

    fn signed(resource: &str, expiry: i64, policy: &str, key: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        let resource: String = form_urlencoded::byte_serialize(resource.as_bytes()).collect();
        let mac = mac.chain_update(format!("{resource}\n{expiry}")).finalize().into_bytes();
        let signature = STANDARD.encode(mac);
        let signature: String = form_urlencoded::byte_serialize(signature.as_bytes()).collect();
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}")
    }

    fn verify(access: &Access, header: &str) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", header.parse().unwrap());
        access.verify(&headers, NOW)
    }

    #[test]
    fn a_signature_is_good_for_its_hub_its_policy_and_until_its_expiry() {
        let access = access(None);
        let of = |resource: &str, expiry, policy: &str, key: &[u8]| {
            verify(&access, &signed(resource, expiry, policy, key))
        };
        assert_eq!(of(HOST, NOW + 1, "service", b"some key"), Ok(()));
        assert_eq!(of("HUB.azure-devices.LOCALHOST", NOW + 1, "service", b"some key"), Ok(()));
        assert_eq!(of(HOST, NOW, "service", b"some key"), Err(Refusal::Expired));
        assert_eq!(
            of("other.azure-devices.net", NOW + 1, "service", b"some key"),
            Err(Refusal::WrongResource)
        );
        assert_eq!(of(HOST, NOW + 1, "device", b"some key"), Err(Refusal::UnknownPolicy));
        assert_eq!(of(HOST, NOW + 1, "service", b"another"), Err(Refusal::WrongSignature));
        let later = signed(HOST, NOW, "service", b"some key").replace(&format!("se={NOW}"), "se=1999999999");
        assert_eq!(verify(&access, &later), Err(Refusal::WrongSignature));
    }

    #[test]
    fn a_token_is_the_one_configured_or_any() {
        assert_eq!(verify(&access(Some("secret")), "Bearer secret"), Ok(()));
        assert_eq!(verify(&access(Some("secret")), "Bearer other"), Err(Refusal::WrongToken));
        assert_eq!(verify(&access(None), "Bearer anything"), Ok(()));
        assert_eq!(verify(&access(None), "Bearer  "), Err(Refusal::WrongToken));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(access(None).verify(&HeaderMap::new(), NOW), Err(Refusal::Missing));
        for header in [
            "Basic YTpi",
            "Bearer",
            "SharedAccessSignature sr=a&sig=b&se=c",
            "SharedAccessSignature nonsense",
        ] {
            assert_eq!(verify(&access(None), header), Err(Refusal::Malformed), "{header}");
        }
    }
}
