//! The accepted tokens, and the identities that may read.

use std::collections::BTreeSet;

use super::key_set::is_safe;
use crate::config::is_guid;

/// The audience that all official clients request from Entra ID (Microsoft's page "Control access to IoT Hub using Microsoft Entra ID"; it
/// is fixed in `fromTokenCredential` of Node's client and `AzureIdentityCredentialAdapter` of Python's client).
const AUDIENCE: &str = "https://iothubs.azure.net";
/// Address of Entra ID, outside of sovereign clouds.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// The accepted tokens, and the identities that may read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant's id.
    pub tenant: String,
    /// Address of Entra ID. Sovereign clouds have another one, such as `https://login.microsoftonline.us`.
    pub authority: String,
    /// The accepted audiences. A token needs one of them. A trailing slash makes no difference.
    pub audiences: Vec<String>,
    /// The accepted issuers. Empty: those of the tenant, which are `https://sts.windows.net/{tenant}/` for tokens of version 1 and
    /// `{authority}/{tenant}/v2.0` for tokens of version 2.
    pub issuers: Vec<String>,
    /// Address of the keys. `None`: from the issuers' discovery documents.
    pub keys_url: Option<String>,
    /// Allowed roles of an application: a token must have one of them in `roles`. Case-sensitive.
    pub roles: BTreeSet<String>,
    /// Object ids of applications, managed identities and people that need no role.
    pub principals: BTreeSet<String>,
}

impl Settings {
    /// Settings for the official clients. No identity is allowed yet: that needs a role or a principal.
    pub fn new(tenant: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            authority: AUTHORITY.to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            issuers: Vec::new(),
            keys_url: None,
            roles: BTreeSet::new(),
            principals: BTreeSet::new(),
        }
    }

    /// # Errors
    /// The settings cannot work.
    pub(super) fn check(&self) -> Result<Checked, SettingsError> {
        let tenant = self.tenant.to_ascii_lowercase();
        if !is_guid(&tenant) {
            return Err(SettingsError::Tenant(self.tenant.clone()));
        }
        let authority = self.authority.trim_end_matches('/');
        let others = self.keys_url.iter().chain(&self.issuers).map(String::as_str);
        if let Some(address) = std::iter::once(authority).chain(others).find(|address| !is_safe(address)) {
            return Err(SettingsError::Address(address.to_owned()));
        }
        let audiences: Vec<_> = self.audiences.iter().map(|name| without_slash(name).to_owned()).collect();
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(SettingsError::Audiences);
        }
        if let Some(principal) = self.principals.iter().find(|principal| !is_guid(principal)) {
            return Err(SettingsError::Principal(principal.clone()));
        }
        let principals = self.principals.iter().map(|id| id.to_ascii_lowercase()).collect();
        let (issuers, discovery) = match self.issuers.as_slice() {
            // Both documents are at the authority (the page "Access tokens in the Microsoft identity platform"), so a firewall has to allow
            // one host only.
            [] => {
                let version_2 = format!("{authority}/{tenant}/v2.0");
                let discovery = vec![format!("{authority}/{tenant}"), version_2.clone()];
                (vec![format!("https://sts.windows.net/{tenant}/"), version_2], discovery)
            }
            issuers => (issuers.to_vec(), issuers.to_vec()),
        };
        let discovery = match self.keys_url {
            Some(_) => vec![],
            None => discovery.iter().map(|issuer| document(issuer)).collect(),
        };
        Ok(Checked { tenant, issuers, audiences, principals, discovery })
    }
}

/// Checked settings.
#[derive(Debug)]
pub(super) struct Checked {
    /// In lower case.
    pub(super) tenant: String,
    pub(super) issuers: Vec<String>,
    /// Without the trailing slash.
    pub(super) audiences: Vec<String>,
    /// In lower case.
    pub(super) principals: BTreeSet<String>,
    /// Addresses of the documents that contain the address of the keys.
    pub(super) discovery: Vec<String>,
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The tenant is not an id. Tokens contain the id, so a name would never match.
    #[error("the tenant {0:?} is not an id: `az account show --query tenantId` prints it")]
    Tenant(String),
    /// The address is not https. A party that can change its answers could admit any client.
    #[error("{0:?} is not an https address")]
    Address(String),
    /// There is no audience. A token without a matching audience is for another service.
    #[error("there is no audience: leave the setting out for {AUDIENCE}")]
    Audiences,
    /// The principal is not an object id. A name is not accepted.
    #[error("the principal {0:?} is not an object id: `az ad sp show --id CLIENT_ID --query id` prints it")]
    Principal(String),
}

/// Address of an issuer's discovery document (OpenID Connect Discovery 1.0, 4).
fn document(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", without_slash(issuer))
}

/// An audience without the trailing slash, which makes no difference.
pub(super) fn without_slash(audience: &str) -> &str {
    audience.strip_suffix('/').unwrap_or(audience)
}
