//! What `twinsync serve` needs on this machine: its address, and a certificate that its clients accept.

use std::{net::SocketAddr, time::Duration};

use super::{Finding, words};
use crate::domain::ticks::Ticks;

/// If the certificate ends within this time, there is a warning. Certificates that are renewed automatically are
/// renewed a month before their end.
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);

/// The current user of the address of the read API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// The address is free, and we may use it.
    Free,
    /// A program that answers like the read API.
    ReadApi,
    /// The operating system refuses; the text is our own error.
    Refused(String),
}

/// The contents of the certificate files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// When it ends.
    pub expires: Ticks,
    /// Names and addresses of the hosts that it is valid for.
    pub names: Vec<String>,
}

/// Evaluates `serve.listen`. `code` is the code of an address that cannot be used.
pub fn served(address: SocketAddr, found: &Served, code: &'static str) -> Finding {
    match found {
        Served::Free => Finding::ok(format!("{address} is free")),
        Served::ReadApi => Finding::ok(format!("{address} is in use by a running twinsync serve")),
        Served::Refused(error) => Finding::of_error(code, error),
    }
}

/// Evaluates the certificate; clients use `hosts` to connect.
pub fn certificate(found: &Certificate, hosts: &[String], now: Ticks) -> Finding {
    let Certificate { expires, names } = found;
    let left = Duration::try_from_secs_f64(expires.seconds_since(now)).unwrap_or_default();
    let renew = "renew it, and put it into the files that serve.certificate_file and serve.key_file name";
    if left.is_zero() {
        let text = format!("the certificate expired at {expires}: no client connects");
        return Finding::fail("CERTIFICATE_UNUSABLE", text, renew);
    }
    let missing = hosts.iter().find(|host| !names.iter().any(|name| covers(name, host)));
    let named = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
    if let Some(host) = missing {
        return Finding::warn(
            "CERTIFICATE_NAME",
            format!(
                "the certificate is for {named}, and not for {host}: clients that use that name refuse to connect"
            ),
            "get one for all names in serve.connection_strings and serve.hosts, or remove that name from them",
        );
    }
    let text = format!("for {named}; it expires in {}", words::duration(left));
    match left < ENDS_SOON {
        true => Finding::warn("CERTIFICATE_ENDING", text, renew),
        false => Finding::ok(text),
    }
}

/// Whether a certificate for `name` is valid for `host`. A star matches one label, the first one (RFC 9525, section
/// 6.3).
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        None => name.eq_ignore_ascii_case(host),
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, below)| !label.is_empty() && below.eq_ignore_ascii_case(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    fn assessed(days: u64, names: &[&str], hosts: &[&str]) -> Finding {
        let now = Ticks::new(0).after(Duration::from_secs(1_900_000_000));
        let expires = now.after(Duration::from_secs(days * 86_400));
        let owned = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        certificate(&Certificate { expires, names: owned(names) }, &owned(hosts), now)
    }

    #[test]
    fn a_certificate_is_for_the_names_that_clients_use_and_lasts() {
        let hosts = ["twins.contoso.example"];
        assert_eq!(assessed(60, &["Twins.contoso.example"], &hosts).verdict(), Verdict::Ok);
        assert_eq!(assessed(60, &["*.contoso.example"], &hosts).verdict(), Verdict::Ok);
        assert_eq!(assessed(14, &["*.contoso.example"], &hosts).verdict(), Verdict::Ok);
        assert_eq!(
            assessed(60, &["x.example"], &[]).verdict(),
            Verdict::Ok,
            "the names that clients use are unknown"
        );
        for (days, names, code) in [
            (0, vec!["twins.contoso.example"], "CERTIFICATE_UNUSABLE"),
            (13, vec!["twins.contoso.example"], "CERTIFICATE_ENDING"),
            (60, vec![], "CERTIFICATE_NAME"),
            (60, vec!["contoso.example", "*.example"], "CERTIFICATE_NAME"),
            (60, vec!["*.twins.contoso.example"], "CERTIFICATE_NAME"),
        ] {
            let found = assessed(days, &names, &hosts);
            assert_eq!(found.problem().map(|problem| problem.code), Some(code), "{names:?}: {found:?}");
        }
        let both = assessed(60, &["a.example", "10.0.0.1"], &["10.0.0.1", "b.example"]);
        assert!(both.text().contains("a.example, 10.0.0.1, and not for b.example"), "{both:?}");
    }

    #[test]
    fn a_running_read_api_may_have_the_address_and_nobody_else() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8443));
        let of = |found: &Served| served(address, found, "HTTP_ADDRESS_UNUSABLE").verdict();
        assert_eq!([of(&Served::Free), of(&Served::ReadApi)], [Verdict::Ok; 2]);
        assert_eq!(
            of(&Served::Refused("taken; choose another (HTTP_ADDRESS_UNUSABLE)".into())),
            Verdict::Fail
        );
    }
}
