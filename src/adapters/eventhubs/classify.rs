//! Classifies an error of the SDK: refused, not found, or lost.
//!
//! The SDK (azure_messaging_eventhubs 0.15 on azure_core_amqp 1.1) wraps the peer's answer several times, and keeps it
//! as a value: an answer of `$cbs` and `$management` as a status, the end of a link or connection as a condition, a
//! token that could not be obtained as our own [`NoToken`]. These are found by scanning the sources. If there is only
//! text, it counts only if it contains the SDK's own wording of a status or the whole name of a condition, because an
//! address or a name may contain any digits.

use std::error::Error as StdError;

use azure_core::{error::ErrorKind, http::StatusCode};
use azure_core_amqp::{AmqpError, AmqpErrorKind};
use azure_messaging_eventhubs::EventHubsError;
use fe2o3_amqp::{
    link::{DetachError, LinkStateError, ReceiverAttachError, RecvError, SenderAttachError},
    types::{
        definitions::{self, ErrorCondition},
        primitives::Symbol,
    },
};

use super::super::credential::NoToken;
use crate::ports::SourceError;

/// The meaning of the peer's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Refused,
    NotFound,
    Stolen,
    /// We read more than the throughput of the namespace allows.
    Throttled,
    /// There are more readers or connections than allowed.
    LimitReached,
    /// Anything else: it is temporary, or at least worth another attempt.
    Other,
}

/// The conditions that we recognise. Those of AMQP are defined in its specification (part 2, 2.8.15 and 2.8.18); the
/// others are treated as refused authentication and as throttling by Azure's SDKs (e.g. `azure-core-amqp` for Java,
/// `AmqpErrorCondition`).
const CONDITIONS: [(&str, Meaning); 7] = [
    ("amqp:unauthorized-access", Meaning::Refused),
    ("com.microsoft:auth-failed", Meaning::Refused),
    ("com.microsoft:server-busy", Meaning::Throttled),
    ("amqp:resource-limit-exceeded", Meaning::LimitReached),
    ("amqp:not-found", Meaning::NotFound),
    ("amqp:resource-deleted", Meaning::NotFound),
    ("amqp:link:stolen", Meaning::Stolen),
];

/// How the SDK, and the property of an answer, write a status.
const STATUS_WORDS: [&str; 2] = ["status code: ", "status-code: "];

/// Classifies an error of the SDK.
pub(super) fn classify(operation: &'static str, error: &EventHubsError) -> SourceError {
    classify_any(operation, error)
}

fn classify_any(operation: &'static str, error: &(dyn StdError + 'static)) -> SourceError {
    let mut cause = Some(error);
    let (mut reason, mut texts, mut no_token) = (String::new(), Vec::new(), false);
    while let Some(current) = cause {
        if let Some(RecvError::MessageDecode(reason)) = current.downcast_ref::<RecvError>() {
            return SourceError::Undecodable(reason.to_string());
        }
        if let Some(no_token) = current.downcast_ref::<NoToken>() {
            return SourceError::NoToken { reason: no_token.to_string(), refused: no_token.refused };
        }
        let text = first_line(&current.to_string());
        if let Some(meaning) = meaning(current) {
            return told(operation, meaning, text);
        }
        no_token |= current
            .downcast_ref::<azure_core::Error>()
            .is_some_and(|error| matches!(error.kind(), ErrorKind::Credential));
        texts.push(text.clone());
        reason = text;
        cause = current.source();
    }
    if no_token {
        // The error comes from a credential that is not ours.
        return SourceError::NoToken { reason, refused: false };
    }
    let meaning = texts.iter().map(|text| worded(text)).find(|meaning| *meaning != Meaning::Other);
    told(operation, meaning.unwrap_or(Meaning::Other), reason)
}

fn told(operation: &'static str, meaning: Meaning, reason: String) -> SourceError {
    match meaning {
        Meaning::Refused => SourceError::Refused { operation, reason },
        Meaning::NotFound => SourceError::NotFound { operation, reason },
        Meaning::Stolen => SourceError::Stolen,
        Meaning::Throttled => SourceError::Throttled { operation, reason },
        Meaning::LimitReached => SourceError::LimitReached { operation, reason },
        Meaning::Other => SourceError::Lost { operation, reason },
    }
}

