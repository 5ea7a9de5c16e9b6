//! IoT hubs as people write them: host names, connection strings.

use base64::Engine as _;
use url::Url;

use super::{
    secret::Secret,
    settings::{Hub, HubAccess},
};

const EXAMPLE: &str = "write e.g. \"contoso.azure-devices.net\"";
const WHERE: &str = "copy the connection string of a policy with the permission ServiceConnect, such as `service`, from the \
                     hub's page of shared access policies";

/// The items of a list that commas or blanks separate. Neither host names nor connection strings hold any.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character == ',' || character.is_whitespace())
        .filter(|item| !item.is_empty())
}

/// The hub at a host, for the identity of the process.
///
/// # Errors
/// One sentence that says what to write. Connection strings are not repeated: they hold a key.
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
/// One sentence that says what to write, and nothing of what was written but the hub's host.
pub(super) fn of_connection_string(text: &str) -> Result<Hub, String> {
    let (mut host, mut policy, mut key) = (None, None, None);
    for part in text.split(';').filter(|part| !part.is_empty()) {
        // Only the first: base64 ends with equal signs.
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("has a part without \"=\": {WHERE}"));
        };
        let slot = match name.to_ascii_lowercase().as_str() {
            "hostname" => &mut host,
            "sharedaccesskeyname" => &mut policy,
            "sharedaccesskey" => &mut key,
            "deviceid" | "moduleid" => {
                return Err(format!(
                    "has the connection string of a single device, which cannot read others: {WHERE}"
                ));
            }
            "endpoint" | "entitypath" => {
                return Err(format!("has a connection string of Event Hubs, not of the IoT hub: {WHERE}"));
            }
            "sharedaccesssignature" => {
                return Err(format!("has a connection string with a signature, which would expire: {WHERE}"));
            }
            _ => return Err(format!("has a part that no connection string of an IoT hub has: {WHERE}")),
        };
        if slot.replace(value).is_some() {
            return Err(format!(
                "has a connection string with a part twice (separate several by commas): {WHERE}"
            ));
        }
    }
    let present = |part: Option<&str>, name: &str| match part {
        None | Some("") => Err(format!("has a connection string without {name}: {WHERE}")),
        Some(value) => Ok(value.to_owned()),
    };
    let host = present(host, "HostName")?;
    let name = present(policy, "SharedAccessKeyName")?;
    let key = present(key, "SharedAccessKey")?;
    if base64::engine::general_purpose::STANDARD.decode(&key).is_err() {
        return Err(format!("has a key that is not base64: {WHERE}"));
    }
    hub(&host, HubAccess::Policy { name, key: Secret::new(key) })
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
        Some((name, _)) => Ok(Hub { name: name.to_owned(), host: host.to_ascii_lowercase(), access }),
        None => Err(format!("{host:?} is not fully qualified: write e.g. \"{host}.azure-devices.net\"")),
    }
}

/// An emulator's address.
///
/// # Errors
/// One sentence that says what to write.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"http://127.0.0.1:8090\", or leave it out for Azure";
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}): {EXAMPLE}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("holds a user or password: {EXAMPLE}"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text:?} is not an http address: {EXAMPLE}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has more than an address: {EXAMPLE}"));
    }
    Ok(url)
}
