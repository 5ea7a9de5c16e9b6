//! Decides who may read twins: a client that sends `http.token` as `Authorization: Bearer TOKEN`.
//!
//! The token is compared by its digest and in constant time, so that response times do not show how much of a guess was right. Only the
//! digest is kept, so this process can never reveal the token. A token in a URL would appear in logs and histories. A token in a cookie
//! would also be sent with requests from other sites' pages. Neither is read.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    config::Secret,
    listener::Connection,
    telemetry::{Unauthorized, event::TwinReadRefused},
};

/// Decides who may read twins.
#[derive(Debug, Clone, Copy)]
pub struct BearerAuth(Option<[u8; 32]>);

/// Why a request may not read twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// No request may: no token is configured.
    ForAll,
    /// The credentials of this request are not sufficient.
    For(Unauthorized),
}

impl BearerAuth {
    /// Accepts `token`. Without a token, refuses every request.
    pub fn new(token: Option<&Secret>) -> Self {
        Self(token.map(|token| Sha256::digest(token.expose()).into()))
    }

    fn admits(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let digest = self.0.ok_or(Refusal::ForAll)?;
        let shown = shown(headers).ok_or(Refusal::For(Unauthorized::NoToken))?;
        match bool::from(Sha256::digest(shown).as_slice().ct_eq(&digest)) {
            true => Ok(()),
            false => Err(Refusal::For(Unauthorized::WrongToken)),
        }
    }
}

/// The token in a request. Several such headers count as none: a proxy may have added one.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else {
        return None;
    };
    let (scheme, token) = value.split_at_checked(b"Bearer".len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer") && !token.is_empty()).then_some(token)
}

/// Lets authorized requests through.
pub(super) async fn ask(State(state): State<super::State>, request: Request, next: Next) -> Response {
    let Err(closed) = state.bearer_auth.admits(request.headers()) else {
        return next.run(request).await;
    };
    let reason = match closed {
        // Not 404: that is the answer for a twin that does not exist, and a program must not confuse the two.
        Refusal::ForAll => {
            let error = "reading twins over HTTP is off: set http.token or http.token_file in the configuration of this \
                         replica (docs/twins.md) and start it again";
            return (StatusCode::FORBIDDEN, Json(json!({ "error": error }))).into_response();
        }
        Refusal::For(reason) => reason,
    };
    let peer = request.extensions().get::<Connection>().map(|connection| connection.peer);
    TwinReadRefused { reason, peer }.emit(&state.metrics);
    let error = match reason {
        Unauthorized::NoToken => {
            "reading twins requires the token of http.token: add the header Authorization: Bearer TOKEN"
        }
        Unauthorized::WrongToken => {
            "the token is not that of http.token: compare it with the configuration of this replica"
        }
    };
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789ABCDEF";

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |value: &&str| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        values.iter().map(value).fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn only_the_whole_token_in_its_header_is_admitted() {
        let bearer_auth = BearerAuth::new(Some(&Secret::new(TOKEN)));
        for value in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}"), format!("BEARER  {TOKEN} ")] {
            assert_eq!(bearer_auth.admits(&headers(&[&value])), Ok(()), "{value}");
        }
        for value in [
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {TOKEN}0"),
            format!("Bearer {}", TOKEN.to_lowercase()),
            format!("Bearer x{}", &TOKEN[1..]),
            format!("Bearer {TOKEN} {TOKEN}"),
        ] {
            let found = bearer_auth.admits(&headers(&[&value]));
            assert_eq!(found, Err(Refusal::For(Unauthorized::WrongToken)), "{value}");
        }
        let right = format!("Bearer {TOKEN}");
        for values in [
            vec![],
            vec![""],
            vec![TOKEN],
            vec!["Bearer"],
            vec!["Bearer "],
            vec!["Basic MDEyMzQ1Njc4OWFiY2RlZg=="],
            vec![&right, &right],
        ] {
            let found = bearer_auth.admits(&headers(&values));
            assert_eq!(found, Err(Refusal::For(Unauthorized::NoToken)), "{values:?}");
        }
    }

    #[test]
    fn without_a_token_nobody_is_admitted_and_none_is_shown() {
        let bearer_auth = BearerAuth::new(None);
        for values in [vec![], vec!["Bearer "], vec!["Bearer x"]] {
            assert_eq!(bearer_auth.admits(&headers(&values)), Err(Refusal::ForAll));
        }
        let shown = format!("{:?}", BearerAuth::new(Some(&Secret::new(TOKEN))));
        assert!(!shown.contains(TOKEN), "{shown}");
    }
}
