//! Until when a connection may use hubs: its last accepted token decides.
//!
//! Event Hubs authorizes each link; here it is the connection, since every client puts its tokens before its links. A token
//! that says when it expires is believed; another text never expires.

use std::time::{Duration, SystemTime};

use fe2o3_amqp_types::definitions::{self, AmqpError};
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
