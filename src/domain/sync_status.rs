//! The status of a twin's document in words: the meaning of `sync`, for people who see it for the first time.

use serde::Serialize;

use super::{
    document::{Document, Flag, Operation, State},
    ticks::Ticks,
};

/// The state of our knowledge about a twin, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It exists, and its document holds all of it.
    Present,
    /// It exists, and its document holds a part of it.
    Partial,
    /// It was deleted; there is a tombstone.
    Deleted,
}

/// The status of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// The status in one or two sentences.
    pub summary: String,
    /// Whether the document says that it may differ from the hub's twin.
    pub flagged: bool,
    /// The reasons for the flags.
    pub reasons: Vec<Reason>,
    /// The last change.
    pub last_event: LastEvent,
    /// When the document's content was decided.
    pub written_at: String,
    /// The incarnation of the twin that it describes.
    pub incarnation: Incarnation,
    /// The time until which the hub's own answer is known to hold.
    pub confirmed_until: Option<String>,
    /// Whether its modules still have to follow, because the device was deleted or created again.
    pub modules_pending: bool,
}

/// A reason for a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// `gap`, `suspect` or `partial`.
    pub kind: &'static str,
    /// Its meaning and its consequence.
    pub text: String,
    /// The hub's time at which it began, if the document contains it.
    pub since: Option<String>,
}

/// The newest change in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastEvent {
    /// Its name, as in `sync.op`.
    pub operation: Operation,
    /// The meaning of the operation.
    pub text: &'static str,
    /// The hub's time of the newest change that the document holds.
    pub at: String,
}

/// One incarnation of a twin: a device that is deleted and created again starts a new one, with versions from the
/// start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incarnation {
    /// What is known about it.
    pub text: String,
    /// When it began.
    pub began: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
}

impl Presence {
    /// The presence that a document shows.
    pub const fn of(document: &Document) -> Self {
        match document.state {
            State::Live { .. } => Self::Present,
            State::Partial { .. } => Self::Partial,
            State::Deleted => Self::Deleted,
        }
    }
}

impl SyncStatus {
    /// The status of `document`. `mended`: whether the hub can be asked about the reasons.
    pub fn of(document: &Document, mended: bool) -> Self {
        Self {
            summary: summary(document, mended),
            flagged: document.is_flagged(),
            reasons: reasons(document),
            last_event: LastEvent {
                operation: document.operation,
                text: operation(document.operation),
                at: document.last.to_string(),
            },
            written_at: document.applied_at.to_string(),
            incarnation: incarnation(document),
            confirmed_until: document.confirmed_until.map(|confirmed| confirmed.to_string()),
            modules_pending: document.cascade.is_some(),
        }
    }
}

fn summary(document: &Document, mended: bool) -> String {
    let mut text = match &document.state {
        State::Live { twin, .. } => {
            format!("The twin is there. The copy has its version {}.", twin.version.0)
        }
        State::Partial { twin, .. } => format!(
            "The twin is there, and only a part of it is known: the changes up to version {}, not what was there before them.",
            twin.version.0
        ),
        State::Deleted => {
            format!("The twin was deleted at {}. This tombstone keeps late events out", document.last)
                + &match document.ttl_seconds {
                    Some(seconds) => format!(", and expires after {}.", length(seconds)),
                    None => ".".to_owned(),
                }
        }
    };
    if document.is_flagged() {
        text += match mended {
            true => {
                " It is flagged: it may differ from the hub's twin. The hub is asked about it in the background."
            }
            false => {
                " It is flagged: it may differ from the hub's twin, and no [iothub] is configured that could be asked about it."
            }
        };
    }
    text
}

fn length(seconds: u32) -> String {
    match seconds {
        86_400.. => format!("{} days", seconds / 86_400),
        _ => format!("{seconds} seconds"),
    }
}

fn reasons(document: &Document) -> Vec<Reason> {
    let partial = match document.state {
        State::Partial { since, .. } => Some(Reason {
            kind: "partial",
            text: "The first change of this twin was seen without the twin that it changed. What was set before is missing, \
                   until its creation arrives or the hub is asked."
                .to_owned(),
            since: Some(since.to_string()),
        }),
        State::Live { .. } | State::Deleted => None,
    };
    let flagged = document.flags.iter().map(|flag| match flag {
        Flag::Gap => Reason {
            kind: "gap",
            text: "Versions were skipped: the hub put several changes into one event, or an event was lost and its \
                   values are missing."
                .to_owned(),
            since: None,
        },
        Flag::Suspect => Reason {
            kind: "suspect",
            text: "An event was not applied, because its place in the order of changes is not known, or because it \
                   could not be read."
                .to_owned(),
            since: document.refused.map(|refused| refused.to_string()),
        },
    });
    partial.into_iter().chain(flagged).collect()
}

const fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "the device or module was created",
        Operation::Delete => "the device or module was deleted",
        Operation::Update => "tags or properties were changed",
        Operation::Replace => "tags and desired properties were replaced as a whole",
        Operation::Snapshot => "the hub was asked, and its answer was applied",
        Operation::Flag => "a flag was set; tags and properties did not change",
    }
}

