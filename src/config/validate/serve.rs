//! `[serve]`: who may read IoT Hub's API from the copy, and the limits.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use url::Url;

use super::values::{bounded_duration, choice, count, directory, positive_duration};
use super::{
    super::{
        hub::{self, PolicyString},
        human::is_guid,
        raw,
        secret::Secret,
        settings::{Encryption, Entra, IotHub, Policy, Serve},
    },
    Check,
};
use crate::domain::id::HubName;

/// The advice for `serve.connection_strings`.
const WRITE: &str = "write the connection string that clients use, \
                     HostName=twins.contoso.example;SharedAccessKeyName=dashboards;SharedAccessKey=KEY, with a key \
                     of your own: openssl rand -base64 32";
/// Minimum length of a key, in bytes. Keys that Azure generates have 32.
const KEY_MIN: usize = 16;
/// Maximum number of concurrent queries. Each may hold a page of large twins.
const QUERIES_MAX: u32 = 64;
/// Maximum number of rows in memory, of a few hundred bytes each.
const ROWS_MAX: u32 = 1_000_000;
/// Maximum time limit of a query. Clients give up later: Node's after four minutes, Python's after a minute and a half.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);

impl Check<'_> {
    /// `Some(None)`: the API is off.
    pub(super) fn serve(&mut self, raw: &raw::Serve, iothub: Option<&IotHub>) -> Option<Option<Serve>> {
        let listen = self.parse("serve.listen", &raw.listen, listen);
        let tls =
            self.parse("serve.tls", &raw.tls, |text| choice(text, &[("files", false), ("ingress", true)]));
        let policies = self.policies(raw);
        let hosts = self.parse("serve.hosts", &raw.hosts, |text| {
            hub::items(text).map(host).collect::<Result<Vec<_>, _>>()
        });
        let max_signature_lifetime =
            self.optional("serve.max_signature_lifetime", &raw.max_signature_lifetime, positive_duration);
        let hub = self.optional("serve.hub", &raw.hub, hub_name);
        let identity_fields = self.parse("serve.identity_fields", &raw.identity_fields, |text| {
            choice(text, &[("refuse", false), ("as_of_last_audit", true)])
        });
        let kept = |iothub: &IotHub| iothub.is_configured() && iothub.identity;
        if identity_fields == Some(true) && iothub.is_some_and(|iothub| !kept(iothub)) {
            self.problem(
                "serve.identity_fields",
                "\"as_of_last_audit\" needs documents that hold these fields: set iothub.identity = \"on\" and iothub.hosts or \
                 iothub.connection_strings, or use \"refuse\"",
            );
        }
        let entra = self.entra(raw);
        let max_request_units =
            self.parse("serve.max_request_units", &raw.max_request_units, |text| count(text, u32::MAX));
        let max_query_time = self.parse("serve.max_query_time", &raw.max_query_time, query_time);
        let max_rows_in_memory =
            self.parse("serve.max_rows_in_memory", &raw.max_rows_in_memory, |text| count(text, ROWS_MAX));
        let max_concurrent_queries =
            self.parse("serve.max_concurrent_queries", &raw.max_concurrent_queries, |text| {
                count(text, QUERIES_MAX)
            });
        let max_request_units_per_second =
            self.optional("serve.max_request_units_per_second", &raw.max_request_units_per_second, |text| {
                count(text, u32::MAX)
            });
        let (entra, (mut of_policies, policies), tls) = (entra?, policies?, tls?);
        if entra.is_none() && policies.is_empty() {
            return Some(None);
        }
        let encryption = self.encryption(raw, tls);
        let (hub, hub_host) = self.shown_hub(hub?, iothub?)?;
        of_policies.extend(hosts?);
        of_policies.sort();
        of_policies.dedup();
        Some(Some(Serve {
            listen: listen?,
            encryption: encryption?,
            hosts: of_policies,
            policies,
            max_signature_lifetime: max_signature_lifetime?,
            entra,
            hub,
            hub_host,
            identity_fields: identity_fields?,
            max_request_units: max_request_units?,
            max_query_time: max_query_time?,
            max_rows_in_memory: max_rows_in_memory?,
            max_concurrent_queries: max_concurrent_queries?,
            max_request_units_per_second: max_request_units_per_second?,
        }))
    }

    fn encryption(&mut self, raw: &raw::Serve, ingress: bool) -> Option<Encryption> {
        if ingress {
            if !(raw.certificate_file.is_empty() && raw.key_file.is_empty()) {
                self.problem(
                    "serve.tls",
                    "\"ingress\" leaves TLS to a proxy in front, but certificate files are set: use \"files\", or remove them",
                );
                return None;
            }
            return Some(Encryption::Ingress);
        }
        let mut file = |key: &str, text: &str| {
            let needed = |message| {
                format!(
                    "{message}: name a file in PEM, or set serve.tls = \"ingress\" if a proxy in front handles TLS"
                )
            };
            self.parse(key, text, |text| directory(text).map_err(needed))
        };
        let certificate = file("serve.certificate_file", &raw.certificate_file);
        let key = file("serve.key_file", &raw.key_file);
        Some(Encryption::Files { certificate: certificate?, key: key? })
    }

    /// The host names in connection strings, and their policies.
    fn policies(&mut self, raw: &raw::Serve) -> Option<(Vec<String>, Vec<Policy>)> {
        self.parse("serve.connection_strings", raw.connection_strings.expose(), |text| {
            let (mut hosts, mut policies) = (Vec::new(), Vec::<Policy>::new());
            for item in hub::items(text) {
                let PolicyString { host: name, name: policy, key } = PolicyString::parse(item, WRITE)?;
                hosts.push(host(&name)?);
                add(&mut policies, policy, key)?;
            }
            Ok((hosts, policies))
        })
    }

    /// The hub whose twins are shown, and its host if that is known.
    fn shown_hub(
        &mut self,
        hub: Option<HubName>,
        iothub: &IotHub,
    ) -> Option<(Option<HubName>, Option<String>)> {
        let known = |name: &HubName| iothub.hubs.iter().find(|hub| hub.name == *name);
        match (hub, iothub.hubs.as_slice()) {
            (None, []) => Some((None, None)),
            (None, [only]) => Some((Some(only.name.clone()), Some(only.host.clone()))),
            (None, [_, _, ..]) => {
                self.problem(
                    "serve.hub",
                    "is needed, since [iothub] names several hubs: say whose twins are shown",
                );
                None
            }
            (Some(name), []) => Some((Some(name), None)),
            (Some(name), [_, ..]) => match known(&name) {
                Some(hub) => Some((Some(name), Some(hub.host.clone()))),
                None => {
                    self.problem(
                        "serve.hub",
                        format!("{:?} is not one of the hubs in [iothub]", name.as_str()),
                    );
                    None
                }
            },
        }
    }

    /// `Some(None)`: no tokens are accepted.
    fn entra(&mut self, raw: &raw::Serve) -> Option<Option<Entra>> {
        let items = |text: &str| -> Vec<String> { hub::items(text).map(str::to_owned).collect() };
        let tenant = self.optional("serve.entra_tenant", &raw.entra_tenant, tenant);
        let authority = self.parse("serve.entra_authority", &raw.entra_authority, authority);
        let principals = self.parse("serve.entra_principals", &raw.entra_principals, |text| {
            hub::items(text).map(principal).collect::<Result<Vec<_>, _>>()
        });
        let (roles, audiences) = (items(&raw.entra_roles), items(&raw.entra_audiences));
        let Some(tenant) = tenant? else {
            if !(roles.is_empty() && raw.entra_principals.is_empty()) {
                self.problem(
                    "serve.entra_tenant",
                    "is needed for roles and principals: az account show --query tenantId",
                );
                return None;
            }
            return Some(None);
        };
        let (authority, principals) = (authority?, principals?);
        if audiences.is_empty() {
            self.problem("serve.entra_audiences", "is empty: leave it out for https://iothubs.azure.net");
            return None;
        }
        if roles.is_empty() && principals.is_empty() {
            self.problem(
                "serve.entra_tenant",
                "lets nobody in: name roles in serve.entra_roles or object ids in serve.entra_principals",
            );
            return None;
        }
        Some(Some(Entra { tenant, authority, audiences, roles, principals }))
    }
}

