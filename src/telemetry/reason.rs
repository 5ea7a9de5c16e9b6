//! Reasons as metrics name them, for what has no type of its own that lists them.

use crate::domain::health::Failure;

/// Reason code of an event whose document the store will never take.
pub const REJECTED_BY_STORE: &str = "rejected_by_store";
/// Reason code of an event of a twin about which the store gives no answer, while it answers about others.
pub const STORE_SILENT: &str = "store_silent";
/// Reason code of a message that the AMQP layer could not decode.
pub const UNDECODABLE_AMQP: &str = "undecodable_amqp";

/// Reason code of an event whose twin's document belongs to another twin.
pub const FOREIGN_DOCUMENT: &str = "foreign_document";

/// Reason codes of dead letters beside those of [`Undeliverable`](crate::domain::undeliverable::Undeliverable).
pub const LETTERS: [&str; 4] = [REJECTED_BY_STORE, STORE_SILENT, FOREIGN_DOCUMENT, UNDECODABLE_AMQP];

/// Why a link is given up whose partition is another one than before.
pub const RECREATED: &str = "recreated";
/// Why a link is given up that delivers old events again.
pub const WENT_BACK: &str = "went_back";
/// Why a link is given up that delivers nothing although events wait.
pub const STALLED: &str = "stalled";

/// All reasons for which a link is given up; the others are those of [`SourceError`](crate::ports::SourceError).
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

/// What a start cannot do without.
pub const NEEDED: [&str; 5] = ["credential", "cosmos", "checkpoints", "dead_letters", "eventhubs"];

/// Why a checkpoint or a dead letter could not be written: the store asks for less.
pub const THROTTLED: &str = "throttled";
/// The store does not answer, or refuses us.
pub const UNAVAILABLE: &str = "unavailable";

/// All reasons for which a checkpoint or a dead letter is not written.
pub const FAILURES: [&str; 2] = [THROTTLED, UNAVAILABLE];

/// The reason of such a failure.
pub const fn of_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::Throttled => THROTTLED,
        Failure::Silent => UNAVAILABLE,
    }
}
