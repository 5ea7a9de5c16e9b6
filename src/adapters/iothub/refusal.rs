//! The hub's message when it refuses a request.
//!
//! Its errors have had several forms over the years, and Microsoft's SDKs still read all of them: the name in the
//! header `iothub-errorcode`; a body `{"Message": "ErrorCode:DeviceNotFound;…"}`; the same with JSON inside `Message`;
//! a body with `errorCode`, as name or as number, and `message`.

use std::borrow::Cow;

use serde_json::Value;

use crate::domain::id::TwinKey;

/// The maximum length of a service's text in messages, in characters.
const CHARACTERS_MAX: usize = 300;

/// The kinds of errors that are distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such device.
    DeviceNotFound,
    /// There is no such module.
    ModuleNotFound,
    /// The daily message quota of the hub is used up.
    QuotaExceeded,
    /// Any other.
    Other,
}

impl Kind {
    fn of(code: &str) -> Self {
        match code {
            "DeviceNotFound" | "404001" => Self::DeviceNotFound,
            "ModuleNotFound" | "404010" => Self::ModuleNotFound,
            "IotHubQuotaExceeded" | "403002" => Self::QuotaExceeded,
            _ => Self::Other,
        }
    }
}

/// An error of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its kind; `None` if it is not recognised as the hub's own error, or if header and body contradict each other.
    pub(super) kind: Option<Kind>,
    /// Its name or number, and the rest of its text; empty if nothing was recognised.
    pub(super) text: String,
}

impl Refusal {
    /// Reads an answer whose status is a refusal.
    pub(super) fn read(header: Option<&str>, body: &[u8]) -> Self {
        let header = header.map(str::trim).filter(|code| is_code(code));
        let said = serde_json::from_slice(body).ok().and_then(|body| Said::in_body(&body));
        let code = said.as_ref().and_then(|said| said.code.clone());
        let kinds = [header.map(Kind::of), code.as_deref().map(Kind::of)];
        let kind = match kinds {
            [Some(header), Some(body)] => (header == body).then_some(header),
            [one, other] => one.or(other),
        };
        let parts =
            [header.map(Cow::Borrowed), code.map(Cow::Owned), said.map(|said| Cow::Owned(said.message))];
        let mut text = String::new();
        for part in parts.into_iter().flatten().filter(|part| !part.is_empty()) {
            if !text.contains(&*part) {
                text.push_str(if text.is_empty() { "" } else { ": " });
                text.push_str(&part);
            }
        }
        Self { kind, text: one_line(&text) }
    }

    /// Whether the hub itself says that the twin does not exist.
    pub(super) fn says_that_none_is(&self, key: &TwinKey) -> bool {
        match (self.kind, &key.module) {
            (Some(Kind::DeviceNotFound), _) | (Some(Kind::ModuleNotFound), Some(_)) => true,
            (Some(Kind::ModuleNotFound | Kind::QuotaExceeded | Kind::Other) | None, _) => false,
        }
    }
}

/// The parts of an error body.
struct Said {
    code: Option<String>,
    message: String,
}

impl Said {
    /// `None` if it is not an error body of the hub.
    fn in_body(body: &Value) -> Option<Self> {
        let field = |names: [&str; 2]| names.into_iter().find_map(|name| body.get(name));
        let message = field(["Message", "message"]).and_then(Value::as_str).unwrap_or_default();
        let code = field(["errorCode", "ErrorCode"]).and_then(|code| match code {
            Value::String(code) => Some(code.clone()),
            Value::Number(code) => Some(code.to_string()),
            _ => None,
        });
        if let Some(code) = code.filter(|code| is_code(code)) {
            return Some(Self { code: Some(code), message: message.to_owned() });
        }
        if let Some(rest) = message.strip_prefix("ErrorCode:") {
            let (code, message) = rest.split_once(';').unwrap_or((rest, ""));
            let code = Some(code.trim().to_owned()).filter(|code| is_code(code));
            return Some(Self { code, message: message.to_owned() });
        }
        if message.is_empty() {
            return None;
        }
        let inner = serde_json::from_str::<Value>(message).ok().filter(Value::is_object);
        match inner {
            // The service nests only one level.
            Some(inner) if inner.get("Message").is_none() => Self::in_body(&inner),
            Some(_) | None => Some(Self { code: None, message: message.to_owned() }),
        }
    }
}

/// Codes are names or six digits.
fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// One line of limited length.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(header: Option<&str>, body: &str) -> Option<Kind> {
        Refusal::read(header, body.as_bytes()).kind
    }

    #[test]
    fn every_shape_of_the_hubs_errors_is_read() {
        let device = Some(Kind::DeviceNotFound);
        for body in [
            r#"{"Message":"ErrorCode:DeviceNotFound;d","ExceptionMessage":"Tracking ID:1"}"#,
            r#"{"Message":"{\"errorCode\":404001,\"trackingId\":\"1\",\"message\":\"d\"}"}"#,
            r#"{"errorCode":404001,"message":"d"}"#,
            r#"{"errorCode":"DeviceNotFound","message":"d"}"#,
            r#"{"errorCode":"404001"}"#,
        ] {
            assert_eq!(kind(None, body), device, "{body}");
            assert_eq!(kind(Some("DeviceNotFound"), body), device, "{body}");
        }
        assert_eq!(kind(Some("DeviceNotFound"), ""), device);
        assert_eq!(kind(None, r#"{"Message":"ErrorCode:ModuleNotFound;m"}"#), Some(Kind::ModuleNotFound));
        assert_eq!(kind(None, r#"{"errorCode":404010}"#), Some(Kind::ModuleNotFound));
        assert_eq!(kind(None, r#"{"errorCode":429001}"#), Some(Kind::Other));
    }

    #[test]
    fn what_is_not_the_hubs_own_error_or_contradicts_itself_has_no_kind() {
        for body in
            ["", "<html>not found</html>", "[]", "null", "{}", r#"{"Message":"No HTTP resource was found"}"#]
        {
            assert_eq!(kind(None, body), None, "{body}");
        }
        // The code is at the beginning; the rest contains other text, such as an id.
        assert_eq!(kind(None, r#"{"Message":"no ErrorCode:DeviceNotFound;"}"#), None);
        assert_eq!(kind(Some("DeviceNotFound"), r#"{"errorCode":404003}"#), None);
        assert_eq!(kind(Some("not a code"), ""), None);
    }

    #[test]
    fn a_missing_module_does_not_make_its_device_absent() {
        let missing = |code| Refusal::read(Some(code), b"");
        let (device, module) = (TwinKey::device("h", "d"), TwinKey::module("h", "d", "m"));
        assert!(missing("DeviceNotFound").says_that_none_is(&device));
        assert!(missing("DeviceNotFound").says_that_none_is(&module));
        assert!(missing("ModuleNotFound").says_that_none_is(&module));
        assert!(!missing("ModuleNotFound").says_that_none_is(&device));
        assert!(!missing("IotHubNotFound").says_that_none_is(&device));
    }

    #[test]
    fn its_text_is_one_short_line_without_repetition() {
        let body = r#"{"Message":"ErrorCode:ArgumentInvalid;the\n query  is odd"}"#;
        let text = Refusal::read(Some("ArgumentInvalid"), body.as_bytes()).text;
        assert_eq!(text, "ArgumentInvalid: the query is odd");
        let long = format!(r#"{{"Message":"{}"}}"#, "ä".repeat(5000));
        assert_eq!(Refusal::read(None, long.as_bytes()).text.chars().count(), 301);
    }
}
