//! A test issuer: its keys, its tokens, and a way to fetch from it.

use std::{
    collections::BTreeMap,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize, PublicKeyComponents},
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Fetch, FetchError};

pub(super) const TENANT: &str = "fa15d692-e9c7-4460-a743-29f2956fd429";

/// Two keys of the issuer, and one of another issuer. Creating one takes a while, so all tests share them.
pub(super) static OLD: LazyLock<Signer> = LazyLock::new(|| Signer::new("old"));
pub(super) static NEW: LazyLock<Signer> = LazyLock::new(|| Signer::new("new"));
pub(super) static FOREIGN: LazyLock<Signer> = LazyLock::new(|| Signer::new("old"));

pub(super) struct Signer {
    id: &'static str,
    pair: KeyPair,
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and claims, in the form that is signed.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    pub(super) fn public(&self) -> PublicKeyComponents<Vec<u8>> {
        self.pair.public_key().into()
    }

    /// The key in the form of a key set.
    pub(super) fn jwk(&self) -> Value {
        let PublicKeyComponents { n, e } = self.public();
        json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": base64(n), "e": base64(e)})
    }

    pub(super) fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": "RS256", "x5t": self.id, "kid": self.id})
    }

    /// A token with these claims.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.signed(&unsigned(&self.header(), claims), &RSA_PKCS1_SHA256)
    }

    pub(super) fn token_by_rs512(&self, header: &Value, claims: &Value) -> String {
        self.signed(&unsigned(header, claims), &RSA_PKCS1_SHA512)
    }

    pub(super) fn signed(&self, text: &str, by: &'static dyn RsaEncoding) -> String {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(by, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", base64(signature))
    }
}

pub(super) fn key_set(keys: &[&Signer]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

/// The behaviour of a server.
#[derive(Debug, Clone)]
pub(super) enum Does {
    Answer(Value),
    Fail,
    Hang,
    Panic,
}

/// A fetcher with scripted results, which counts the calls.
#[derive(Default)]
pub(super) struct Scripted {
    does: Mutex<BTreeMap<String, Does>>,
    calls: AtomicUsize,
}

impl Scripted {
    pub(super) fn set(&self, url: &str, does: Does) {
        self.does.lock().unwrap().insert(url.to_owned(), does);
    }

    /// Number of requests.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Fetch for Scripted {
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let does = self.does.lock().unwrap().get(url).cloned();
        match does.unwrap_or(Does::Fail) {
            Does::Answer(document) => {
                // Other tasks get their turn, as they do during a network request.
                tokio::task::yield_now().await;
                Ok(document.to_string().into_bytes())
            }
            Does::Fail => Err(FetchError::Status(500)),
            Does::Hang => std::future::pending().await,
            Does::Panic => panic!("as the test wants it"),
        }
    }
}