/// Adds a key to its policy, which may already exist.
fn add(policies: &mut Vec<Policy>, name: String, key: Secret) -> Result<(), String> {
    if STANDARD.decode(key.expose()).map_or(0, |bytes| bytes.len()) < KEY_MIN {
        return Err(format!("has a key of fewer than {KEY_MIN} bytes, which could be guessed: {WRITE}"));
    }
    if name.contains(|character: char| character.is_control() || matches!(character, '&' | '%')) {
        return Err(format!("has a policy name with a control character, a \"&\" or a \"%\": {WRITE}"));
    }
    match policies.iter_mut().find(|policy| policy.name == name) {
        None => policies.push(Policy { name, primary_key: key, secondary_key: None }),
        // The same policy under another host name.
        Some(policy) if policy.primary_key == key || policy.secondary_key.as_ref() == Some(&key) => {}
        Some(policy) if policy.secondary_key.is_none() => policy.secondary_key = Some(key),
        Some(_) => {
            return Err(format!(
                "has more than two keys for the policy {name:?}: two are enough for replacing a key"
            ));
        }
    }
    Ok(())
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an IP address with a port: write e.g. \"0.0.0.0:443\" or \"127.0.0.1:8443\"")
    })
}

/// A host name or address, without the port that some clients need in `HostName`.
fn host(text: &str) -> Result<String, String> {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let name = text.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(name, _)| name);
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match !name.is_empty() && name.bytes().all(is_of_a_name) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(format!("{text:?} is not a host name: write e.g. \"twins.contoso.example\"")),
    }
}

