//! Decisions before a signature or a token is checked.

use time::macros::datetime;

use super::*;
use crate::config::Secret;

const NOW: OffsetDateTime = datetime!(2030-03-17 16:46:40 UTC);
/// A signature of Python's client (`sas/tests.rs`).
const SIGNED: &str = "SharedAccessSignature sr=twins.contoso.example&sig=B3bIey8VXbfLsvzyHqV%2BQgPOgmhJaYbUMlBKa4O8BDE%3D&se=1900000000&skn=service";
const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";

fn settings() -> Settings {
    let policy =
        sas::Policy { name: "service".to_owned(), primary_key: Secret::new(KEY), secondary_key: None };
    Settings {
        hosts: vec!["twins.contoso.example".to_owned()],
        policies: vec![policy],
        ..Settings::default()
    }
}

fn access(settings: &Settings) -> Result<Access, SettingsError> {
    Access::new(settings, Arc::new(entra::Http::new().unwrap()), Arc::new(|_| {}))
}

#[tokio::test]
async fn one_header_of_a_configured_form_is_looked_at() {
    let access = access(&settings()).unwrap();
    let long = format!("{SIGNED}{}", "0".repeat(LONGEST));
    let name = |found: Result<Caller, Denied>| found.map(|caller| caller.name.to_string());
    for (headers, expected) in [
        (vec![SIGNED], Ok("service")),
        (vec![&SIGNED.replace("SharedAccessSignature", "sharedaccesssignature")], Ok("service")),
        (vec![&format!(" {SIGNED}  ")], Ok("service")),
        (vec![&SIGNED.replace("Signature ", "Signature   ")], Ok("service")),
        (vec![], Err(Denied::Missing)),
        (vec![SIGNED, SIGNED], Err(Denied::Several)),
        (vec!["", SIGNED], Err(Denied::Several)),
        (vec![""], Err(Denied::Malformed)),
        (vec!["SharedAccessSignature"], Err(Denied::Malformed)),
        (vec!["Basic dXNlcjpwYXNz"], Err(Denied::Malformed)),
        (vec![&format!("{SIGNED}, {SIGNED}")], Err(Denied::Malformed)),
        (vec![&long], Err(Denied::Malformed)),
        (vec!["Bearer a.b.c"], Err(Denied::NotConfigured)),
    ] {
        let values: Vec<_> = headers.iter().map(|header| header.as_bytes()).collect();
        let found = name(access.admit(&values, "/twins/d1", NOW).await);
        assert_eq!(found, expected.map(str::to_owned), "{headers:?}");
    }
    assert_eq!(access.admit(&[b"\xff"], "/twins/d1", NOW).await, Err(Denied::Malformed));
    assert_eq!(access.keys_age(), None);
}

#[test]
fn a_server_can_await_it_on_any_thread() {
    fn is_send(_: impl Send) {}
    let access = access(&settings()).unwrap();
    is_send(access.admit(&[], "/twins/d1", NOW));
    is_send(access);
}

#[tokio::test]
async fn signatures_are_refused_where_there_is_no_policy() {
    let entra = Some(entra::Settings::new("fa15d692-e9c7-4460-a743-29f2956fd429"));
    let access = access(&Settings { entra, ..Settings::default() }).unwrap();
    assert_eq!(access.admit(&[SIGNED.as_bytes()], "/twins/d1", NOW).await, Err(Denied::NotConfigured));
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    assert_eq!(access(&Settings::default()).unwrap_err(), SettingsError::Nobody);
    for hosts in [vec![], vec!["a:443".to_owned()]] {
        assert_eq!(access(&Settings { hosts, ..settings() }).unwrap_err(), SettingsError::Hosts);
    }
}

#[test]
fn nothing_printed_holds_a_secret() {
    let printed = format!("{:?} {:?}", access(&settings()).unwrap(), settings());
    assert!(!printed.contains(KEY), "{printed}");
}