/// The peer's answer, if this error contains it as a value.
fn meaning(error: &(dyn StdError + 'static)) -> Option<Meaning> {
    if let Some(error) = error.downcast_ref::<AmqpError>() {
        return match error.kind() {
            AmqpErrorKind::ManagementStatusCode(status, _) => Some(of_status(*status)),
            AmqpErrorKind::AmqpDescribedError(described) => Some(of_condition((&described.condition).into())),
            _ => None,
        };
    }
    remote(error).map(|error| match &error.condition {
        ErrorCondition::Custom(name) => of_condition(name.as_str()),
        ErrorCondition::AmqpError(condition) => of_condition(Symbol::from(condition).as_str()),
        ErrorCondition::LinkError(condition) => of_condition(Symbol::from(condition).as_str()),
        ErrorCondition::ConnectionError(_) | ErrorCondition::SessionError(_) => Meaning::Other,
    })
}

/// The error with which the peer ended a link.
fn remote<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a definitions::Error> {
    let state = match error.downcast_ref() {
        Some(RecvError::LinkStateError(state)) => Some(state),
        _ => error.downcast_ref(),
    };
    if let Some(
        LinkStateError::RemoteClosedWithError(error) | LinkStateError::RemoteDetachedWithError(error),
    ) = state
    {
        return Some(error);
    }
    if let Some(ReceiverAttachError::RemoteClosedWithError(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(SenderAttachError::RemoteClosedWithError(error)) = error.downcast_ref() {
        return Some(error);
    }
    match error.downcast_ref() {
        Some(DetachError::RemoteClosedWithError(error) | DetachError::RemoteDetachedWithError(error)) => {
            Some(error)
        }
        _ => None,
    }
}

fn of_status(status: StatusCode) -> Meaning {
    match status {
        StatusCode::Unauthorized | StatusCode::Forbidden => Meaning::Refused,
        StatusCode::NotFound | StatusCode::Gone => Meaning::NotFound,
        StatusCode::TooManyRequests => Meaning::Throttled,
        _ => Meaning::Other,
    }
}

fn of_condition(name: &str) -> Meaning {
    CONDITIONS.iter().find(|(known, _)| *known == name).map_or(Meaning::Other, |(_, meaning)| *meaning)
}

/// The meaning of a text, if there is no value.
fn worded(text: &str) -> Meaning {
    for words in STATUS_WORDS {
        if let Some((_, rest)) = text.split_once(words) {
            let digits = rest.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
            return digits.parse::<u16>().map_or(Meaning::Other, |status| of_status(status.into()));
        }
    }
    let ends = |character: char| !(character.is_ascii_alphanumeric() || "-:._".contains(character));
    let meanings = text.split(ends).map(|token| of_condition(token.trim_matches([':', '.'])));
    meanings.into_iter().find(|meaning| *meaning != Meaning::Other).unwrap_or(Meaning::Other)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use azure_core_amqp::{AmqpDescribedError, AmqpErrorCondition, AmqpOrderedMap};
    use fe2o3_amqp::types::definitions::{AmqpError as Condition, LinkError};

    use super::*;

    fn name(error: impl Into<EventHubsError>) -> &'static str {
        classify("testing", &error.into()).name()
    }

    fn kind(kind: AmqpErrorKind) -> AmqpError {
        AmqpError::from(kind)
    }

    fn said(text: &'static str) -> AmqpError {
        AmqpError::with_message(text)
    }

    #[test]
    fn the_status_of_an_answer_tells() {
        for (status, expected) in [
            (StatusCode::Unauthorized, "refused"),
            (StatusCode::Forbidden, "refused"),
            (StatusCode::NotFound, "not_found"),
            (StatusCode::Gone, "not_found"),
            (StatusCode::BadRequest, "lost"),
            (StatusCode::TooManyRequests, "throttled"),
            (StatusCode::InternalServerError, "lost"),
            (StatusCode::ServiceUnavailable, "lost"),
        ] {
            // The rest of the description does not count.
            let description = Some("amqp:not-found status code: 401".to_owned());
            let error = kind(AmqpErrorKind::ManagementStatusCode(status, description));
            assert_eq!(name(error), expected, "{status}");
        }
    }

    #[test]
    fn the_condition_tells_in_whatever_it_is_wrapped() {
        for (condition, expected) in [
            (AmqpErrorCondition::UnauthorizedAccess, "refused"),
            (AmqpErrorCondition::UnknownValue("com.microsoft:auth-failed".into()), "refused"),
            (AmqpErrorCondition::NotFound, "not_found"),
            (AmqpErrorCondition::ResourceDeleted, "not_found"),
            (AmqpErrorCondition::LinkStolen, "stolen"),
            (AmqpErrorCondition::ServerBusyError, "throttled"),
            (AmqpErrorCondition::NotAllowed, "lost"),
            (AmqpErrorCondition::MessageNotFound, "lost"),
            (AmqpErrorCondition::UnknownValue("x.amqp:not-found".into()), "lost"),
        ] {
            let text = Some("status code: 404, amqp:unauthorized-access".to_owned());
            let described = AmqpDescribedError::new(condition.clone(), text, AmqpOrderedMap::default());
            let error = kind(AmqpErrorKind::AmqpDescribedError(described.clone()));
            assert_eq!(name(error), expected, "{condition:?}");
            let inside = azure_core::Error::from(kind(AmqpErrorKind::AmqpDescribedError(described)));
            assert_eq!(name(inside), expected, "{condition:?} inside");
        }
        for (condition, expected) in [
            (ErrorCondition::from(Condition::UnauthorizedAccess), "refused"),
            (Condition::NotFound.into(), "not_found"),
            (LinkError::Stolen.into(), "stolen"),
            (Condition::ResourceLimitExceeded.into(), "limit_reached"),
            (LinkError::DetachForced.into(), "lost"),
            (ErrorCondition::Custom(Symbol::from("com.microsoft:auth-failed")), "refused"),
        ] {
            let error = || definitions::Error::new(condition.clone(), None, None);
            let closed = RecvError::LinkStateError(LinkStateError::RemoteClosedWithError(error()));
            assert_eq!(name(kind(AmqpErrorKind::LinkStateError(Box::new(closed)))), expected);
            let state = LinkStateError::RemoteDetachedWithError(error());
            assert_eq!(name(kind(AmqpErrorKind::LinkStateError(Box::new(state)))), expected);
            let detached = DetachError::RemoteClosedWithError(error());
            assert_eq!(name(kind(AmqpErrorKind::DetachError(Box::new(detached)))), expected);
            let attach = ReceiverAttachError::RemoteClosedWithError(error());
            assert_eq!(name(kind(AmqpErrorKind::TransportImplementationError(Box::new(attach)))), expected);
            let attach = SenderAttachError::RemoteClosedWithError(error());
            assert_eq!(name(kind(AmqpErrorKind::TransportImplementationError(Box::new(attach)))), expected);
        }
    }

    #[test]
    fn of_text_only_whole_names_and_the_sdks_own_wording_of_a_status_count() {
        for (text, expected) in [
            ("Management API returned status code: 401 (no)", "refused"),
            ("Management API returned status code: 403", "refused"),
            ("status-code: 404, status-description: no such hub", "not_found"),
            ("condition: amqp:unauthorized-access, description: no", "refused"),
            ("(amqp:not-found)", "not_found"),
            ("closed with com.microsoft:auth-failed: expired", "refused"),
            // Ports, names, numbers and other words must not count.
            ("connection to 10.0.0.1:40123 refused", "lost"),
            ("connect 127.0.0.1:404: Connection refused (os error 111)", "lost"),
            ("401", "lost"),
            ("partition 404 of hub-401", "lost"),
            ("status code: 4010", "lost"),
            ("status code: 500, tracking id 404", "lost"),
            ("Unauthorized", "lost"),
            ("NotFound", "lost"),
            ("Credential", "lost"),
            ("com.microsoft:message-not-found", "lost"),
            ("my-amqp:not-found-hub", "lost"),
            ("amqp:not-found-at-all", "lost"),
        ] {
            assert_eq!(name(said(text)), expected, "{text}");
            assert_eq!(name(azure_core::Error::with_message(ErrorKind::Other, text)), expected, "{text}");
        }
        let refused = std::io::Error::other("connect to 10.4.0.1:40404 failed");
        assert_eq!(name(azure_core::Error::from(refused)), "lost");
    }

    #[test]
    fn a_token_that_could_not_be_had_names_the_credential() {
        for refused in [true, false] {
            let no_token = NoToken { kind: "managed", reason: "no answer".into(), refused };
            let inner = azure_core::Error::new(ErrorKind::Credential, no_token);
            let outer = azure_core::Error::with_error(ErrorKind::Credential, inner, "after 4 tries");
            let found = classify("testing", &AmqpError::from(outer).into());
            assert!(
                matches!(&found, SourceError::NoToken { reason, refused: found } if *found == refused && reason.contains("\"managed\"")),
                "{found:?}"
            );
        }
    }
}
