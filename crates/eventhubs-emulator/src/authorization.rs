//! Until when a connection may use hubs: its last accepted token decides.
//!
//! Event Hubs authorizes each link; here it is the connection, since every client puts its tokens before its links. A token
//! that says when it expires is believed; another text never expires.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fe2o3_amqp_types::definitions::{self, AmqpError};
use serde_json::Value;
use tokio::sync::watch;

/// How long a wait for an expiry may last before the clock is looked at again.
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
    /// Takes a token's word for when it expires.
    pub(super) fn accept(&self, expires: Option<SystemTime>) {
        self.state.send_replace(expires.map_or(State::ForEver, State::Until));
    }

    /// Whether hubs may be used, or the error that says why not.
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
            // Whether time has passed or another token came: it is looked at again.
            let _ = tokio::time::timeout(wait.min(CLOCK_CHECK_INTERVAL), state.changed()).await;
        }
    }
}

fn refused(why: &str) -> definitions::Error {
    definitions::Error::new(AmqpError::UnauthorizedAccess, format!("unauthorized access: {why}"), None)
}

/// When a token expires; `None` for text that is no JSON Web Token or does not say. Nobody checks its signature.
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
