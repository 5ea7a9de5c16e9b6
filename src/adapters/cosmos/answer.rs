//! The meaning of a Cosmos DB status for one document, and what an operator can do about it.
//!
//! | status | meaning for the document |
//! |---|---|
//! | 404 | it does not exist |
//! | 409, 412 | it is not the one that the condition names |
//! | 400 | the store will never accept it, or its id |
//! | 413, from any sender | it is too large |
//! | any of these with a substatus | nothing: it is about the container, the account, or the session |
//! | 404, 400 without any header of Cosmos DB's | nothing: an intermediary sent it |
//! | anything else | nothing |
//!
//! Substatuses are listed on Microsoft's pages about troubleshooting Cosmos DB, one page per status, and in the SDK.

use azure_data_cosmos::CosmosError;

/// The meaning of an answer for the requested document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It does not exist.
    Missing,
    /// It is not the one that the condition names.
    Conflict,
    /// It, or its id, can never be stored.
    Refused,
    /// It can never be stored because of its size.
    TooLarge,
    /// Nothing: the error is temporary, or must be fixed elsewhere.
    Nothing,
}

/// The parts of an answer that determine its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The substatus; 0 if there is none.
    pub(super) substatus: u16,
    /// Whether the answer came from the network: otherwise, the SDK generates a status.
    pub(super) from_wire: bool,
    /// Whether the answer has headers that only Cosmos DB sends.
    pub(super) from_cosmos: bool,
}

impl Answer {
    pub(super) fn of(error: &CosmosError) -> Self {
        let status = error.status();
        let headers = error.response().map(|response| response.headers());
        Self {
            status: status.status_code().into(),
            substatus: status.sub_status().map_or(0, |substatus| substatus.value()),
            from_wire: error.is_from_wire(),
            from_cosmos: headers.is_some_and(|headers| {
                headers.activity_id.is_some()
                    || headers.request_charge.is_some()
                    || headers.session_token.is_some()
                    || headers.substatus.is_some()
            }),
        }
    }
}

pub(super) const fn meaning(answer: &Answer) -> Meaning {
    let Answer { status, substatus, from_wire, from_cosmos } = *answer;
    match (status, substatus) {
        (404, 0) if from_wire && from_cosmos => Meaning::Missing,
        (409 | 412, _) if from_wire => Meaning::Conflict,
        (400, 0) if from_wire && from_cosmos => Meaning::Refused,
        (413, _) if from_wire => Meaning::TooLarge,
        _ => Meaning::Nothing,
    }
}

/// Code of a store that gives no usable answer.
pub(super) const UNAVAILABLE: &str = "COSMOS_UNAVAILABLE";

/// Stable code of an answer that says nothing about the document.
pub(super) const fn code(answer: &Answer) -> &'static str {
    let Answer { status, substatus, from_wire, from_cosmos } = *answer;
    match (status, substatus) {
        (429, _) => "COSMOS_THROTTLED",
        // A failover ends without any action.
        (403, 3 | 1008) => UNAVAILABLE,
        (401 | 403, _) if from_wire => "COSMOS_REFUSED",
        (404, 1003) if from_wire && from_cosmos => "COSMOS_NOT_FOUND",
        (400, 1001) if from_wire && from_cosmos => "COSMOS_PARTITION_KEY",
        _ => UNAVAILABLE,
    }
}

/// What to do about it; `None` if that is unknown or the error is temporary.
pub(super) const fn remedy(answer: &Answer) -> Option<&'static str> {
    let Answer { status, substatus, from_wire, from_cosmos } = *answer;
    if !from_wire {
        return None;
    }
    Some(match (status, substatus) {
        (404 | 400, 0) if !from_cosmos => {
            "this answer is not from Cosmos DB: check cosmos.endpoint, and any proxy or gateway on the way"
        }
        (404, 1003) => {
            "the database or the container does not exist any more: create it again, with partition key /deviceId"
        }
        (400, 1001) => "the container has another partition key than /deviceId",
        (400, 1024) => "the container was re-created: restart twinsync",
        (401, _) => "check cosmos.key: it may have been regenerated",
        (403, 3) => {
            "the account accepts writes in another region: wait for the failover, or restart twinsync"
        }
        (403, 1008) => "the account is not available in this region any more",
        (403, 1014) => {
            "the device's logical partition has reached its limit of 20 GB: something other than twinsync fills it"
        }
        (403, 5300..=5302) => {
            "give the identity the role `Cosmos DB Built-in Data Contributor` on the account"
        }
        (403, _) => "check the account's network rules, and the identity's role on it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cosmos(status: u16, substatus: u16) -> Answer {
        Answer { status, substatus, from_wire: true, from_cosmos: true }
    }

    const fn gateway(status: u16) -> Answer {
        Answer { from_cosmos: false, ..cosmos(status, 0) }
    }

    const fn made_up(status: u16, substatus: u16) -> Answer {
        Answer { from_wire: false, from_cosmos: false, ..cosmos(status, substatus) }
    }

    #[test]
    fn only_cosmos_dbs_own_word_about_a_document_is_taken_for_one() {
        for (answer, expected) in [
            (cosmos(404, 0), Meaning::Missing),
            (cosmos(404, 1002), Meaning::Nothing), // the replica lags behind the session
            (cosmos(404, 1003), Meaning::Nothing), // the container does not exist
            (cosmos(404, 1013), Meaning::Nothing), // the container is being created
            (gateway(404), Meaning::Nothing),
            (made_up(404, 0), Meaning::Nothing),
            (cosmos(409, 0), Meaning::Conflict),
            (cosmos(412, 0), Meaning::Conflict),
            (cosmos(400, 0), Meaning::Refused),
            (cosmos(400, 1001), Meaning::Nothing), // another partition key
            (cosmos(400, 1024), Meaning::Nothing), // another container of the same name
            (gateway(400), Meaning::Nothing),
            (made_up(400, 20_100), Meaning::Nothing), // the SDK's own refusal
            (cosmos(413, 0), Meaning::TooLarge),
            (gateway(413), Meaning::TooLarge),
            (cosmos(401, 0), Meaning::Nothing),
            (cosmos(403, 3), Meaning::Nothing),
            (cosmos(403, 1008), Meaning::Nothing),
            (cosmos(403, 1014), Meaning::Nothing),
            (cosmos(403, 5300), Meaning::Nothing),
            (cosmos(408, 0), Meaning::Nothing),
            (cosmos(410, 1000), Meaning::Nothing),
            (cosmos(429, 3200), Meaning::Nothing),
            (cosmos(449, 0), Meaning::Nothing),
            (cosmos(503, 0), Meaning::Nothing),
        ] {
            assert_eq!(meaning(&answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn what_a_person_has_to_mend_is_told() {
        for answer in [
            gateway(404),
            gateway(400),
            cosmos(404, 1003),
            cosmos(400, 1001),
            cosmos(400, 1024),
            cosmos(401, 0),
            cosmos(403, 0),
            cosmos(403, 1014),
            cosmos(403, 5300),
        ] {
            assert!(remedy(&answer).is_some(), "{answer:?}");
        }
        for answer in
            [cosmos(404, 0), cosmos(412, 0), cosmos(429, 3200), cosmos(503, 0), made_up(401, 20_401)]
        {
            assert_eq!(remedy(&answer), None, "{answer:?}");
        }
    }
}
