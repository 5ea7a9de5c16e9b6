//! The public documents of an issuer: the discovery document (OpenID Connect Discovery 1.0) and the key set (RFC 7517).

use std::collections::BTreeMap;

use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

/// Keys by their id.
pub(super) type Keys = BTreeMap<String, DecodingKey>;

/// Why a document of an issuer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON, or not the expected document.
    #[error("it does not have the expected form: {0}")]
    Unreadable(String),
    /// The document is from another issuer, and so are its keys.
    #[error("its issuer is {0:?}, which is not accepted")]
    Issuer(String),
    /// The keys are at an address that nobody vouches for: it is not https.
    #[error("it says that the keys are at {0:?}, which is not https")]
    KeysUrl(String),
    /// There is no key that may sign a token. Such a set does not replace another one.
    #[error("it has no RSA key for signatures of an accepted issuer")]
    NoKeys,
}

/// Whether keys from `url` can be trusted: they come over TLS, or do not leave this machine.
pub(super) fn is_safe(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let is_local = || matches!(url.host_str(), Some("127.0.0.1" | "[::1]"));
    url.scheme() == "https" || (url.scheme() == "http" && is_local())
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Returns the address of the keys, from a discovery document of one of the `issuers`.
///
/// # Errors
/// The document is from another issuer, or cannot be parsed.
pub(super) fn keys_url(document: &[u8], issuers: &[String]) -> Result<String, DocumentError> {
    let discovery: Discovery = serde_json::from_slice(document).map_err(unreadable)?;
    if !issuers.contains(&discovery.issuer) {
        return Err(DocumentError::Issuer(discovery.issuer));
    }
    if !is_safe(&discovery.jwks_uri) {
        return Err(DocumentError::KeysUrl(discovery.jwks_uri));
    }
    Ok(discovery.jwks_uri)
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Key {
    kid: String,
    kty: String,
    n: String,
    e: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    issuer: Option<String>,
}

/// Returns the keys of a key set that may sign tokens of the `issuers`. `tenant` replaces `{tenantid}` in the issuer of a key.
///
/// Unknown keys are left out: a set may hold other kinds of keys, for other purposes. Keys with their own issuer are also left out if that
/// issuer is not accepted. In Entra ID's set for all tenants, some keys are for personal accounts only, and must not be accepted for this
/// tenant (Microsoft's page "Access tokens in the Microsoft identity platform", "Validate the issuer").
///
/// # Errors
/// No key is left, or the document cannot be parsed.
pub(super) fn keys(document: &[u8], issuers: &[String], tenant: &str) -> Result<Keys, DocumentError> {
    let set: Set = serde_json::from_slice(document).map_err(unreadable)?;
    let usable = set.keys.into_iter().filter_map(|key| usable(key, issuers, tenant));
    let keys: Keys = usable.collect();
    if keys.is_empty() { Err(DocumentError::NoKeys) } else { Ok(keys) }
}

fn usable(key: Value, issuers: &[String], tenant: &str) -> Option<(String, DecodingKey)> {
    let key: Key = serde_json::from_value(key).ok()?;
    let is_for_signatures = key.usage.is_none_or(|usage| usage == "sig");
    let is_for_rs256 = key.kty == "RSA" && key.alg.is_none_or(|alg| alg == "RS256");
    let is_for_us = key.issuer.is_none_or(|issuer| issuers.contains(&issuer.replace("{tenantid}", tenant)));
    if !(is_for_signatures && is_for_rs256 && is_for_us) {
        return None;
    }
    // A modulus under 2,048 bits is refused by aws-lc when it is used.
    Some((key.kid, DecodingKey::from_rsa_components(&key.n, &key.e).ok()?))
}

fn unreadable(error: serde_json::Error) -> DocumentError {
    DocumentError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TENANT: &str = "fa15d692-e9c7-4460-a743-29f2956fd429";

    fn issuers() -> Vec<String> {
        vec![
            format!("https://sts.windows.net/{TENANT}/"),
            format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        ]
    }

    #[test]
    fn only_keys_for_signatures_of_our_issuers_are_taken() {
        let issuer = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
        let key = |kid: &str| json!({"kty": "RSA", "use": "sig", "kid": kid, "n": "AQAB", "e": "AQAB"});
        let with = |kid: &str, name: &str, value: &str| {
            let mut key = key(kid);
            key[name] = value.into();
            key
        };
        let set = json!({"keys": [
            key("plain"),
            with("any tenant", "issuer", &issuer("{tenantid}")),
            with("our tenant", "issuer", &issuer(TENANT)),
            with("named algorithm", "alg", "RS256"),
            with("for encryption", "use", "enc"),
            with("another algorithm", "alg", "RS512"),
            with("another kind", "kty", "EC"),
            with("personal accounts", "issuer", &issuer("9188040d-6c67-4c5b-b112-36a304b66dad")),
            with("no base64", "n", "?"),
            json!({"kty": "EC", "kid": "curve", "crv": "P-256", "x": "AQAB", "y": "AQAB"}),
            json!("nonsense"),
        ]});
        let found = keys(set.to_string().as_bytes(), &issuers(), TENANT).unwrap();
        let found: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(found, ["any tenant", "named algorithm", "our tenant", "plain"]);
    }

    #[test]
    fn a_set_without_usable_keys_is_no_set() {
        for set in [json!({"keys": []}), json!({"keys": [{"kty": "EC", "kid": "a"}]})] {
            let found = keys(set.to_string().as_bytes(), &issuers(), TENANT).err();
            assert_eq!(found, Some(DocumentError::NoKeys));
        }
        for text in ["", "<html>", "{}", r#"{"keys": 1}"#] {
            let found = keys(text.as_bytes(), &issuers(), TENANT).err();
            assert!(matches!(found, Some(DocumentError::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn discovery_is_believed_about_its_own_issuer_only() {
        let of = |issuer: &str, url: &str| {
            keys_url(json!({"issuer": issuer, "jwks_uri": url}).to_string().as_bytes(), &issuers())
        };
        let [ours, ..] = &issuers()[..] else { unreachable!() };
        let url = "https://login.microsoftonline.com/common/discovery/keys";
        assert_eq!(of(ours, url), Ok(url.to_owned()));
        let local = "http://127.0.0.1:8080/keys";
        assert_eq!(of(ours, local), Ok(local.to_owned()));
        assert_eq!(
            of("https://evil.example/", url),
            Err(DocumentError::Issuer("https://evil.example/".to_owned()))
        );
        for url in [
            "http://login.microsoftonline.com/keys",
            "file:///etc/keys",
            "keys",
            "http://127.0.0.1.evil.example/",
        ] {
            assert_eq!(of(ours, url), Err(DocumentError::KeysUrl(url.to_owned())));
        }
    }
}
