//! How long a connection may use hubs: until its last accepted token expires.
//!
//! Event Hubs authorizes each link. The broker authorizes the connection, because every client puts its tokens before it attaches its
//! links. If a token states when it expires, the broker uses that time. All other tokens never expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fe2o3_amqp_types::definitions::{self, AmqpError};
use serde_json::Value;
use tokio::sync::watch;

/// Longest wait before the system clock is read again: it may have been set meanwhile.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum State {
    NoToken,
    Until(SystemTime),
    ForEver,
}

/// What a connection's tokens allow.
#[derive(Debug)]
pub(super) struct Authorization {
    state: watch::Sender<State>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::NoToken) }
    }
}

impl Authorization {
    /// Records a token that was accepted and when it expires. `None`: never.
    pub(super) fn accept(&self, expires: Option<SystemTime>) {
        self.state.send_replace(expires.map_or(State::ForEver, State::Until));
    }

    /// Returns an error if the connection may not use hubs.
    pub(super) fn check(&self) -> Result<(), definitions::Error> {
        match *self.state.borrow() {
            State::NoToken => Err(refused("put a token on $cbs first")),
            State::Until(time) if time <= SystemTime::now() => {
                Err(refused("ExpiredToken: the token has expired"))
            }
            State::Until(_) | State::ForEver => Ok(()),
        }
    }

    /// Completes when the last token has expired. Cancel safe.
    pub(super) async fn ended(&self) -> definitions::Error {
        let mut state = self.state.subscribe();
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            let wait = match *state.borrow_and_update() {
                State::Until(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
                State::NoToken | State::ForEver => CLOCK_CHECK_INTERVAL,
            };
            // Either time has passed or another token was accepted. The loop checks again.
            let _ = tokio::time::timeout(wait.min(CLOCK_CHECK_INTERVAL), state.changed()).await;
        }
    }
}

fn refused(why: &str) -> definitions::Error {
    definitions::Error::new(AmqpError::UnauthorizedAccess, format!("unauthorized access: {why}"), None)
}

/// Reads when a token expires. `None` if the text is no JSON Web Token or has no `exp` claim. The signature is not checked.
pub(super) fn expiry(token: &str) -> Option<SystemTime> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.get("exp")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_expires_and_other_text_does_not() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":4000000000}"#);
        assert_eq!(expiry(&format!("e30.{claims}.")), Some(UNIX_EPOCH + Duration::from_secs(4_000_000_000)));
        for text in ["", "any text", "a.b.c", "e30.e30.e30", "..", "a.eyJleHAiOiJ4In0.c"] {
            assert_eq!(expiry(text), None, "{text}");
        }
    }
}
