//! Paths of twins in the service API.

use std::fmt::Write as _;

use crate::domain::id::TwinKey;

/// The path of a twin, percent-encoded; `None` if no URL can contain its ids.
///
/// Every URL parser resolves the dot segments `.` and `..`, encoded or not (WHATWG URL). So a device with such a name
/// would be taken for another resource; no SDK can address it either.
pub(super) fn twin(key: &TwinKey) -> Option<String> {
    let holds = |id: &str| !matches!(id, "" | "." | "..");
    if !holds(&key.device) || key.module.as_deref().is_some_and(|module| !holds(module)) {
        return None;
    }
    let mut path = format!("/twins/{}", encode(&key.device));
    if let Some(module) = &key.module {
        path.push_str("/modules/");
        path.push_str(&encode(module));
    }
    Some(path)
}

/// Percent-encodes all characters except the unreserved ones of RFC 3986, as Microsoft's SDKs do for ids: ids may
/// contain any of `- . _ : % # * ? ! ( ) , = @ $ ' +`.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay_as_they_are() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode(":%#*?!(),=@$'+/ ä"), "%3A%25%23%2A%3F%21%28%29%2C%3D%40%24%27%2B%2F%20%C3%A4");
    }

    #[test]
    fn a_twin_has_the_path_of_its_ids() {
        assert_eq!(twin(&TwinKey::device("h", "a/b")).as_deref(), Some("/twins/a%2Fb"));
        let module = TwinKey::module("h", "d", "$edgeAgent");
        assert_eq!(twin(&module).as_deref(), Some("/twins/d/modules/%24edgeAgent"));
    }

    #[test]
    fn ids_that_a_url_would_resolve_have_no_path() {
        for id in ["", ".", ".."] {
            assert_eq!(twin(&TwinKey::device("h", id)), None, "{id:?}");
            assert_eq!(twin(&TwinKey::module("h", "d", id)), None, "{id:?}");
        }
        assert!(twin(&TwinKey::device("h", "...")).is_some());
    }
}
