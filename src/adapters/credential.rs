//! Our identity towards Azure: one credential for the whole process.
//!
//! Share the result of [`connect`] between all clients: azure_identity caches tokens per instance and lets callers wait
//! for each other if the token service is slow. Wrap it in an [`EventHubsCredential`] for each Event Hubs client, and
//! for these *only*; another client would use its prolonged tokens after they have expired.

mod no_token;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use azure_core::{
    credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
    time::OffsetDateTime,
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientSecretCredential, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use tokio::sync::watch;

use self::no_token::Named;
pub use self::no_token::NoToken;
use crate::{config::Identity, telemetry::Tokens};

/// A credential could not be created: the configuration or the environment is incomplete.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up credential {kind:?}: {reason} ({})", Self::CODE)]
pub struct Error {
    /// The kind of credential, as `credential.kind` names it.
    pub kind: &'static str,
    /// What is wrong, in one line.
    pub reason: String,
}

impl Error {
    /// Stable code; `docs/errors/CREDENTIAL_UNUSABLE.md` explains it.
    pub const CODE: &'static str = "CREDENTIAL_UNUSABLE";
}

/// Creates the credential for `identity`. No I/O: only the first token shows whether Azure accepts it.
///
/// # Errors
/// The identity is incomplete or cannot work in this environment.
pub fn connect(identity: &Identity) -> Result<Arc<dyn TokenCredential>, Error> {
    connect_noting(identity, &Tokens::default())
}

/// The same, and records in `tokens` which tokens were obtained.
///
/// # Errors
/// The same as for [`connect`].
pub fn connect_noting(identity: &Identity, tokens: &Tokens) -> Result<Arc<dyn TokenCredential>, Error> {
    let kind = identity.kind();
    let credential = match identity {
        Identity::Workload { tenant_id, client_id, token_file } => {
            let options = WorkloadIdentityCredentialOptions {
                tenant_id: Some(tenant_id.clone()),
                client_id: Some(client_id.clone()),
                token_file_path: Some(token_file.clone()),
                ..Default::default()
            };
            WorkloadIdentityCredential::new(Some(options)).map(erase)
        }
        Identity::Managed { client_id } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                ..Default::default()
            };
            ManagedIdentityCredential::new(Some(options)).map(erase)
        }
        Identity::ClientSecret { tenant_id, client_id, client_secret } => {
            let secret = Secret::new(client_secret.expose().to_owned());
            let credential = ClientSecretCredential::new(tenant_id, client_id.clone(), secret, None);
            credential.map(erase)
        }
        Identity::Cli { tenant_id } => {
            let options = AzureCliCredentialOptions { tenant_id: tenant_id.clone(), ..Default::default() };
            AzureCliCredential::new(Some(options)).map(erase)
        }
        Identity::Emulator { token } => {
            let credential: Arc<dyn TokenCredential> = Arc::new(EmulatorCredential(token.clone()));
            Ok(credential)
        }
    };
    let inner = credential.map_err(|error| Error { kind, reason: one_line(&error) })?;
    Ok(Arc::new(Named { kind, inner, tokens: tokens.clone() }))
}

/// The scope of a token for Event Hubs; the SDK uses the same name in all clouds.
pub const EVENT_HUBS_SCOPE: &str = "https://eventhubs.azure.net/.default";

/// The scope of a token for blob storage, as the SDK requests it.
pub const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";

/// Requests a token, as the clients will, for a scope that is always needed.
///
/// # Errors
/// There is no token.
pub async fn probe(credential: &Arc<dyn TokenCredential>) -> Result<(), NoToken> {
    token_expiry(credential, EVENT_HUBS_SCOPE).await.map(drop)
}

/// Requests a token and returns its expiry.
///
/// # Errors
/// There is no token.
pub async fn token_expiry(
    credential: &Arc<dyn TokenCredential>,
    scope: &str,
) -> Result<OffsetDateTime, NoToken> {
    match credential.get_token(&[scope], None).await {
        Ok(token) => Ok(token.expires_on),
        // Each error of our credentials contains one; another error would come from a credential that was not created
        // here.
        Err(error) => Err(NoToken::find(&error).cloned().unwrap_or_else(|| NoToken::of("other", &error))),
    }
}

fn erase<C: TokenCredential + 'static>(credential: Arc<C>) -> Arc<dyn TokenCredential> {
    credential
}

