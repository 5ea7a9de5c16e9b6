//! The fields of a dead letter that are printed without its payload.

use serde::Serialize;

use crate::cli::output::printable;
use crate::{
    domain::{
        decode::subject,
        message::{Message, Property},
        ticks::Ticks,
    },
    ports::{LetterName, StoredLetter},
};

/// A dead letter without its payload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) letter: String,
    pub(super) stream: String,
    pub(super) partition: String,
    pub(super) sequence_number: i64,
    pub(super) enqueued: Option<Ticks>,
    pub(super) stored_at: Option<Ticks>,
    pub(super) reason: String,
    pub(super) detail: String,
    pub(super) device: Option<String>,
    pub(super) module: Option<String>,
    pub(super) operation: Option<String>,
    pub(super) body_bytes: usize,
}

impl Row {
    pub(super) fn new(name: &LetterName, letter: &StoredLetter) -> Self {
        let message = &letter.message;
        let (device, module) = subject(message);
        Self {
            letter: name.to_string(),
            stream: letter.partition.stream.clone(),
            partition: letter.partition.partition.clone(),
            sequence_number: message.position.sequence_number.0,
            enqueued: message.enqueued,
            stored_at: letter.stored_at,
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            device,
            module,
            operation: operation(message),
            body_bytes: message.body.len(),
        }
    }

    /// `device`, or `device/module`; `-` if the dead letter names none.
    pub(super) fn twin(&self) -> String {
        let device = self.device.as_deref().unwrap_or("-");
        let twin = match &self.module {
            None => device.to_owned(),
            Some(module) => format!("{device}/{module}"),
        };
        printable(&twin, false)
    }

    /// Name, reason and twin: the beginning of a line about a single dead letter.
    pub(super) fn head(&self) -> String {
        let (letter, reason) = (printable(&self.letter, false), printable(&self.reason, false));
        format!("{letter}  {reason}  {}", self.twin())
    }
}

fn operation(message: &Message) -> Option<String> {
    message.application_properties.get("opType").and_then(Property::as_text).map(|text| text.into_owned())
}

/// A time for people, to the second.
pub(super) fn when(at: Option<Ticks>) -> String {
    let text = at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}
