//! The address of a blob container as people write it, and common mistakes in it.

use url::Url;

/// Parses a container's URL, without a trailing slash. A signature (SAS) may follow it.
///
/// # Errors
/// One sentence that says what to write. It repeats nothing of the text, which may contain a signature or a key.
pub(super) fn url(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"https://contoso.blob.core.windows.net/twinsync\"";
    let lower = text.to_ascii_lowercase();
    if lower.contains("accountkey=") || lower.contains("sharedaccesssignature=") {
        return Err(format!("is a connection string: {EXAMPLE}, with a SAS appended or with [credential]"));
    }
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {EXAMPLE}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("is not an https address: {EXAMPLE}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user name or password: {EXAMPLE}"));
    }
    // A trailing slash would put all blobs below a name that begins with a slash.
    let path = url.path().trim_end_matches('/').to_owned();
    let container = path.rsplit('/').next().unwrap_or_default();
    if !is_container_name(container) {
        return Err(format!(
            "does not end with the name of a container (3 to 63 lower-case letters, digits and single hyphens): {EXAMPLE}"
        ));
    }
    url.set_path(&path);
    url.set_fragment(None);
    let of_blob = url.query_pairs().any(|(name, value)| name == "sr" && value == "b");
    let signed = url.query_pairs().any(|(name, value)| name == "sig" && !value.is_empty());
    match url.query() {
        Some(_) if of_blob => Err("has the SAS of a single blob: create one for the container".to_owned()),
        Some(_) if !signed => {
            Err("has a query that is not a SAS (sig= is missing): copy the whole SAS, or remove the query"
                .to_owned())
        }
        Some(_) | None => Ok(url),
    }
}

/// Rules of Azure Storage for container names.
fn is_container_name(name: &str) -> bool {
    let characters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=63).contains(&name.len())
        && name.bytes().all(characters)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Parses a version of Azure Storage's API. Versions are dates, such as 2025-11-05.
///
/// # Errors
/// One sentence that says what to write.
pub(super) fn api_version(text: &str) -> Result<String, String> {
    let shape =
        |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    if text.len() == 10 && text.bytes().enumerate().all(shape) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a version: write a date such as \"2025-11-05\""))
    }
}
