//! A shared access signature (SAS) of blob storage: what it allows, and until when. It is only read here, never shown.

use std::time::Duration;

use super::{Finding, words};
use crate::domain::ticks::Ticks;

/// If the signature ends within this time, there is a warning.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// What twinsync does with blobs: letters of `sp`, and the operation of each.
const NEEDED: [(char, &str); 4] = [('r', "read"), ('l', "list"), ('c', "create"), ('w', "write")];

/// The fields of a signature. The signature itself is not included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// The letters of what it allows (`sp`); `None` if a stored access policy defines them.
    pub permissions: Option<String>,
    /// When it ends (`se`).
    pub ends: Option<Ticks>,
    /// When it begins (`st`).
    pub begins: Option<Ticks>,
    /// The stored access policy that it refers to (`si`).
    pub policy: Option<String>,
    /// For an account's signature, what it is valid for (`srt`): service, containers, objects.
    pub resource_types: Option<String>,
    /// For a signature that is not the account's, what it is valid for (`sr`).
    pub resource: Option<String>,
}

impl Signature {
    /// Reads the fields of a URL's query.
    pub fn of<'a>(
        fields: impl Iterator<Item = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>,
    ) -> Self {
        let mut signature = Self::default();
        for (name, value) in fields {
            let slot = match &*name {
                "sp" => &mut signature.permissions,
                "si" => &mut signature.policy,
                "srt" => &mut signature.resource_types,
                "sr" => &mut signature.resource,
                "se" => {
                    signature.ends = time(&value);
                    continue;
                }
                "st" => {
                    signature.begins = time(&value);
                    continue;
                }
                _ => continue,
            };
            *slot = Some(value.into_owned());
        }
        signature
    }

    /// Whether it allows the operation of this letter. A policy may allow it.
    pub fn allows(&self, letter: char) -> bool {
        self.permissions.as_ref().map_or(self.policy.is_some(), |letters| letters.contains(letter))
    }

    /// Whether it is valid for blobs in a container, and not for a single blob or for containers only.
    fn is_for_blobs(&self) -> bool {
        match (&self.resource_types, &self.resource) {
            (Some(types), _) => types.contains('o') && types.contains('c'),
            (None, Some(resource)) => resource == "c",
            (None, None) => true,
        }
    }
}

/// A time in the form of signatures: a date, or a date with hours and minutes, and often seconds.
fn time(text: &str) -> Option<Ticks> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        17 if text.ends_with('Z') => format!("{}:00Z", &text.get(..16)?),
        _ => text.to_owned(),
    };
    Ticks::parse(&full)
}

