//! The scope of a shared access signature: the resource `sr`.
//!
//! A resource is a host name without a scheme, and optionally a path below it. A signature covers everything whose path begins with its
//! resource, compared segment by segment (Microsoft's page "Control access to IoT Hub by using shared access signatures").

use percent_encoding::percent_decode_str;

/// The host names of this service.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    /// `None`: one of the names is empty, or is more than a name.
    pub(super) fn new(names: &[String]) -> Option<Self> {
        let is_name = |name: &&String| {
            let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !name.is_empty() && name.bytes().all(is_of_a_name)
        };
        names.iter().all(|name| is_name(&name)).then(|| Self(names.to_vec()))
    }

    /// Whether a signature for `resource` is valid for a request of `path`. `resource` is decoded. `path` is not decoded, and has no query.
    ///
    /// Host names are compared without case and without a port: Python's client signs the port, and the others do not. The `Host` header of
    /// the request is ignored: a proxy may have changed it, and a client can write anything.
    pub(super) fn cover(&self, resource: &str, path: &str) -> bool {
        let (host, scope) = resource.split_once('/').unwrap_or((resource, ""));
        self.is_ours(host) && covers(scope, path)
    }

    fn is_ours(&self, host: &str) -> bool {
        let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
        self.0.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// Whether `path` begins with the segments of `scope`. Ids are compared as by IoT Hub: case-sensitively.
///
/// Both sides are decoded once. If the encoded form were also tried, a signature for the device `a%23b` would be valid for the device
/// `a#b`. IoT Hub allows both ids.
fn covers(scope: &str, path: &str) -> bool {
    let scope = scope.strip_suffix('/').unwrap_or(scope);
    if scope.is_empty() {
        return true;
    }
    let mut asked = path.strip_prefix('/').unwrap_or(path).split('/').map(decode);
    // A path with `.` or `..` would end elsewhere than it begins.
    if asked.clone().any(|segment| segment.is_none_or(|segment| segment == "." || segment == "..")) {
        return false;
    }
    scope.split('/').all(|segment| asked.next().flatten().is_some_and(|asked| asked == segment))
}

fn decode(segment: &str) -> Option<String> {
    percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_covers_what_it_is_a_prefix_of_by_segments() {
        let hosts = Hosts::new(&["twins.contoso.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        for (resource, path, is_covered) in [
            ("twins.contoso.example", "/twins/d1", true),
            ("Twins.CONTOSO.example", "/twins/d1", true),
            ("twins.contoso.example:8443", "/twins/d1", true),
            ("10.0.0.1:443", "/devices/query", true),
            ("twins.contoso.example/", "/twins/d1", true),
            ("twins.contoso.example/devices", "/devices/query", true),
            ("twins.contoso.example/devices/", "/devices/query", true),
            ("twins.contoso.example/twins/d1", "/twins/d1", true),
            ("twins.contoso.example/twins/d1", "/twins/d1/modules/m", true),
            ("twins.contoso.example:1/twins/a#b", "/twins/a%23b", true),
            // Another host, or more than one.
            ("contoso.azure-devices.net", "/twins/d1", false),
            ("contoso.example", "/twins/d1", false),
            ("twins.contoso.example.", "/twins/d1", false),
            ("twins.contoso.example:x", "/twins/d1", false),
            ("twins.contoso.example:123456", "/twins/d1", false),
            ("https://twins.contoso.example", "/twins/d1", false),
            ("dh://twins.contoso.example", "/twins/d1", false),
            ("", "/twins/d1", false),
            // Another path.
            ("twins.contoso.example/devices", "/twins/d1", false),
            ("twins.contoso.example/twin", "/twins/d1", false),
            ("twins.contoso.example/twins/d1", "/twins/d10", false),
            ("twins.contoso.example/twins/d1", "/twins/D1", false),
            ("twins.contoso.example/twins/d1/modules", "/twins/d1", false),
            ("twins.contoso.example//twins", "/twins/d1", false),
            ("twins.contoso.example/twins/a%23b", "/twins/a%23b", false),
            ("twins.contoso.example/twins/d1", "/twins/d1/../d2", false),
            ("twins.contoso.example/twins/d1", "/twins/d1/%2e%2E/d2", false),
            ("twins.contoso.example/twins/d1", "/twins/d1/%ff", false),
        ] {
            assert_eq!(hosts.cover(resource, path), is_covered, "{resource} {path}");
        }
    }

    #[test]
    fn a_host_is_a_name_and_nothing_else() {
        for name in ["", "a:443", "https://a", "a/b", "a b"] {
            assert!(Hosts::new(&[name.to_owned()]).is_none(), "{name}");
        }
    }
}
