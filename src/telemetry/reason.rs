//! Reason labels of metrics, for reasons that have no type that lists them.

use crate::domain::health::Failure;

/// Reason code of an event whose document the store will never take.
pub const REJECTED_BY_STORE: &str = "rejected_by_store";
/// Reason code of an event of a twin for which the store gives no answer, while it answers about others.
pub const STORE_SILENT: &str = "store_silent";
/// Reason code of a message that the AMQP layer could not decode.
pub const UNDECODABLE_AMQP: &str = "undecodable_amqp";

/// Reason code of an event whose twin's document belongs to another twin.
pub const FOREIGN_DOCUMENT: &str = "foreign_document";

/// Reason codes of dead letters in addition to those of [`Undeliverable`](crate::domain::undeliverable::Undeliverable).
pub const LETTERS: [&str; 4] = [REJECTED_BY_STORE, STORE_SILENT, FOREIGN_DOCUMENT, UNDECODABLE_AMQP];

/// A link is given up because its partition is another one than before.
pub const RECREATED: &str = "recreated";
/// A link is given up because it delivers old events again.
pub const WENT_BACK: &str = "went_back";
/// A link is given up because it delivers nothing although events wait.
pub const STALLED: &str = "stalled";

/// All reasons for which a link is given up. The others are those of [`SourceError`](crate::ports::SourceError).
pub const REBUILDS: [&str; 12] = [
    RECREATED,
    WENT_BACK,
    STALLED,
    "undecodable",
    "stolen",
    "refused",
    "no_token",
    "token_expired",
    "not_found",
    "throttled",
    "limit_reached",
    "lost",
];

/// The dependencies that a start needs.
pub const NEEDED: [&str; 5] = ["credential", "cosmos", "checkpoints", "dead_letters", "eventhubs"];

/// A checkpoint or a dead letter could not be written: the store throttled.
pub const THROTTLED: &str = "throttled";
/// The store did not answer, or refused the request.
pub const UNAVAILABLE: &str = "unavailable";

/// All reasons for which a checkpoint or a dead letter is not written.
pub const FAILURES: [&str; 2] = [THROTTLED, UNAVAILABLE];

/// The reason label of a failure.
pub const fn of_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::Throttled => THROTTLED,
        Failure::Silent => UNAVAILABLE,
    }
}
