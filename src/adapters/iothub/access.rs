//! How we authenticate to a hub: a shared access policy, or Microsoft Entra ID.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use azure_core::credentials::TokenCredential;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use reqwest::header::HeaderValue;
use sha2::Sha256;

use super::{super::credential::one_line, address::encode};
use crate::config::Secret;

/// The scope of an Entra ID token (Microsoft's page "Control access to IoT Hub using Microsoft Entra ID").
pub(super) const SCOPE: &str = "https://iothubs.azure.net/.default";

/// The minimum lifetime of a signature, in seconds.
const LIFETIME_SECONDS: u64 = 3600;

/// Signatures made within this time, in seconds, are identical. Each request gets a new one, so none becomes old.
const STEP_SECONDS: u64 = 600;

/// Our identity towards a hub. `Debug` shows the kind, and no secret.
pub(super) enum Access {
    /// A shared access policy.
    Policy(Signer),
    /// The identity of this process.
    Token(Arc<dyn TokenCredential>),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(signer) => f.debug_tuple("Policy").field(&signer.policy).finish(),
            Self::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
        }
    }
}

impl Access {
    pub(super) fn token(credential: Arc<dyn TokenCredential>) -> Self {
        Self::Token(credential)
    }

    /// `None` if the key is not base64.
    pub(super) fn policy(host: &str, policy: &str, key: &Secret) -> Option<Self> {
        Signer::new(host, policy, key).map(Self::Policy)
    }

    /// The value of the `Authorization` header of a request that is sent now.
    ///
    /// # Errors
    /// There is no token; the text says why, in one line.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, String> {
        let text = match self {
            Self::Policy(signer) => signer.sign(expiry(SystemTime::now())),
            Self::Token(credential) => {
                let token = credential.get_token(&[SCOPE], None).await;
                let token = token.map_err(|error| format!("no token for the hub: {}", one_line(&error)))?;
                format!("Bearer {}", token.token.secret())
            }
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            "the token for the hub has characters that are not allowed in an HTTP header".to_owned()
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What to do about a refusal.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::Policy(_) => {
                "check iothub.connection_strings: the policy needs the permission ServiceConnect, its key may have been \
                 regenerated, and the hub must allow shared access policies; and check this machine's clock"
            }
            Self::Token(_) => {
                "give the identity the role `IoT Hub Data Reader` on the hub (new assignments take some minutes), or set \
                 iothub.connection_strings"
            }
        }
    }
}

/// The end of a signature made at `now`, in Unix seconds.
fn expiry(now: SystemTime) -> u64 {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (now / STEP_SECONDS + 1) * STEP_SECONDS + LIFETIME_SECONDS
}

/// Creates signatures of a policy.
pub(super) struct Signer {
    policy: String,
    /// The resource of the signature: the hub's host name, encoded.
    resource: String,
    keyed: Hmac<Sha256>,
}

impl Signer {
    fn new(host: &str, policy: &str, key: &Secret) -> Option<Self> {
        let key = STANDARD.decode(key.expose()).ok().filter(|key| !key.is_empty())?;
        let keyed = Hmac::new_from_slice(&key).ok()?;
        // In lower case, as Microsoft's SDKs sign it.
        Some(Self { policy: policy.to_owned(), resource: encode(&host.to_ascii_lowercase()), keyed })
    }

    /// A signature that ends at `expiry`, in the form of Microsoft's page "Control access to IoT Hub by using shared
    /// access signatures".
    fn sign(&self, expiry: u64) -> String {
        let mut keyed = self.keyed.clone();
        keyed.update(format!("{}\n{expiry}", self.resource).as_bytes());
        let signature = encode(&STANDARD.encode(keyed.finalize().into_bytes()));
        format!(
            "SharedAccessSignature sr={}&sig={signature}&se={expiry}&skn={}",
            self.resource,
            encode(&self.policy)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_signature_is_the_one_that_the_service_computes() {
        // Computed by Python's hmac, base64 and urllib.parse.quote(safe="").
        let signer = Signer::new("Contoso.azure-devices.net", "read only", &Secret::new(KEY)).unwrap();
        assert_eq!(signer.sign(1_900_000_000), EXPECTED);
    }

    const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";
    const EXPECTED: &str = "SharedAccessSignature sr=contoso.azure-devices.net&sig=%2B5BtXT9TPShH494eLEj3TQRR511Q5t%2BdwMKDtopclKM%3D&se=1900000000&skn=read%20only";

    #[test]
    fn a_signature_lasts_for_an_hour_at_least_and_stays_the_same_for_a_while() {
        let at = |seconds| expiry(UNIX_EPOCH + Duration::from_secs(seconds));
        for now in [0, 1, 599, 600, 1_900_000_123] {
            assert!((now + 3600..=now + 4200).contains(&at(now)), "{now}");
        }
        assert_eq!(at(1200), at(1799));
        assert!(at(1800) > at(1799));
    }

    #[test]
    fn what_is_no_key_makes_no_signer() {
        for key in ["", "no base64!", "YWJj="] {
            assert!(Access::policy("h.azure-devices.net", "p", &Secret::new(key)).is_none(), "{key}");
        }
    }

    #[test]
    fn nothing_printed_holds_the_key_or_a_signature() {
        let access = Access::policy("contoso.azure-devices.net", "service", &Secret::new(KEY)).unwrap();
        assert_eq!(format!("{access:?}"), "Policy(\"service\")");
    }
}
