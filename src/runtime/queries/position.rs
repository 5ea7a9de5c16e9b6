//! The position of the next page of a query, as the client carries it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{domain::id::HubName, ports::Cursor};

/// The position at which a page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of rows on the previous pages.
    pub(super) shown: u64,
    /// Where the store continues. `None`: at its beginning.
    pub(super) behind: Option<Cursor>,
}

/// Identifies a query: a continuation belongs to its query, as at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(String);

#[derive(Serialize, Deserialize)]
struct Carried {
    query: String,
    shown: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    behind: Option<String>,
}

impl Fingerprint {
    /// The fingerprint of a query and the hub of its twins.
    pub(super) fn of(query: &str, hub: Option<&HubName>) -> Self {
        let mut digest = Sha256::new();
        digest.update(hub.map_or("", |hub| hub.as_str()));
        digest.update([0]);
        digest.update(query);
        Self(URL_SAFE_NO_PAD.encode(digest.finalize()))
    }

    /// The position as text that fits into a header.
    pub(super) fn text(&self, position: &Position) -> String {
        let Position { shown, behind } = position;
        let carried = Carried {
            query: self.0.clone(),
            shown: *shown,
            behind: behind.as_ref().map(|behind| behind.0.clone()),
        };
        // A struct of strings and a number can always be written as JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&carried).unwrap_or_default())
    }

    /// Parses a position. `None`: the text does not belong to this query.
    pub(super) fn position(&self, text: &str) -> Option<Position> {
        let carried: Carried = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (carried.query == self.0)
            .then(|| Position { shown: carried.shown, behind: carried.behind.map(Cursor) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_goes_on_with_its_own_query_and_hub_only() {
        let hub = HubName::from("h");
        let own = Fingerprint::of("SELECT * FROM devices", Some(&hub));
        for position in [
            Position { shown: 7, behind: Some(Cursor("c1.e30".to_owned())) },
            Position { shown: 3, behind: None },
        ] {
            let text = own.text(&position);
            assert_eq!(own.position(&text), Some(position));
            for other in [
                Fingerprint::of("SELECT * FROM devices", None),
                Fingerprint::of("SELECT * FROM devices ", Some(&hub)),
                Fingerprint::of("SELECT * FROM devices", Some(&"g".into())),
            ] {
                assert_eq!(other.position(&text), None);
            }
        }
        for nonsense in ["", "!", "e30", "bm9uc2Vuc2U"] {
            assert_eq!(own.position(nonsense), None, "{nonsense}");
        }
    }
}
