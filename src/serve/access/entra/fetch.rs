//! Fetches the small public documents of an issuer.

#[cfg(test)]
mod tests;

use std::{error::Error as _, time::Duration};

use async_trait::async_trait;
use reqwest::{Client, redirect::Policy};

/// Maximum size of a document, in bytes. Microsoft advises to be ready for 1,000 keys. One takes 1 to 2 KB with its certificate.
const MOST_BYTES: usize = 2 << 20;

/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a document could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There was no answer, or it was incomplete.
    #[error("no answer: {0}")]
    Transport(String),
    /// The status was not 200. Redirects are not followed: keys come only from the configured place.
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
/// **Guarantees** the whole body of a 200, of bounded size. **Cancellation** is safe at any point. **Errors** contain nothing of the body.
/// The caller limits the time.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// Fetches the document at `url`.
    ///
    /// # Errors
    /// It cannot be fetched.
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError>;
}

/// Fetches over HTTP.
#[derive(Debug, Clone)]
pub struct Http(Client);

impl Http {
    /// Creates a client that follows no redirects.
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
        // The stated length only saves reading the body. The received length decides.
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

/// An error with its causes: reqwest's own message omits them.
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