/// The error and its causes, in one line of limited length.
///
/// Token services answer with pages of text; the beginning says what to do. The text contains no secret: requests
/// contain secrets, answers to failed requests do not.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    /// Long enough for the code and the sentence of an Entra ID error.
    const CHARACTERS_MAX: usize = 500;
    let mut line = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        // Many wrappers repeat the message of their source.
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        cause = error.source();
    }
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Returns a fixed text as a token that is always fresh. Emulators do not check it.
#[derive(Debug)]
struct EmulatorCredential(crate::config::Secret);

#[async_trait::async_trait]
impl TokenCredential for EmulatorCredential {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        // Far enough in the future that no client starts to renew it: a client would renew a token with little time
        // left again and again.
        let expires_on = OffsetDateTime::now_utc() + Duration::from_secs(365 * 86_400);
        Ok(AccessToken::new(self.0.expose().to_owned(), expires_on))
    }
}

type Sleep = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Attempts for one token request.
const TRIES: u32 = 4;

/// Upper limit of the first wait; doubles with each attempt. All waits together are less than 1.5 s.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The time that is added to a token's expiry.
///
/// The Event Hubs client renews 6 minutes before the expiry that it was given (azure_messaging_eventhubs 0.15), but
/// azure_identity 1.0 returns its cached token until 5 minutes before the true expiry. So for one minute, every
/// connection would send the same old token several times a second. With 2 minutes added, renewal starts when the cache
/// is ready to fetch a new token.
const PROLONGATION: azure_core::time::Duration = azure_core::time::Duration::seconds(120);

/// How long before its (reported) expiry the Event Hubs client renews a token: 6 minutes, plus or minus 5 seconds.
const RENEWAL_LEAD: azure_core::time::Duration = azure_core::time::Duration::seconds(6 * 60 + 5);

/// The minimum time between two renewals of one client.
///
/// If a token has less time left than the client's lead, the client would renew it at once, get the same token from the
/// cache, and repeat that several times a second until it gets another token.
const RENEWAL_PAUSE: azure_core::time::Duration = azure_core::time::Duration::seconds(15);

/// The maximum wait for an expiry before the clock is read again, because the clock may have been changed.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The credential in the form that one Event Hubs client needs.
///
/// It retries inside `get_token`, because the client permanently stops renewal after one failed attempt. It prolongs
/// the expiry by two minutes. It keeps a minimum time between renewals. If renewal fails nevertheless, the client stops
/// renewing, and at the true expiry the broker detaches: [`Self::expired`] shows when to replace the client.
///
/// It knows only which tokens it returned. If the broker refuses a new token, that is not detected here: the end of the
/// old token appears as a detach by the broker.
pub struct EventHubsCredential {
    inner: Arc<dyn TokenCredential>,
    true_expiry: watch::Sender<Option<OffsetDateTime>>,
    sleep: Sleep,
}

impl EventHubsCredential {
    /// Wraps the process's credential. Create one per Event Hubs client, so that the expiry belongs to that client.
    pub fn new(inner: Arc<dyn TokenCredential>) -> Arc<Self> {
        Self::with_sleep(inner, Arc::new(|wait| Box::pin(tokio::time::sleep(wait))))
    }

    fn with_sleep(inner: Arc<dyn TokenCredential>, sleep: Sleep) -> Arc<Self> {
        Arc::new(Self { inner, true_expiry: watch::Sender::new(None), sleep })
    }

    /// The true expiry of the last token returned; `None` before the first token.
    pub fn true_expiry(&self) -> Option<OffsetDateTime> {
        *self.true_expiry.borrow()
    }

    /// Whether the last token returned has expired: renewal has failed and stopped, so the client must be replaced.
    pub fn is_expired(&self) -> bool {
        self.true_expiry().is_some_and(|expiry| expiry <= OffsetDateTime::now_utc())
    }

    /// Waits until [`Self::is_expired`]. Never returns while every token is replaced in time. Cancel safe.
    pub async fn expired(&self) {
        let mut handed_out = self.true_expiry.subscribe();
        loop {
            let left = handed_out.borrow_and_update().map(|expiry| expiry - OffsetDateTime::now_utc());
            let wait = match left {
                Some(left) if !left.is_positive() => return,
                Some(left) => left.unsigned_abs().min(CLOCK_CHECK_INTERVAL),
                None => CLOCK_CHECK_INTERVAL,
            };
            // Whether time has passed or another token was returned: the expiry is checked again.
            let _ = tokio::time::timeout(wait, handed_out.changed()).await;
        }
    }
}

