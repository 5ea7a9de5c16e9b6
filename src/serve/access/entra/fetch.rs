//! Fetches the small public documents of an issuer.

#[cfg(test)]
mod tests;

use std::{error::Error as _, time::Duration};

use async_trait::async_trait;
use reqwest::{Client, redirect::Policy};

/// How large a document may be. Microsoft advises to be ready for 1,000 keys; one takes 1 to 2 KB with its certificate.
const MOST_BYTES: usize = 2 << 20;

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a document could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There was no answer, or it broke off.
    #[error("no answer: {0}")]
    Transport(String),
    /// There was another answer than 200. Redirects are not followed: keys come from where the configuration says.
    #[error("the answer is {0}")]
    Status(u16),
    /// The document is too large.
    #[error("the answer is larger than {MOST_BYTES} bytes")]
    TooLarge,
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Fetches a document.
///
/// **Guarantees** the whole body of a 200, of bounded size. **Cancellation** is safe at any point. **Errors** say nothing of
/// the body. The time is bounded by whoever calls.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// The document at `url`.
    ///
    /// # Errors
    /// There is none to be had.
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError>;
}

/// Fetches over HTTP.
#[derive(Debug, Clone)]
pub struct Http(Client);

impl Http {
    /// A client that follows no redirect.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT);
        client.build().map(Self)
    }
}

#[async_trait]
impl Fetch for Http {
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let mut response = self.0.get(url).send().await.map_err(transport)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        // What a server says of the length saves the reading. What it sends is what counts.
        if response.content_length().is_some_and(|length| length > MOST_BYTES as u64) {
            return Err(FetchError::TooLarge);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// An error with what it is due to: reqwest's own message ends where it would begin to help.
fn transport(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    FetchError::Transport(text)
}
