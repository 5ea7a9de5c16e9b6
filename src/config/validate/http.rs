//! `[http]`: where to listen, and what has to be shown there.

use std::{fs::File, io::Read as _, net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::{Check, values::positive_duration};
use crate::config::{human, raw, secret::Secret, settings::Http};

/// Fewer characters could be guessed by somebody who may ask as often as the network allows.
const TOKEN_MIN: usize = 32;

/// More do not fit into the header of a request, with everything else that is there.
const TOKEN_MAX: usize = 1024;

/// Shorter ones would cut off honest clients that are far away; longer ones outlast every proxy and are slips of the finger.
const IDLE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// How to come by a token.
const MAKE_ONE: &str = "create one with: openssl rand -hex 32";

impl Check<'_> {
    pub(super) fn http(&mut self, raw: &raw::Http) -> Option<Http> {
        let listen = self.parse("http.listen", &raw.listen, listen);
        let written = self.optional("http.token", raw.token.expose(), token);
        let kept = self.optional("http.token_file", &raw.token_file, token_file);
        let blocked_after = self.parse("http.blocked_after", &raw.blocked_after, positive_duration);
        let idle_timeout = self.parse("http.idle_timeout", &raw.idle_timeout, idle_timeout);
        let token = match (written?, kept?) {
            (Some(_), Some(_)) => {
                self.problem("http.token_file", "is set together with http.token: set only one of them");
                return None;
            }
            (written, kept) => written.or(kept),
        };
        Some(Http { listen: listen?, token, blocked_after: blocked_after?, idle_timeout: idle_timeout? })
    }
}

pub(in crate::config) fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        "" => Err("is empty: write e.g. \"127.0.0.1:8080\", or \"off\"".to_owned()),
        text => text.parse().map(Some).map_err(|_| {
            format!("{text:?} is not an IP address with a port: write e.g. \"127.0.0.1:8080\", \"[::]:8080\" or \"off\"")
        }),
    }
}

fn idle_timeout(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|timeout| match IDLE_TIMEOUTS.contains(&timeout) {
        true => Ok(timeout),
        false => Err(format!("{text:?} is out of range: give \"1s\" to \"10m\"")),
    })
}

fn token(text: &str) -> Result<Secret, String> {
    if text.trim() != text {
        return Err("begins or ends with white space: remove it".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "has characters that are not allowed in an HTTP header: use ASCII letters, digits and punctuation without spaces; {MAKE_ONE}"
        ));
    }
    match text.len() {
        ..TOKEN_MIN => {
            Err(format!("is shorter than {TOKEN_MIN} characters and could be guessed; {MAKE_ONE}"))
        }
        TOKEN_MIN..=TOKEN_MAX => Ok(Secret::new(text)),
        _ => Err(format!("is longer than {TOKEN_MAX} characters and does not fit into a header; {MAKE_ONE}")),
    }
}

/// The token in a file. The one line break at its end, which editors and `echo` leave there, is not part of it.
fn token_file(path: &str) -> Result<Secret, String> {
    let mut text = String::new();
    let most = TOKEN_MAX as u64 + 3; // enough to see that it is too long; it may be a device without end
    File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(|error| {
        format!("cannot be read: {error}; name a file that holds the token and nothing else")
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err(format!("names an empty file; {MAKE_ONE}")),
        line => token(line).map_err(|problem| format!("names a file whose content {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const GOOD: &str = "0123456789abcdef0123456789ABCDEF";

    fn refusal(found: Result<Secret, String>) -> String {
        let message = found.expect_err("must be refused");
        assert!(!message.contains("0123456789"), "a part of the token is in the message: {message}");
        message
    }

    #[test]
    fn a_token_is_long_enough_and_can_be_sent() {
        assert_eq!(token(GOOD).map(|token| token.expose().to_owned()), Ok(GOOD.to_owned()));
        assert!(token(&"a".repeat(TOKEN_MAX)).is_ok());
        for (text, hint) in [
            (GOOD[1..].to_owned(), "shorter than 32 characters"),
            ("a".repeat(TOKEN_MAX + 1), "longer than 1024"),
            (format!(" {GOOD}"), "begins or ends with white space"),
            (format!("{GOOD}\n"), "begins or ends with white space"),
            (" ".repeat(40), "begins or ends with white space"),
            (GOOD.replace('a', " "), "not allowed in an HTTP header"),
            (GOOD.replace('a', "ä"), "not allowed in an HTTP header"),
        ] {
            let message = refusal(token(&text));
            assert!(message.contains(hint), "{message}");
        }
    }

    #[test]
    fn a_file_holds_the_token_and_one_line_break() {
        let read = |content: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content.as_bytes()).unwrap();
            token_file(file.path().to_str().unwrap())
        };
        for content in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\r\n")] {
            assert_eq!(read(&content), Ok(Secret::new(GOOD)), "{content:?}");
        }
        for (content, hint) in [
            (String::new(), "empty file"),
            ("\n".to_owned(), "empty file"),
            (format!("{GOOD}\n\n"), "begins or ends with white space"),
            (format!("{GOOD} \n"), "begins or ends with white space"),
            (format!("{GOOD}\n{GOOD}\n"), "not allowed in an HTTP header"),
            ("short\n".to_owned(), "shorter than"),
            ("a".repeat(1 << 20), "longer than"),
        ] {
            let message = refusal(read(&content));
            assert!(message.contains(hint), "{message}");
        }
        assert!(refusal(token_file("/nowhere/at/all")).contains("cannot be read"));
    }
}
