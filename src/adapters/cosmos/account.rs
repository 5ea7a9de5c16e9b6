//! The properties of a Cosmos DB account, and whether the copy can be correct on it.
//!
//! Two properties of the account decide that, and no answer to a request on a document contains them. The SDK
//! (azure_data_cosmos 1.0) reads both for its own use but does not expose them. So the account is asked once more, at
//! start, through the service's REST API and with the same credential.
//!
//! | property | why it matters |
//! |---|---|
//! | `userConsistencyPolicy.defaultConsistencyLevel` | if it is weaker than *Session*, a read after a write may not see what was written before it: modules would outlive their device (`docs/adr/0002`, `docs/adr/0005`) |
//! | `enableMultipleWriteLocations` | a condition on a write holds within one region; across regions the last writer wins silently |

use std::{fmt, time::Duration};

use azure_data_cosmos::options::{ExcludedRegions, Region};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
    redirect::Policy,
};
use serde::Deserialize;
use sha2::Sha256;
use url::Url;

use super::{
    super::credential::{NoToken, one_line},
    Access, ConnectError,
};

/// The scope of an Entra ID token, as the SDK requests it.
pub(super) const SCOPE: &str = "https://cosmos.azure.com/.default";
/// The version of the service's REST API that the SDK uses.
const API_VERSION: &str = "2020-07-15";
/// The maximum size of an answer in bytes; an account with all Azure regions is far smaller.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The properties that are needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account {
    #[serde(default)]
    user_consistency_policy: Option<ConsistencyPolicy>,
    #[serde(default)]
    enable_multiple_write_locations: bool,
    writable_locations: Vec<Location>,
    #[serde(default)]
    readable_locations: Vec<Location>,
}

/// Why the properties of an account are unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Untold {
    /// There is no token for the request.
    NoToken(NoToken),
    /// The account refuses the request.
    Refused(String),
    /// There is no usable answer; the text says why.
    Silent(String),
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken(reason) => reason.fmt(f),
            Self::Refused(reason) | Self::Silent(reason) => f.write_str(reason),
        }
    }
}

impl Untold {
    /// As the error of a connection that needs the properties.
    pub(super) fn into_error(self, endpoint: &Url) -> ConnectError {
        let endpoint = endpoint.to_string();
        match self {
            Self::NoToken(reason) => ConnectError::NoToken { endpoint, reason },
            Self::Refused(reason) => ConnectError::Refused { endpoint, reason },
            Self::Silent(reason) => ConnectError::Unreachable { endpoint, reason },
        }
    }
}

