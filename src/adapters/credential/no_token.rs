//! The error for a token that could not be obtained. Callers find it by scanning the sources of an error.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
    http::StatusCode,
};

use super::one_line;
use crate::{
    domain::ticks::Ticks,
    telemetry::{Scope, Tokens},
};

/// Limit of one token request. The SDK waits for a silent metadata service for more than a minute.
const LIMIT: Duration = Duration::from_secs(20);

/// Which credential provided no token, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the credential \"{kind}\" gives no token: {reason}; check the section [credential] ({})",
    Self::CODE
)]
pub struct NoToken {
    /// The kind of credential, as `credential.kind` names it.
    pub kind: &'static str,
    /// Its message, in one line.
    pub reason: String,
    /// Whether an operator must fix it; otherwise it is temporary.
    pub refused: bool,
}

impl NoToken {
    /// Stable code; `docs/errors/CREDENTIAL_NO_TOKEN.md` explains it.
    pub const CODE: &'static str = "CREDENTIAL_NO_TOKEN";

    /// The `NoToken` among the sources of `error`, if it is the cause.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(current) = cause {
            if let Some(found) = current.downcast_ref() {
                return Some(found);
            }
            cause = current.source();
        }
        None
    }

    pub(super) fn of(kind: &'static str, error: &azure_core::Error) -> Self {
        Self { kind, reason: one_line(error), refused: is_refused(kind, error) }
    }
}

/// Whether waiting does not help. A token service that answers with a 4xx has understood the request and refuses it.
/// The metadata service and the Azure CLI are on this machine, so if they do not answer, the cause is not a network
/// outage.
fn is_refused(kind: &str, error: &azure_core::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut lost = false;
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<azure_core::Error>() {
            match error.kind() {
                ErrorKind::HttpResponse { status, .. } => {
                    let passes = matches!(status, StatusCode::RequestTimeout | StatusCode::TooManyRequests);
                    return (400..500).contains(&u16::from(*status)) && !passes;
                }
                ErrorKind::Io | ErrorKind::Connection => lost = true,
                _ => {}
            }
        }
        lost |= current.is::<std::io::Error>();
        cause = current.source();
    }
    is_local(kind) || !lost
}

fn is_local(kind: &str) -> bool {
    matches!(kind, "managed" | "cli")
}

/// The credential whose errors contain a [`NoToken`].
#[derive(Debug)]
pub(super) struct Named {
    pub(super) kind: &'static str,
    pub(super) inner: Arc<dyn TokenCredential>,
    /// Records which tokens were obtained.
    pub(super) tokens: Tokens,
}

#[async_trait::async_trait]
impl TokenCredential for Named {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let scope = Scope::of(scopes);
        let no_token = match tokio::time::timeout(LIMIT, self.inner.get_token(scopes, options)).await {
            Ok(Ok(token)) => {
                let expires = token.expires_on.unix_timestamp().checked_mul(1000);
                self.tokens.given(scope, expires.and_then(Ticks::from_unix_milliseconds));
                return Ok(token);
            }
            Ok(Err(error)) => NoToken::of(self.kind, &error),
            Err(_) => NoToken {
                kind: self.kind,
                reason: format!("no answer within {} s", LIMIT.as_secs()),
                refused: is_local(self.kind),
            },
        };
        self.tokens.refused(scope, no_token.to_string());
        Err(azure_core::Error::new(ErrorKind::Credential, no_token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: StatusCode) -> azure_core::Error {
        let kind = ErrorKind::HttpResponse { status, error_code: None, raw_response: None };
        azure_core::Error::with_message(kind, "AADSTS7000215: invalid client secret")
    }

    /// Wraps an error in the same way as azure_identity.
    fn wrapped(error: azure_core::Error) -> azure_core::Error {
        azure_core::Error::with_error(ErrorKind::Credential, error, "authentication failed")
    }

    #[test]
    fn what_a_token_service_answers_is_told_from_its_silence() {
        let silence = || azure_core::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        for (kind, error, refused) in [
            ("client_secret", status(StatusCode::Unauthorized), true),
            ("client_secret", status(StatusCode::BadRequest), true),
            ("workload", status(StatusCode::TooManyRequests), false),
            ("workload", status(StatusCode::ServiceUnavailable), false),
            ("workload", silence(), false),
            ("client_secret", azure_core::Error::with_message(ErrorKind::Connection, "dns"), false),
            ("managed", silence(), true),
            ("managed", status(StatusCode::ServiceUnavailable), false),
            ("managed", status(StatusCode::NotFound), true),
            ("cli", azure_core::Error::with_message(ErrorKind::Credential, "log in first"), true),
            ("workload", azure_core::Error::with_message(ErrorKind::Credential, "no assertion"), true),
        ] {
            let (text, error) = (error.to_string(), wrapped(error));
            assert_eq!(NoToken::of(kind, &error).refused, refused, "{kind}: {text}");
        }
    }

    #[test]
    fn a_token_error_is_found_inside_the_errors_of_the_sdks() {
        let inner = NoToken { kind: "managed", reason: "no".into(), refused: true };
        let error = azure_core::Error::new(ErrorKind::Credential, inner.clone());
        assert_eq!(NoToken::find(&wrapped(wrapped(error))), Some(&inner));
        assert_eq!(NoToken::find(&status(StatusCode::Forbidden)), None);
        let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), NoToken::CODE);
        assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(NoToken::CODE)), "{page}");
        assert!(inner.to_string().contains(NoToken::CODE) && !inner.to_string().contains('\n'));
    }

    #[derive(Debug)]
    struct Scripted(std::sync::Mutex<Vec<azure_core::Result<AccessToken>>>);

    #[async_trait::async_trait]
    impl TokenCredential for Scripted {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            self.0.lock().expect("not poisoned").pop().expect("no more calls than scripted")
        }
    }

    #[tokio::test]
    async fn what_was_given_and_what_was_not_is_noted_with_its_end_and_its_reason() {
        let end = azure_core::time::OffsetDateTime::from_unix_timestamp(1_900_000_000).expect("a time");
        let script = vec![Err(status(StatusCode::Unauthorized)), Ok(AccessToken::new("hunter2", end))];
        let tokens = Tokens::default();
        let inner = Arc::new(Scripted(std::sync::Mutex::new(script)));
        let named = Named { kind: "workload", inner, tokens: tokens.clone() };
        let scopes = ["https://storage.azure.com/.default"];
        named.get_token(&scopes, None).await.expect("given");
        let given = tokens.all()[&Scope::Storage].clone();
        assert_eq!(given.expires, Ticks::from_unix_milliseconds(1_900_000_000_000));
        assert!(given.obtained.is_some() && given.failed.is_none(), "{given:?}");
        named.get_token(&scopes, None).await.expect_err("refused");
        let (_, reason) = tokens.all()[&Scope::Storage].failed.clone().expect("noted");
        assert!(reason.contains("workload") && reason.contains("AADSTS7000215"), "{reason}");
        assert!(!format!("{tokens:?}").contains("hunter2"));
    }
}
