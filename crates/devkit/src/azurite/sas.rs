//! Shared access signatures for Azurite's only account, whose key is public.
//!
//! The strings to sign are those of Azure Storage's REST reference, "Create an account SAS" and "Create a service SAS",
//! for version 2020-12-06 and later.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use time::{Duration, OffsetDateTime};
use url::form_urlencoded;

/// The development account.
pub(super) const ACCOUNT: &str = "devstoreaccount1";

/// The key of the account, as published by Microsoft. It is valid for emulators only.
const KEY: &[u8] =
    b"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The API version whose rules the signatures follow.
const VERSION: &str = "2021-12-02";

/// The permissions of a signature. The service requires their letters in the order `racwdl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// Read and list.
    Read,
    /// Everything that can be done with blobs: read, add, create, write, delete, list.
    All,
}

impl Permissions {
    fn letters(self) -> &'static str {
        match self {
            Self::Read => "rl",
            Self::All => "racwdl",
        }
    }
}

/// How long a signature is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For a year.
    Good,
    /// It expired an hour ago.
    Expired,
}

impl Validity {
    /// The time of expiry in the form `2031-05-04T10:00:00Z`.
    fn end(self) -> String {
        let now = OffsetDateTime::now_utc();
        let end = match self {
            Self::Good => now + Duration::days(365),
            Self::Expired => now - Duration::hours(1),
        };
        let (date, time) = (end.date(), end.time());
        format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
    }
}

/// The query string of a signature for the account's blob service, with all permissions for containers and blobs.
pub(super) fn account(validity: Validity) -> String {
    let (permissions, services, types, end) = ("rwdlac", "b", "sco", validity.end());
    let (start, address, protocol, encryption_scope) = ("", "", "http,https", "");
    let fields = [
        ACCOUNT,
        permissions,
        services,
        types,
        start,
        &end,
        address,
        protocol,
        VERSION,
        encryption_scope,
        "", // each field ends with a line feed, the last one as well
    ];
    let signature = sign(&fields.join("\n"));
    query(&[
        ("sv", VERSION),
        ("ss", services),
        ("srt", types),
        ("sp", permissions),
        ("se", &end),
        ("spr", protocol),
        ("sig", &signature),
    ])
}

/// The query string of a signature for the blobs of one container.
pub(super) fn container(container: &str, permissions: Permissions, validity: Validity) -> String {
    let (resource, protocol, end) = ("c", "http,https", validity.end());
    let canonical = format!("/blob/{ACCOUNT}/{container}");
    let (start, policy, address, snapshot, encryption_scope) = ("", "", "", "", "");
    let no_response_headers = ["", "", "", "", ""];
    let fields = [
        permissions.letters(),
        start,
        &end,
        &canonical,
        policy,
        address,
        protocol,
        VERSION,
        resource,
        snapshot,
        encryption_scope,
    ];
    let signature = sign(&[&fields[..], &no_response_headers].concat().join("\n"));
    query(&[
        ("sv", VERSION),
        ("sr", resource),
        ("sp", permissions.letters()),
        ("se", &end),
        ("spr", protocol),
        ("sig", &signature),
    ])
}

fn sign(text: &str) -> String {
    let key = STANDARD.decode(KEY).expect("the published key is base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