impl From<String> for Untold {
    fn from(reason: String) -> Self {
        Self::Silent(reason)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsistencyPolicy {
    default_consistency_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Location {
    name: String,
}

impl Account {
    /// Asks the account. Limited by `limit` and without retries, because the start does not depend on it.
    ///
    /// # Errors
    /// There is no usable answer; the error says why, in one line without secrets.
    pub(super) async fn ask(endpoint: &Url, access: &Access, limit: Duration) -> Result<Self, Untold> {
        match tokio::time::timeout(limit, Self::get(endpoint, access)).await {
            Ok(result) => result,
            Err(_) => Err(Untold::Silent(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    async fn get(endpoint: &Url, access: &Access) -> Result<Self, Untold> {
        let client = Client::builder()
            .user_agent(concat!("twinsync/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none()) // a redirect would also receive the credential
            .build()
            .map_err(|error| one_line(&error))?;
        let date = azure_core::time::to_rfc7231(&azure_core::time::OffsetDateTime::now_utc());
        let mut authorization = HeaderValue::from_str(&authorization(access, &date).await?)
            .map_err(|_| "the credential has characters that are not allowed in an HTTP header".to_owned())?;
        authorization.set_sensitive(true);
        let request = client
            .get(endpoint.clone())
            .header(AUTHORIZATION, authorization)
            .header("x-ms-date", date)
            .header("x-ms-version", API_VERSION);
        let lost = |error: reqwest::Error| one_line(&error.without_url());
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(Untold::Refused(format!("the account answered with {status}")));
        }
        if !status.is_success() {
            return Err(format!("the account answered with {status}").into());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes").into());
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer cannot be parsed: {error}").into())
    }

    /// The default consistency, as the account reports it.
    pub(super) fn level(&self) -> Option<&str> {
        self.user_consistency_policy.as_ref().map(|policy| policy.default_consistency_level.as_str())
    }

    /// The regions that accept writes, for people.
    pub(super) fn write_regions(&self) -> String {
        self.writable_locations.iter().map(Location::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Checks that reads with Session consistency see what was written before them.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check_consistency(&self, endpoint: &Url) -> Result<(), ConnectError> {
        match self.level() {
            Some("Strong" | "BoundedStaleness" | "Session") => Ok(()),
            Some(level @ ("ConsistentPrefix" | "Eventual")) => {
                Err(ConnectError::Consistency { endpoint: endpoint.to_string(), level: level.to_owned() })
            }
            // Session is the default of new accounts, and each read asks for it.
            unknown => {
                tracing::warn!(
                    level_of_account = unknown.unwrap_or("none"),
                    code = "COSMOS_CONSISTENCY",
                    "the Cosmos DB account reports no consistency level that twinsync knows: twinsync needs Session or stronger"
                );
                Ok(())
            }
        }
    }

    /// The regions that must not be used, so that all writes and the reads before them are in one region.
    ///
    /// # Errors
    /// Several regions accept writes, and it is unknown which one we should use.
    pub(super) fn pin(
        &self,
        endpoint: &Url,
        region: Option<&str>,
    ) -> Result<Option<ExcludedRegions>, ConnectError> {
        let refused = || ConnectError::MultiWrite {
            endpoint: endpoint.to_string(),
            regions: self.write_regions(),
            named: region.map_or_else(
                || "cosmos.write_region is not set".to_owned(),
                |region| format!("cosmos.write_region = {region:?} is not one of them"),
            ),
        };
        match (self.enable_multiple_write_locations, region) {
            (false, _) => Ok(None), // a failover moves the only write region, and every client follows
            (true, None) => Err(refused()),
            (true, Some(name)) => {
                let pinned = Region::from(name.to_owned());
                if !self.writable_locations.iter().any(|location| location.region() == pinned) {
                    return Err(refused());
                }
                let all = self.writable_locations.iter().chain(&self.readable_locations);
                let others = all.map(Location::region).filter(|region| *region != pinned);
                Ok(Some(others.fold(ExcludedRegions::new(), ExcludedRegions::with_region)))
            }
        }
    }
}

impl Location {
    fn region(&self) -> Region {
        Region::from(self.name.clone())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The value of the `Authorization` header, as defined on Microsoft's page "Access control on Azure Cosmos DB
/// resources".
async fn authorization(access: &Access, date: &str) -> Result<String, Untold> {
    let plain = match access {
        Access::Key(key) => format!("type=master&ver=1.0&sig={}", sign(key, date)?),
        Access::Token(credential) => {
            let token = credential.get_token(&[SCOPE], None).await;
            let token = token.map_err(|error| match NoToken::find(&error) {
                Some(reason) => Untold::NoToken(reason.clone()),
                None => format!("no token for Cosmos DB: {}", one_line(&error)).into(),
            })?;
            format!("type=aad&ver=1.0&sig={}", token.token.secret())
        }
    };
    Ok(url::form_urlencoded::byte_serialize(plain.as_bytes()).collect())
}

/// Signs a read of the account, whose resource type and link are empty.
fn sign(key: &str, date: &str) -> Result<String, String> {
    let key = STANDARD.decode(key).map_err(|_| "the key is not base64".to_owned())?;
    let mut keyed = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "the key cannot sign".to_owned())?;
    keyed.update(format!("get\n\n\n{}\n\n", date.to_ascii_lowercase()).as_bytes());
    Ok(STANDARD.encode(keyed.finalize().into_bytes()))
}

#[cfg(test)]
mod tests;