/// Evaluates a signature at `now`; `None` if there is none and the credential is used. `letters`: whether dead letters
/// are stored there.
pub fn signature(found: Option<&Signature>, letters: bool, now: Ticks) -> Finding {
    const REMEDY: &str = "set blob.container_url with a new one, e.g. from `az storage container generate-sas --permissions rwdlc \
                          --expiry DATE ...`, or leave the signature out and give the identity the role `Storage Blob Data \
                          Contributor`";
    const CODE: &str = "BLOB_SIGNATURE";
    let Some(found) = found else {
        return Finding::ok("none: the credential is used");
    };
    if let Some(begins) = found.begins
        && begins > now
    {
        let wait = Duration::from_secs_f64(begins.seconds_since(now).max(0.0));
        return Finding::fail(CODE, format!("the signature becomes valid only {}", in_words(wait)), REMEDY);
    }
    let left = found.ends.map(|ends| ends.seconds_since(now));
    if let Some(left) = left
        && left <= 0.0
    {
        let ago = Duration::from_secs_f64(-left);
        return Finding::fail(CODE, format!("the signature expired {} ago", words::duration(ago)), REMEDY);
    }
    if !found.is_for_blobs() {
        return Finding::fail(
            CODE,
            "the signature is not for the blobs of a container (sr=c, or srt=co)",
            REMEDY,
        );
    }
    let missing: Vec<_> =
        NEEDED.into_iter().filter(|(letter, _)| !found.allows(*letter)).map(|(_, name)| name).collect();
    if !missing.is_empty() {
        return Finding::fail(
            CODE,
            format!("the signature lacks the permission to {}", missing.join(", ")),
            REMEDY,
        );
    }
    let soon = left.filter(|left| *left < SOON.as_secs_f64());
    if let Some(left) = soon {
        let left = Duration::from_secs_f64(left);
        return Finding::warn(CODE, format!("the signature expires in {}", words::duration(left)), REMEDY);
    }
    if !found.allows('d') {
        let why = if letters {
            "dead letters cannot be discarded"
        } else {
            "the test blob of this check cannot be removed"
        };
        return Finding::warn(CODE, format!("the signature lacks the permission to delete: {why}"), REMEDY);
    }
    let until = match left {
        Some(left) => format!("valid for {}", words::duration(Duration::from_secs_f64(left))),
        None => "its expiry is defined by a stored access policy".to_owned(),
    };
    match &found.permissions {
        Some(_) => Finding::ok(format!("{until}, and has the permissions that are needed")),
        None => Finding::ok(format!("{until}; its permissions are defined by its stored access policy")),
    }
}

fn in_words(wait: Duration) -> String {
    format!("in {}", words::duration(wait))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    fn assess(query: &str) -> (Verdict, String) {
        let signature_ = Signature::of(url::form_urlencoded::parse(query.as_bytes()));
        let found = signature(Some(&signature_), true, Ticks::parse("2026-05-01T00:00:00Z").expect("a time"));
        (found.verdict(), found.text().to_owned())
    }

    #[test]
    fn ends_beginnings_and_rights_are_read() {
        use Verdict::{Fail, Ok, Warn};
        for (query, verdict, words) in [
            ("sp=racwdl&sr=c&se=2027-05-01T00%3A00%3A00Z&sig=x", Ok, "valid for 365 d"),
            ("sp=rwdlac&ss=b&srt=sco&se=2027-05-01&sig=x", Ok, "valid for 365 d"),
            ("sp=rwdlc&sr=c&se=2026-05-10T00:00Z&sig=x", Warn, "expires in 9 d"),
            ("sp=rwdlc&sr=c&se=2026-04-30T22%3A00%3A00Z&sig=x", Fail, "expired 2 h ago"),
            ("sp=rwdlc&sr=c&se=2026-05-01T00%3A00%3A00Z&sig=x", Fail, "expired"),
            ("sp=rwdlc&sr=c&st=2026-05-01&se=2027-05-01&sig=x", Ok, "valid for 365 d"),
            // Not a time: nothing is claimed about its end.
            ("sp=rwdlc&sr=c&se=2026-05-10T00:00X&sig=x", Ok, "stored access policy"),
            ("sp=rwdlc&sr=c&st=2026-05-02&se=2027-05-01&sig=x", Fail, "in 1 d"),
            ("sp=rl&sr=c&se=2027-05-01&sig=x", Fail, "create, write"),
            ("sp=rwlc&sr=c&se=2027-05-01&sig=x", Warn, "delete"),
            ("sp=rwdlc&sr=b&se=2027-05-01&sig=x", Fail, "blobs of a container"),
            ("sp=rwdlc&ss=b&srt=c&se=2027-05-01&sig=x", Fail, "blobs of a container"),
            ("si=mine&sr=c&sig=x", Ok, "stored access policy"),
        ] {
            let assessed = assess(query);
            assert!(assessed.0 == verdict && assessed.1.contains(words), "{query}: {assessed:?}");
            assert!(!assessed.1.contains("sig="), "{assessed:?}");
        }
        assert_eq!(signature(None, true, Ticks::new(0)).verdict(), Ok);
    }
}
