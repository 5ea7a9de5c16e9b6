//! Cosmos DB's master-key authorization: `type=master&ver=1.0&sig=<HMAC-SHA256>`, form-encoded in the header.
//!
//! The signature covers verb, resource type, resource link and date, as described in Microsoft's page "Access
//! control on Azure Cosmos DB resources".

use axum::http::{HeaderMap, Method};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Why a request is not authorized. The text is sent to the client, so it contains no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request has no authorization header")]
    Missing,
    #[error("the authorization header is not of the form type=master&ver=1.0&sig=<signature>, form-encoded")]
    Malformed,
    #[error("the request has neither an x-ms-date nor a date header")]
    NoDate,
    #[error("the signature does not match verb, resource, date and the account's key")]
    WrongSignature,
}

/// The decoded key of an account.
pub(super) struct MasterKey(Vec<u8>);

impl MasterKey {
    /// Parses the key in base64, the form in which clients receive it.
    pub(super) fn parse(base64: &str) -> Result<Self, base64::DecodeError> {
        STANDARD.decode(base64).map(Self)
    }

    /// Checks that the request is signed with this key. `path` is the request's path, still percent-encoded.
    pub(super) fn verify(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let header = text(headers, "authorization").ok_or(Refusal::Missing)?;
        let signature = signature(header).ok_or(Refusal::Malformed)?;
        let date = text(headers, "x-ms-date").or_else(|| text(headers, "date")).ok_or(Refusal::NoDate)?;
        let decoded = percent_decode(path);
        // Clients sign the ids themselves, not their escaped form. Some sign the form that they put into the
        // path.
        let matches = [decoded.as_str(), path].iter().any(|path| self.signs(method, path, date, &signature));
        if matches { Ok(()) } else { Err(Refusal::WrongSignature) }
    }

    fn signs(&self, method: &Method, path: &str, date: &str, signature: &[u8]) -> bool {
        let (resource_type, link) = resource(path);
        let payload = format!(
            "{}\n{resource_type}\n{link}\n{}\n\n",
            method.as_str().to_ascii_lowercase(),
            date.to_ascii_lowercase()
        );
        // An HMAC accepts a key of any length. The comparison takes the same time for every signature.
        Hmac::<Sha256>::new_from_slice(&self.0)
            .is_ok_and(|mac| mac.chain_update(payload).verify_slice(signature).is_ok())
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn signature(header: &str) -> Option<Vec<u8>> {
    let (mut is_master, mut signature) = (false, None);
    let decoded = form_decode(header);
    // The signature is base64 and may contain `=`, so each part is split at its first `=` only.
    for part in decoded.split('&') {
        match part.split_once('=')? {
            ("type", kind) => is_master = kind == "master",
            ("sig", text) => signature = STANDARD.decode(text).ok(),
            _ => {}
        }
    }
    signature.filter(|_| is_master)
}

/// The resource type and the link that are signed. For a feed, this is the link of its parent.
fn resource(path: &str) -> (&str, &str) {
    let link = path.trim_matches('/');
    let segments: Vec<&str> = link.split('/').collect();
    match segments.as_slice() {
        [""] => ("", ""),
        [feed] => (feed, ""),
        [.., feed] if segments.len() % 2 == 1 => {
            (feed, link[..link.len() - feed.len()].trim_end_matches('/'))
        }
        [.., kind, _] => (kind, link),
        [] => ("", ""),
    }
}

fn form_decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c29tZSBrZXkgZm9yIHRlc3Rz";
    const DATE: &str = "Tue, 03 Feb 2026 10:00:00 GMT";

    fn sign(payload: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(KEY).unwrap()).unwrap();
        let signature = STANDARD.encode(mac.chain_update(payload).finalize().into_bytes());
        let header = format!("type=master&ver=1.0&sig={signature}");
        url::form_urlencoded::byte_serialize(header.as_bytes()).collect()
    }

    fn verify(method: Method, path: &str, payload: &str) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-date", DATE.parse().unwrap());
        headers.insert("authorization", sign(payload).parse().unwrap());
        MasterKey::parse(KEY).unwrap().verify(&method, path, &headers)
    }

    #[test]
    fn each_depth_of_path_is_signed_under_its_own_link() {
        let date = DATE.to_lowercase();
        for (method, path, payload) in [
            (Method::GET, "/", format!("get\n\n\n{date}\n\n")),
            (Method::GET, "/dbs", format!("get\ndbs\n\n{date}\n\n")),
            (Method::GET, "/dbs/D", format!("get\ndbs\ndbs/D\n{date}\n\n")),
            (Method::POST, "/dbs/D/colls/C/docs", format!("post\ndocs\ndbs/D/colls/C\n{date}\n\n")),
            (
                Method::PUT,
                "/dbs/D/colls/C/docs/a%2523b",
                format!("put\ndocs\ndbs/D/colls/C/docs/a%23b\n{date}\n\n"),
            ),
            (
                Method::PUT,
                "/dbs/D/colls/C/docs/a%20b",
                format!("put\ndocs\ndbs/D/colls/C/docs/a%20b\n{date}\n\n"),
            ),
        ] {
            assert_eq!(verify(method, path, &payload), Ok(()), "{path}");
        }
    }

    #[test]
    fn another_verb_path_or_date_is_refused() {
        let date = DATE.to_lowercase();
        let payload = format!("get\ndocs\ndbs/D/colls/C/docs/a\n{date}\n\n");
        assert_eq!(verify(Method::GET, "/dbs/D/colls/C/docs/a", &payload), Ok(()));
        assert_eq!(verify(Method::DELETE, "/dbs/D/colls/C/docs/a", &payload), Err(Refusal::WrongSignature));
        assert_eq!(verify(Method::GET, "/dbs/D/colls/C/docs/b", &payload), Err(Refusal::WrongSignature));
        let other = payload.replace("10:00", "10:01");
        assert_eq!(verify(Method::GET, "/dbs/D/colls/C/docs/a", &other), Err(Refusal::WrongSignature));
    }

    #[test]
    fn odd_headers_are_refused_without_panic() {
        let key = MasterKey::parse(KEY).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(key.verify(&Method::GET, "/", &headers), Err(Refusal::Missing));
        for odd in ["", "Bearer x", "type%3Dmaster", "type%3Dmaster%26sig%3D%%%", "type=aad&ver=1.0&sig=eA=="]
        {
            headers.insert("authorization", odd.parse().unwrap());
            assert_eq!(key.verify(&Method::GET, "/%%2", &headers), Err(Refusal::Malformed), "{odd:?}");
        }
        headers.insert("authorization", sign("x").parse().unwrap());
        assert_eq!(key.verify(&Method::GET, "//", &headers), Err(Refusal::NoDate));
        assert!(MasterKey::parse("not base64!").is_err());
    }
}
