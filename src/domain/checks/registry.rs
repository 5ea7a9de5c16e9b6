//! The IoT hubs: quota, names, and the ids of their documents.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, words};
use crate::domain::{
    id::{DocumentIdScheme, HubName},
    quota::Tier,
};

/// Above this share, little is left for the applications for which the hub exists.
const MOST_SHARE: f64 = 0.8;

/// Evaluates the share of each hub's quota that all replicas together may use.
pub fn quota(hubs: usize, tier: Tier, units: u32, share: f64) -> Finding {
    if hubs == 0 {
        return Finding::Skipped(
            "no IoT hub is configured (iothub.hosts): flagged documents stay flagged, and there is no backfill and no audit"
                .to_owned(),
        );
    }
    let (reads, queries) = (tier.gets_per_second(units), tier.queries_per_second(units));
    let text = format!(
        "{:.0} % of each hub for all replicas together: {:.0} of {reads:.0} reads and {:.1} of {queries:.1} queries per second",
        share * 100.0,
        share * reads,
        share * queries
    );
    if share > MOST_SHARE {
        return Finding::warn(
            "IOTHUB_SHARE",
            format!("{text}; little is left for the applications that read twins"),
            "lower iothub.share, e.g. \"0.5\", unless this is for an urgent backfill",
        );
    }
    Finding::ok(text)
}

/// Evaluates the document ids if several hubs write into one container.
pub fn document_ids(hubs: usize, scheme: DocumentIdScheme) -> Finding {
    match (hubs, scheme) {
        (0 | 1, DocumentIdScheme::Device) => Finding::ok("document.id = \"device\": for one IoT hub"),
        (_, DocumentIdScheme::HubDevice) => {
            Finding::ok("document.id = \"hub_device\": for any number of IoT hubs")
        }
        (hubs, DocumentIdScheme::Device) => Finding::warn(
            "DOCUMENT_FOREIGN",
            format!(
                "{} share a container with document.id = \"device\": of two devices with the same id, the second has no document",
                words::count(hubs, "IoT hub")
            ),
            "set document.id = \"hub_device\" for all daemons that write into this container",
        ),
    }
}

/// Names of hubs, by the place in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Names in events, as written there.
    pub events: BTreeSet<String>,
    /// Names in documents, as written there.
    pub documents: BTreeSet<String>,
}

/// Evaluates the names of hubs in events and documents. `configured` is not empty.
pub fn hub_names(configured: &[HubName], seen: &Seen) -> Finding {
    let mut places: BTreeMap<HubName, (BTreeSet<&str>, Vec<&str>)> = BTreeMap::new();
    for (place, spellings) in [("events", &seen.events), ("documents", &seen.documents)] {
        for spelt in spellings {
            let (all, named) = places.entry(HubName::new(spelt)).or_default();
            all.insert(spelt);
            if !named.contains(&place) {
                named.push(place);
            }
        }
    }
    let strangers: Vec<_> = places
        .iter()
        .filter(|(name, _)| !configured.contains(name))
        .map(|(name, (_, places))| format!("{name} (in {})", places.join(" and ")))
        .collect();
    let known: Vec<_> = configured.iter().map(HubName::as_str).collect();
    if !strangers.is_empty() {
        return Finding::warn(
            "IOTHUB_UNKNOWN",
            format!(
                "there are twins of {}, which cannot be repaired from their hub: configured {} {}",
                strangers.join(", "),
                if known.len() == 1 { "is" } else { "are" },
                known.join(", ")
            ),
            "add that hub to iothub.hosts or iothub.connection_strings; if it is none of yours, find out who routes or writes here",
        );
    }
    if places.is_empty() {
        return Finding::ok("there was no event and no document to compare");
    }
    let spelt: BTreeSet<_> = places
        .iter()
        .flat_map(|(name, (all, _))| all.iter().filter(|spelt| **spelt != name.as_str()).copied())
        .collect();
    let spelt: Vec<_> = spelt.into_iter().collect();
    match spelt.as_slice() {
        [] => Finding::ok("the events and documents that were read come from configured hubs"),
        other => Finding::ok(format!(
            "the events and documents that were read come from configured hubs, also spelled {}, which means the same",
            other.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    #[test]
    fn the_share_is_told_in_calls_and_a_large_one_warned_of() {
        let found = quota(1, Tier::S1, 1, 0.5);
        assert_eq!(found.verdict(), Verdict::Ok);
        assert!(
            found.text().contains("50 of 100 reads") && found.text().contains("0.2 of 0.3 queries"),
            "{found:?}"
        );
        assert_eq!(quota(1, Tier::S1, 1, MOST_SHARE).verdict(), Verdict::Ok);
        assert_eq!(quota(1, Tier::S1, 1, 1.0).verdict(), Verdict::Warn);
        assert_eq!(quota(0, Tier::S1, 1, 1.0).verdict(), Verdict::Skipped);
    }

    #[test]
    fn several_hubs_need_ids_that_name_them() {
        use DocumentIdScheme::{Device, HubDevice};
        assert_eq!(document_ids(1, Device).verdict(), Verdict::Ok);
        assert_eq!(document_ids(2, HubDevice).verdict(), Verdict::Ok);
        assert_eq!(document_ids(2, Device).verdict(), Verdict::Warn);
    }

    #[test]
    fn hub_names_ignore_case_and_an_unknown_hub_is_named_with_its_source() {
        let configured = [HubName::new("Contoso")];
        let seen = |events: &[&str], documents: &[&str]| Seen {
            events: events.iter().map(|name| (*name).to_owned()).collect(),
            documents: documents.iter().map(|name| (*name).to_owned()).collect(),
        };
        let same = hub_names(&configured, &seen(&["CONTOSO"], &["contoso"]));
        assert!(same.verdict() == Verdict::Ok && same.text().contains("spelled CONTOSO"), "{same:?}");
        assert_eq!(hub_names(&configured, &seen(&[], &[])).verdict(), Verdict::Ok);
        let other = hub_names(&configured, &seen(&["contoso", "Fabrikam"], &["fabrikam"]));
        assert_eq!(other.verdict(), Verdict::Warn);
        assert!(other.text().contains("fabrikam (in events and documents)"), "{other:?}");
    }
}