/// The expiry to report to the client, which uses it only to decide when to renew.
///
/// A time at the end of the calendar is not changed.
fn reported(true_expiry: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    let prolonged = true_expiry.checked_add(PROLONGATION).unwrap_or(true_expiry);
    let not_before = now.checked_add(RENEWAL_LEAD + RENEWAL_PAUSE).unwrap_or(true_expiry);
    prolonged.max(not_before)
}

impl fmt::Debug for EventHubsCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHubsCredential")
            .field("inner", &self.inner)
            .field("true_expiry", &self.true_expiry())
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenCredential for EventHubsCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let mut wait_max = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            match self.inner.get_token(scopes, options.clone()).await {
                Ok(token) => {
                    self.true_expiry.send_replace(Some(token.expires_on));
                    let expires_on = reported(token.expires_on, OffsetDateTime::now_utc());
                    return Ok(AccessToken::new(token.token, expires_on));
                }
                Err(error) if attempt < TRIES => {
                    tracing::debug!(
                        attempt,
                        error = one_line(&error),
                        "no token for Event Hubs, trying again"
                    );
                    (self.sleep)(wait_max.mul_f64(rand::random())).await;
                    wait_max *= 2;
                    attempt += 1;
                }
                Err(error) => {
                    let message =
                        format!("no token for Event Hubs after {TRIES} tries: {}", one_line(&error));
                    return Err(azure_core::Error::with_error(ErrorKind::Credential, error, message));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use super::*;
    use crate::config;

    /// Answers from a script; an empty script fails the test.
    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<Result<OffsetDateTime, &'static str>>>);

    #[async_trait::async_trait]
    impl TokenCredential for Scripted {
        async fn get_token(
            &self,
            scopes: &[&str],
            _options: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            assert_eq!(scopes, ["scope"]);
            match self.0.lock().unwrap().pop_front().expect("no more calls than scripted") {
                Ok(expires_on) => Ok(AccessToken::new("token", expires_on)),
                Err(message) => Err(azure_core::Error::with_message(ErrorKind::Credential, message)),
            }
        }
    }

    /// The wrapper around a script, and the waits that it requests. Nothing really sleeps.
    fn wrapped(
        script: impl IntoIterator<Item = Result<OffsetDateTime, &'static str>>,
    ) -> (Arc<EventHubsCredential>, Arc<Mutex<Vec<Duration>>>) {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&waits);
        let sleep: Sleep = Arc::new(move |wait| {
            seen.lock().unwrap().push(wait);
            Box::pin(std::future::ready(()))
        });
        let inner = Arc::new(Scripted(Mutex::new(script.into_iter().collect())));
        (EventHubsCredential::with_sleep(inner, sleep), waits)
    }

    fn soon() -> OffsetDateTime {
        OffsetDateTime::now_utc() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn the_reported_expiry_is_prolonged_and_the_true_one_remembered() {
        let expiry = soon();
        let (credential, waits) = wrapped([Ok(expiry)]);
        assert_eq!(credential.true_expiry(), None);
        let token = credential.get_token(&["scope"], None).await.unwrap();
        assert_eq!(token.expires_on, expiry + Duration::from_secs(120));
        assert_eq!(token.token.secret(), "token");
        assert_eq!(credential.true_expiry(), Some(expiry));
        assert_eq!(waits.lock().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn passing_failures_are_hidden_behind_growing_jittered_waits() {
        let expiry = soon();
        let (credential, waits) = wrapped([Err("a"), Err("b"), Err("c"), Ok(expiry)]);
        credential.get_token(&["scope"], None).await.unwrap();
        let waits = waits.lock().unwrap();
        assert_eq!(waits.len(), 3);
        for (wait, limit) in waits.iter().zip([200, 400, 800]) {
            assert!(*wait <= Duration::from_millis(limit), "{waits:?}");
        }
    }

    #[tokio::test]
    async fn after_four_failures_the_last_reason_is_told_and_the_old_expiry_kept() {
        let expiry = soon();
        let (credential, waits) = wrapped([Ok(expiry), Err("a"), Err("b"), Err("c"), Err("the\n  last")]);
        credential.get_token(&["scope"], None).await.unwrap();
        let error = credential.get_token(&["scope"], None).await.expect_err("all tries fail");
        assert_eq!(error.to_string(), "no token for Event Hubs after 4 tries: the last");
        assert_eq!(waits.lock().unwrap().len(), 3);
        assert_eq!(credential.true_expiry(), Some(expiry), "the earlier token still expires then");
    }

    /// The client renews when less than 6 minutes of the reported time are left, so this is when it asks again.
    #[test]
    fn no_token_is_renewed_again_at_once_however_little_is_left_of_it() {
        let now = OffsetDateTime::now_utc();
        for seconds in [-60, 0, 5, 60, 239, 300, 3600] {
            let reported = reported(now + azure_core::time::Duration::seconds(seconds), now);
            let renewal = reported - azure_core::time::Duration::minutes(6);
            assert!(renewal >= now + azure_core::time::Duration::seconds(10), "{seconds}: {renewal}");
        }
    }

    #[tokio::test]
    async fn it_tells_the_expiry_of_the_last_token_and_not_of_an_earlier_one() {
        let first = OffsetDateTime::now_utc() + Duration::from_millis(150);
        let second = OffsetDateTime::now_utc() + Duration::from_millis(400);
        let (credential, _) = wrapped([Ok(first), Ok(second)]);
        assert!(!credential.is_expired(), "no token was returned yet");
        credential.get_token(&["scope"], None).await.unwrap();
        let waiting = tokio::spawn({
            let credential = Arc::clone(&credential);
            async move { credential.expired().await }
        });
        credential.get_token(&["scope"], None).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("known").unwrap();
        assert!(OffsetDateTime::now_utc() >= second, "the expiry of the second token was not awaited");
        assert!(credential.is_expired());
    }

    #[tokio::test]
    async fn the_end_of_the_calendar_is_no_reason_to_panic() {
        let last = time::macros::datetime!(9999-12-31 23:59:59 UTC);
        let (credential, _) = wrapped([Ok(last)]);
        assert_eq!(credential.get_token(&["scope"], None).await.unwrap().expires_on, last);
    }

    #[tokio::test]
    async fn the_emulator_presents_its_text_and_never_prints_it() {
        let identity = Identity::Emulator { token: config::Secret::new("hunter2") };
        let credential = connect(&identity).unwrap();
        let token = credential.get_token(&["any"], None).await.unwrap();
        assert_eq!(token.token.secret(), "hunter2");
        assert!(token.expires_on > OffsetDateTime::now_utc() + Duration::from_secs(86_400));
        assert!(!format!("{credential:?}").contains("hunter2"));
    }

    #[test]
    fn what_azure_identity_refuses_is_one_line_with_a_code() {
        let identity = Identity::ClientSecret {
            tenant_id: "not a tenant!".into(),
            client_id: "client".into(),
            client_secret: config::Secret::new("hunter2"),
        };
        let message = connect(&identity).expect_err("a malformed tenant").to_string();
        assert!(message.starts_with("cannot set up credential \"client_secret\": "), "{message}");
        assert!(message.ends_with("(CREDENTIAL_UNUSABLE)"), "{message}");
        assert!(!message.contains('\n') && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn every_kind_can_be_made_without_the_network() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "assertion").unwrap();
        for identity in [
            Identity::Workload {
                tenant_id: "tenant".into(),
                client_id: "client".into(),
                token_file: file.path().to_owned(),
            },
            Identity::Managed { client_id: None },
            Identity::Managed { client_id: Some("client".into()) },
            Identity::Cli { tenant_id: None },
        ] {
            connect(&identity).unwrap();
        }
    }

    #[test]
    fn the_error_code_has_a_page() {
        let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), Error::CODE);
        assert!(std::path::Path::new(&page).exists(), "{page}");
    }

    #[test]
    fn causes_are_joined_without_repetition_and_long_ones_cut() {
        let inner = azure_core::Error::with_message(ErrorKind::Credential, "inner\n\treason");
        let outer = azure_core::Error::with_error(ErrorKind::Credential, inner, "outer: inner reason");
        assert_eq!(one_line(&outer), "outer: inner reason");
        let long = azure_core::Error::with_message(ErrorKind::Other, "ä".repeat(10_000));
        assert_eq!(one_line(&long).chars().count(), 501);
    }
}
