//! Access tokens in the form of Entra ID's, for local services that check the contents of a token but not its
//! signature.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The audience of tokens for Azure Storage.
pub const STORAGE_AUDIENCE: &str = "https://storage.azure.com";

/// The audience of tokens for Event Hubs.
pub const EVENT_HUBS_AUDIENCE: &str = "https://eventhubs.azure.net";

/// An unsigned JSON Web Token. Its times are whole seconds: it expires in the second of `expires`.
pub fn unsigned(audience: &str, expires: SystemTime) -> String {
    let issued = seconds(SystemTime::now());
    let claims = json!({
        "aud": audience,
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": issued,
        "nbf": issued,
        "exp": seconds(expires),
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.unsigned", part(&json!({"alg": "none", "typ": "JWT"})), part(&claims))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_says_whom_it_is_for_and_when_it_expires() {
        let token = unsigned(STORAGE_AUDIENCE, UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default());
        let claims: Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
        assert_eq!((&claims["aud"], &claims["exp"]), (&json!(STORAGE_AUDIENCE), &json!(4_000_000_000_u64)));
    }
}