fn hub_name(text: &str) -> Result<HubName, String> {
    let name = text.split('.').next().unwrap_or(text);
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match !name.is_empty() && name.bytes().all(is_of_a_name) {
        true => Ok(HubName::new(name)),
        false => Err(format!("{text:?} is not the name of an IoT hub: write e.g. \"contoso\"")),
    }
}

fn query_time(text: &str) -> Result<Duration, String> {
    bounded_duration(text).and_then(|time| match time > QUERY_TIME_MAX {
        true => Err(format!(
            "{text:?} is too long: clients give up sooner; give at most \"{}s\"",
            QUERY_TIME_MAX.as_secs()
        )),
        false => Ok(time),
    })
}

fn tenant(text: &str) -> Result<String, String> {
    guid(text).ok_or_else(|| format!("{text:?} is not the id of a tenant: az account show --query tenantId"))
}

fn principal(text: &str) -> Result<String, String> {
    guid(text).ok_or_else(|| format!("{text:?} is not an object id: az ad sp show --id CLIENT_ID --query id"))
}

/// An id in lower case.
fn guid(text: &str) -> Option<String> {
    is_guid(text).then(|| text.to_ascii_lowercase())
}

/// Parses the address of the authority. A party that can change its answers could admit any client.
fn authority(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"https://login.microsoftonline.com\"";
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}): {EXAMPLE}"))?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && matches!(url.path(), "" | "/");
    match url.scheme() == "https" && url.host_str().is_some() && url.username().is_empty() && is_plain {
        true => Ok(url),
        false => Err(format!("is not an https address that ends with the host: {EXAMPLE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";
    const OTHER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn policies(keys: &[&str]) -> Result<Vec<Policy>, String> {
        let mut policies = Vec::new();
        for key in keys {
            add(&mut policies, "p".to_owned(), Secret::new(*key))?;
        }
        Ok(policies)
    }

    #[test]
    fn a_policy_may_have_two_keys_and_no_more() {
        let found = policies(&[KEY, OTHER, KEY]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].primary_key.expose(), found[0].secondary_key.as_ref().map(Secret::expose)),
            (KEY, Some(OTHER))
        );
        let third = policies(&[KEY, OTHER, "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="]).unwrap_err();
        assert!(third.contains("more than two keys"), "{third}");
        let short = policies(&["c2hvcnQ="]).unwrap_err();
        assert!(short.contains("fewer than 16 bytes") && !short.contains("c2hvcnQ"), "{short}");
    }

    #[test]
    fn a_host_is_a_name_with_or_without_a_port() {
        for (text, expected) in [
            ("Twins.Contoso.example", Some("twins.contoso.example")),
            ("localhost:8443", Some("localhost")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("https://a", None),
            ("a/b", None),
            (":443", None),
            ("a:", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn ids_of_entra_are_ids_and_its_address_is_https() {
        assert_eq!(
            tenant("FA15D692-e9c7-4460-a743-29f2956fd429").as_deref(),
            Ok("fa15d692-e9c7-4460-a743-29f2956fd429")
        );
        for text in ["contoso.onmicrosoft.com", "fa15d692e9c74460a74329f2956fd429", ""] {
            assert!(tenant(text).is_err() && principal(text).is_err(), "{text}");
        }
        assert!(authority("https://login.microsoftonline.us").is_ok());
        for text in ["http://a", "https://a/b", "https://u@a", "https://a?b", "a"] {
            assert!(authority(text).is_err(), "{text}");
        }
    }
}