fn incarnation(document: &Document) -> Incarnation {
    let began = match document.state {
        State::Live { .. } | State::Partial { .. } => document.beginning(),
        State::Deleted => document.previous,
    };
    let text = |time: Ticks| time.to_string();
    let told = match (&document.state, began, document.previous) {
        (State::Live { born: Some(born), .. }, _, previous) => {
            format!("This life of the twin began with its creation at {born}{}.", after(previous))
        }
        (State::Live { born: None, .. }, _, previous) => {
            format!(
                "The beginning of this life of the twin was not seen: its state comes from the hub{}.",
                after(previous)
            )
        }
        (State::Partial { since, .. }, _, previous) => {
            format!(
                "This life of the twin began before {since}, with a creation that was not seen{}.",
                after(previous)
            )
        }
        (State::Deleted, Some(began), _) => {
            format!("The life that ended at {} had begun at {began} or before.", document.last)
        }
        (State::Deleted, None, _) => format!("A life of the twin ended at {}.", document.last),
    };
    let ended = matches!(document.state, State::Deleted).then(|| text(document.last));
    Incarnation { text: told, began: began.map(text), ended }
}

/// The words for a previous incarnation, if there was one.
fn after(previous: Option<Ticks>) -> String {
    previous.map_or_else(String::new, |ended| format!(", after another one that had ended by {ended}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{document::Twin, testing::document, twin::TwinVersion};

    fn at(second: i64) -> (Ticks, String) {
        let ticks = Ticks::new(second * 10_000_000);
        (ticks, ticks.to_string())
    }

    #[test]
    fn a_twin_without_a_flag_says_only_that_it_is_there() {
        let status = SyncStatus::of(&document(7), false);
        assert_eq!(status.summary, "The twin is there. The copy has its version 7.");
        assert!(!status.flagged && status.reasons.is_empty(), "{status:?}");
        assert_eq!(Presence::of(&document(7)), Presence::Present);
        assert_eq!(status.last_event.text, "tags or properties were changed");
        let Incarnation { text, began, ended } = status.incarnation;
        let born = Ticks::new(10).to_string();
        assert_eq!(text, format!("This life of the twin began with its creation at {born}."));
        assert_eq!((began, ended), (Some(born), None));
    }

    #[test]
    fn a_flag_says_why_since_when_and_whether_somebody_will_ask() {
        let (refused, text) = at(50);
        let flagged =
            Document { flags: [Flag::Gap, Flag::Suspect].into(), refused: Some(refused), ..document(7) };
        let status = SyncStatus::of(&flagged, true);
        assert!(status.flagged);
        assert!(status.summary.ends_with("The hub is asked about it in the background."), "{status:?}");
        let reasons: Vec<_> =
            status.reasons.iter().map(|reason| (reason.kind, reason.since.clone())).collect();
        assert_eq!(reasons, [("gap", None), ("suspect", Some(text))]);
        let alone = SyncStatus::of(&flagged, false).summary;
        assert!(alone.contains("no [iothub] is configured"), "{alone}");
    }

    #[test]
    fn a_partial_twin_is_flagged_since_its_first_change() {
        let (since, text) = at(40);
        let twin = Twin { version: TwinVersion(9), ..Twin::default() };
        let partial = Document { state: State::Partial { since, twin, base: Box::default() }, ..document(9) };
        assert_eq!(Presence::of(&partial), Presence::Partial);
        let status = SyncStatus::of(&partial, true);
        assert!(status.summary.contains("up to version 9"), "{status:?}");
        assert_eq!(status.reasons[0].kind, "partial");
        assert_eq!(status.reasons[0].since.as_deref(), Some(&*text));
        assert!(status.incarnation.text.contains(&format!("before {text}")), "{status:?}");
    }

    #[test]
    fn a_tombstone_says_when_and_for_how_long_it_stays() {
        let ((began, began_text), (ended, ended_text)) = (at(60), at(90));
        let tombstone = Document {
            state: State::Deleted,
            last: ended,
            previous: Some(began),
            ttl_seconds: Some(8 * 86_400),
            operation: Operation::Delete,
            ..document(7)
        };
        assert_eq!(Presence::of(&tombstone), Presence::Deleted);
        let status = SyncStatus::of(&tombstone, true);
        let expected = format!(
            "The twin was deleted at {ended_text}. This tombstone keeps late events out, and expires after 8 days."
        );
        assert_eq!(status.summary, expected);
        let Incarnation { began, ended, text } = status.incarnation;
        assert_eq!((began, ended), (Some(began_text), Some(ended_text)), "{text}");
        let flagged = Document { flags: [Flag::Suspect].into(), ..tombstone };
        assert!(
            SyncStatus::of(&flagged, true).summary.contains("flagged"),
            "an event after the deletion was refused"
        );
    }

    #[test]
    fn what_was_there_before_is_told() {
        let (ended, text) = at(5);
        let reborn = Document { previous: Some(ended), ..document(2) };
        let told = SyncStatus::of(&reborn, true).incarnation.text;
        assert!(told.ends_with(&format!("after another one that had ended by {text}.")), "{told}");
    }
}
