//! Why a request is not admitted: the internal reason, and the answer that does not contain it.

use crate::serve::refusal::Refusal;

/// Why a request is not admitted. It is for logs and metrics. The client only receives [`Denied::answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// There is no `Authorization` header.
    #[error("the request has no authorization header")]
    Missing,
    /// There are several such headers. A proxy may have added one, and it is unknown which of them counts.
    #[error("the request has several authorization headers")]
    Several,
    /// The header has neither of the two forms, or a part of it cannot be parsed.
    #[error("the authorization is neither a readable shared access signature nor a readable bearer token")]
    Malformed,
    /// The form of the header is not configured.
    #[error("this kind of authorization is not configured")]
    NotConfigured,
    /// The signature names no existing policy, or none at all, as signatures of devices do.
    #[error("there is no such policy")]
    UnknownPolicy,
    /// The signature, or the token's signature, was not made with the key.
    #[error("the signature does not match")]
    WrongSignature,
    /// The signature is for another host, or for a path that does not contain the request's path.
    #[error("the signature is for another resource")]
    WrongResource,
    /// It has expired.
    #[error("the authorization has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the authorization is not valid yet")]
    NotYetValid,
    /// It is valid for longer than the configuration allows.
    #[error("the authorization is valid for longer than is allowed")]
    TooLong,
    /// The token is signed with an algorithm other than RS256, or is not signed.
    #[error("the token's algorithm is not RS256")]
    WrongAlgorithm,
    /// The token is from another tenant or another issuer.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// The token is for another audience.
    #[error("the token is for another audience")]
    WrongAudience,
    /// The issuer has no key with the token's key id.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The token is valid, but its identity is not allowed to read.
    #[error("neither a role nor the object id of the token is allowed")]
    NoRole,
    /// The issuer's keys cannot be fetched, so the token cannot be checked.
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
}

/// One answer for every error in an authorization, so that it cannot be used to guess policies or keys.
///
/// IoT Hub answers with these words if it does not know the policy or the key: Azure/Industrial-IoT#831 and Azure/iotedgehubdev#95 show
/// body and status, helium/console#1039 the header. None of them shows `WWW-Authenticate`, and none of the clients reads it.
const UNAUTHORIZED: Refusal = Refusal::new(401, "IotHubUnauthorizedAccess", "Unauthorized");

/// If the token cannot be checked, that is not the client's fault: it would give up after a 401, but retries after this.
const UNAVAILABLE: Refusal =
    Refusal::new(503, "ServiceUnavailable", "Authorization cannot be checked at the moment").retry_after(10);

impl Denied {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::Missing,
        Self::Several,
        Self::Malformed,
        Self::NotConfigured,
        Self::UnknownPolicy,
        Self::WrongSignature,
        Self::WrongResource,
        Self::Expired,
        Self::NotYetValid,
        Self::TooLong,
        Self::WrongAlgorithm,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::UnknownKey,
        Self::NoRole,
        Self::KeysUnavailable,
    ];

    /// The reason in logs and as a label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Several => "several",
            Self::Malformed => "malformed",
            Self::NotConfigured => "not_configured",
            Self::UnknownPolicy => "unknown_policy",
            Self::WrongSignature => "wrong_signature",
            Self::WrongResource => "wrong_resource",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::TooLong => "too_long",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::UnknownKey => "unknown_key",
            Self::NoRole => "no_role",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// The answer to the client.
    pub const fn answer(self) -> Refusal {
        match self {
            Self::KeysUnavailable => UNAVAILABLE,
            Self::Missing
            | Self::Several
            | Self::Malformed
            | Self::NotConfigured
            | Self::UnknownPolicy
            | Self::WrongSignature
            | Self::WrongResource
            | Self::Expired
            | Self::NotYetValid
            | Self::TooLong
            | Self::WrongAlgorithm
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::UnknownKey
            | Self::NoRole => UNAUTHORIZED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn whatever_was_wrong_is_answered_alike() {
        for denied in Denied::ALL.into_iter().filter(|denied| *denied != Denied::KeysUnavailable) {
            let Refusal { status, code, message, retry_after_seconds } = denied.answer();
            assert_eq!((status, code), (401, "IotHubUnauthorizedAccess"));
            assert_eq!((&*message, retry_after_seconds), ("Unauthorized", None));
        }
    }

    #[test]
    fn what_we_cannot_verify_is_no_refusal() {
        let answer = Denied::KeysUnavailable.answer();
        assert_eq!((answer.status, answer.retry_after_seconds), (503, Some(10)));
    }

    #[test]
    fn each_reason_has_a_label_of_its_own() {
        let labels: BTreeSet<_> = Denied::ALL.into_iter().map(Denied::label).collect();
        assert_eq!(labels.len(), Denied::ALL.len());
    }
}
