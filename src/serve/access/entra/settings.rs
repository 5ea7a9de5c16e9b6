//! Which tokens are accepted, and whom they let in.

use std::collections::BTreeSet;

use super::key_set::is_safe;
use crate::config::is_guid;

/// The audience that all official clients ask Entra ID for (Microsoft's page "Control access to IoT Hub using Microsoft
/// Entra ID"; `fromTokenCredential` of Node's and `AzureIdentityCredentialAdapter` of Python's client have it fixed).
const AUDIENCE: &str = "https://iothubs.azure.net";
/// Where Entra ID is, outside of sovereign clouds.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Which tokens are accepted, and whom they let in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant's id.
    pub tenant: String,
    /// Where Entra ID is. Sovereign clouds have another, as `https://login.microsoftonline.us`.
    pub authority: String,
    /// Whom tokens are for. One is enough; a slash at the end makes no difference.
    pub audiences: Vec<String>,
    /// The issuers. Empty: those of the tenant, which are `https://sts.windows.net/{tenant}/` for tokens of version 1 and
    /// `{authority}/{tenant}/v2.0` for tokens of version 2.
    pub issuers: Vec<String>,
    /// Where the keys are; `None`: where the issuers' discovery documents say.
    pub keys_url: Option<String>,
    /// Roles of an application, of which a token must have one in `roles`. Case counts.
    pub roles: BTreeSet<String>,
    /// Object ids of applications, managed identities and people that need no role.
    pub principals: BTreeSet<String>,
}

impl Settings {
    /// What holds for the official clients. Nobody is let in yet: that takes a role or a principal.
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
            // Both documents are at the authority (the page "Access tokens in the Microsoft identity platform"), so that a
            // firewall has to let through one host only.
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

/// What settings mean.
#[derive(Debug)]
pub(super) struct Checked {
    /// In lower case.
    pub(super) tenant: String,
    pub(super) issuers: Vec<String>,
    /// Without the slash at the end.
    pub(super) audiences: Vec<String>,
    /// In lower case.
    pub(super) principals: BTreeSet<String>,
    /// Where the documents are that say where the keys are.
    pub(super) discovery: Vec<String>,
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Tokens carry the id, so that a name would match none.
    #[error("the tenant {0:?} is not an id: `az account show --query tenantId` tells it")]
    Tenant(String),
    /// Whoever can change what this address answers could let anybody in.
    #[error("{0:?} is not an https address")]
    Address(String),
    /// A token without a matching audience is a token for somebody else.
    #[error("there is no audience: leave the setting out for {AUDIENCE}")]
    Audiences,
    /// An object id is an id, and no name.
    #[error("the principal {0:?} is not an object id: `az ad sp show --id CLIENT_ID --query id` tells it")]
    Principal(String),
}

/// Where the discovery document of an issuer is (OpenID Connect Discovery 1.0, 4).
fn document(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", without_slash(issuer))
}

/// An audience without the slash at its end, which makes no difference.
pub(super) fn without_slash(audience: &str) -> &str {
    audience.strip_suffix('/').unwrap_or(audience)
}
