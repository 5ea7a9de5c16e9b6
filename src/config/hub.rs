//! IoT hubs as people write them: host names and connection strings.

use std::collections::BTreeMap;

use base64::Engine as _;
use url::Url;

use super::{
    secret::Secret,
    settings::{Hub, HubAccess},
};
use crate::domain::id::HubName;

const EXAMPLE: &str = "write e.g. \"contoso.azure-devices.net\"";
const WHERE: &str = "copy the connection string of a policy with the permission ServiceConnect, such as `service`, from the \
                     hub's page of shared access policies";

const SEVERAL: &str = "has several addresses without the names of their hubs: write one for all hubs, or e.g. \
                       \"contoso=http://127.0.0.1:8091, fabrikam=http://127.0.0.1:8092\"";

/// The items of a list that is separated by commas or blanks. Neither host names nor connection strings contain these.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character == ',' || character.is_whitespace())
        .filter(|item| !item.is_empty())
}

/// The hub at a host, accessed with the identity of the process.
///
/// # Errors
/// One sentence that says what to write. Connection strings are not repeated, because they contain a key.
pub(super) fn of_host(text: &str) -> Result<Hub, String> {
    let lower = text.to_ascii_lowercase();
    if lower.contains("sharedaccesskey") || lower.starts_with("hostname=") {
        return Err(format!("has a connection string: {EXAMPLE}, or use iothub.connection_strings"));
    }
    hub(text, HubAccess::Credential)
}

/// The hub of a connection string of a shared access policy.
///
/// # Errors
/// One sentence that says what to write. Of the text, it repeats only the hub's host.
pub(super) fn of_connection_string(text: &str) -> Result<Hub, String> {
    let PolicyString { host, name, key } = PolicyString::parse(text, WHERE)?;
    hub(&host, HubAccess::Policy { name, key })
}

/// The parts of a connection string of a shared access policy.
pub(super) struct PolicyString {
    /// `HostName`, as it is written.
    pub(super) host: String,
    /// `SharedAccessKeyName`.
    pub(super) name: String,
    /// `SharedAccessKey`: base64.
    pub(super) key: Secret,
}

impl PolicyString {
    /// # Errors
    /// One sentence that ends with `advice`. It repeats nothing of the text.
    pub(super) fn parse(text: &str, advice: &str) -> Result<Self, String> {
        let (mut host, mut policy, mut key) = (None, None, None);
        for part in text.split(';').filter(|part| !part.is_empty()) {
            // Split at the first one only: base64 ends with equal signs.
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("has a part without \"=\": {advice}"));
            };
            let slot = match name.to_ascii_lowercase().as_str() {
                "hostname" => &mut host,
                "sharedaccesskeyname" => &mut policy,
                "sharedaccesskey" => &mut key,
                "deviceid" | "moduleid" => {
                    return Err(format!(
                        "has the connection string of a single device, which cannot read others: {advice}"
                    ));
                }
                "endpoint" | "entitypath" => {
                    return Err(format!(
                        "has a connection string of Event Hubs, not of the IoT hub: {advice}"
                    ));
                }
                "sharedaccesssignature" => {
                    return Err(format!(
                        "has a connection string with a signature, which would expire: {advice}"
                    ));
                }
                _ => {
                    return Err(format!(
                        "has a part that does not belong in a connection string of an IoT hub: {advice}"
                    ));
                }
            };
            if slot.replace(value).is_some() {
                return Err(format!(
                    "has a connection string in which a part appears twice (separate several connection strings by commas): {advice}"
                ));
            }
        }
        let present = |part: Option<&str>, name: &str| match part {
            None | Some("") => Err(format!("has a connection string without {name}: {advice}")),
            Some(value) => Ok(value.to_owned()),
        };
        let host = present(host, "HostName")?;
        let name = present(policy, "SharedAccessKeyName")?;
        let key = present(key, "SharedAccessKey")?;
        match base64::engine::general_purpose::STANDARD.decode(&key) {
            Ok(_) => Ok(Self { host, name, key: Secret::new(key) }),
            Err(_) => Err(format!("has a key that is not base64: {advice}")),
        }
    }
}

fn hub(host: &str, access: HubAccess) -> Result<Hub, String> {
    if host.contains("://") || host.contains(['/', ':']) {
        return Err(format!("{host:?} is a URL: {EXAMPLE}"));
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !host.split('.').all(label) {
        return Err(format!("{host:?} is not a host name: {EXAMPLE}"));
    }
    match host.split_once('.') {
        Some((name, _)) => {
            Ok(Hub { name: name.into(), host: host.to_ascii_lowercase(), endpoint: None, access })
        }
        None => Err(format!("{host:?} is not fully qualified: write e.g. \"{host}.azure-devices.net\"")),
    }
}

/// Addresses of emulators that are used instead of hubs.
#[derive(Debug)]
pub(super) enum Endpoints {
    /// One emulator for all hubs. It distinguishes them by the `Host` header.
    OfAll(Url),
    /// Emulators of the named hubs.
    Of(BTreeMap<HubName, Url>),
}

impl Endpoints {
    /// No emulators.
    pub(super) const NONE: Self = Self::Of(BTreeMap::new());

    /// The address to use for a hub, if it has an emulator.
    pub(super) fn of(&self, hub: &HubName) -> Option<&Url> {
        match self {
            Self::OfAll(url) => Some(url),
            Self::Of(urls) => urls.get(hub),
        }
    }

    /// All addresses.
    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        let (of_all, of) = match self {
            Self::OfAll(url) => (Some(url), None),
            Self::Of(urls) => (None, Some(urls.values())),
        };
        of_all.into_iter().chain(of.into_iter().flatten())
    }

    /// The hubs that have their own address.
    pub(super) fn names(&self) -> impl Iterator<Item = &HubName> {
        match self {
            Self::OfAll(_) => None,
            Self::Of(urls) => Some(urls.keys()),
        }
        .into_iter()
        .flatten()
    }
}

/// Parses one address for all hubs, or `NAME=ADDRESS` for each.
///
/// # Errors
/// One sentence that says what to write.
pub(super) fn endpoints(text: &str) -> Result<Endpoints, String> {
    let mut named = BTreeMap::new();
    let mut of_all = None;
    for item in items(text) {
        // The first equal sign inside an address comes after its scheme.
        match item.split_once('=').filter(|(name, _)| !name.contains(':')) {
            Some((name, address)) => {
                // For a host, its first label is the name.
                let name = HubName::new(name.split('.').next().unwrap_or(name));
                if named.insert(name.clone(), endpoint(address)?).is_some() {
                    return Err(format!("has two addresses for the hub \"{name}\": one is enough"));
                }
            }
            None if of_all.replace(endpoint(item)?).is_some() => {
                return Err(SEVERAL.to_owned());
            }
            None => {}
        }
    }
    match of_all {
        Some(_) if !named.is_empty() => Err(SEVERAL.to_owned()),
        Some(url) => Ok(Endpoints::OfAll(url)),
        None => Ok(Endpoints::Of(named)),
    }
}

/// Parses the address of an emulator.
fn endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"http://127.0.0.1:8090\", or leave it out for Azure";
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}): {EXAMPLE}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user name or password: {EXAMPLE}"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text:?} is not an http address: {EXAMPLE}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} contains more than an address: {EXAMPLE}"));
    }
    Ok(url)
}
