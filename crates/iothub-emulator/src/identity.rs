//! Identities: the names of twins within one hub.

use std::fmt;

use serde::Serialize;

use super::Error;

const LONGEST_ID: usize = 128;
/// The union of the lists in Microsoft's documentation, which differ on `#`, `+`, `:` and `;`. A consumer must
/// handle every id that any list allows.
const SPECIAL_CHARACTERS: &str = "-:.+%_#*?!(),=@;$'";

/// The id of one twin: of a device, or of a module of a device. Ids are case-sensitive.
///
/// Ordered by device. The device's own twin comes before those of its modules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TwinId {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
}

impl TwinId {
    /// The id of the device `device_id`.
    ///
    /// # Errors
    /// [`Error::InvalidId`] if the id is empty, longer than 128 characters, or has a character outside ASCII
    /// letters, digits and `- : . + % _ # * ? ! ( ) , = @ ; $ '`.
    pub fn device(device_id: impl Into<String>) -> Result<Self, Error> {
        let device_id = device_id.into();
        check("device", &device_id)?;
        Ok(Self { device_id, module_id: None })
    }

    /// The id of the module `module_id` of the device `device_id`.
    ///
    /// # Errors
    /// As [`TwinId::device`], for either id.
    pub fn module(device_id: impl Into<String>, module_id: impl Into<String>) -> Result<Self, Error> {
        let module_id = module_id.into();
        check("module", &module_id)?;
        Ok(Self { module_id: Some(module_id), ..Self::device(device_id)? })
    }

    /// The device's id. For a module, the id of its device.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The module's id. `None` for a device.
    pub fn module_id(&self) -> Option<&str> {
        self.module_id.as_deref()
    }

    /// The id of the device itself.
    pub(crate) fn parent(&self) -> TwinId {
        TwinId { device_id: self.device_id.clone(), module_id: None }
    }
}

impl fmt::Display for TwinId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module_id {
            None => write!(formatter, "device {:?}", self.device_id),
            Some(module_id) => write!(formatter, "module {module_id:?} of device {:?}", self.device_id),
        }
    }
}

fn check(kind: &'static str, id: &str) -> Result<(), Error> {
    let reason = if id.is_empty() {
        "it is empty".to_owned()
    } else if id.len() > LONGEST_ID {
        format!("it is longer than {LONGEST_ID} characters")
    } else if let Some(character) = id
        .chars()
        .find(|character| !character.is_ascii_alphanumeric() && !SPECIAL_CHARACTERS.contains(*character))
    {
        format!("character {character:?} is not allowed")
    } else {
        return Ok(());
    };
    Err(Error::InvalidId { kind, id: id.chars().take(LONGEST_ID + 1).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_character_that_any_page_allows_is_accepted() {
        assert!(TwinId::device(format!("Aa0{SPECIAL_CHARACTERS}")).is_ok());
        assert!(TwinId::module("d", "$edgeAgent").is_ok());
        assert!(TwinId::device("x".repeat(128)).is_ok());
    }

    #[test]
    fn empty_long_and_foreign_ids_are_refused() {
        for id in ["", "a b", "a/b", "a\\b", "ü", "a\n", &"x".repeat(129)] {
            assert!(matches!(TwinId::device(id), Err(Error::InvalidId { kind: "device", .. })), "{id:?}");
            assert!(
                matches!(TwinId::module("d", id), Err(Error::InvalidId { kind: "module", .. })),
                "{id:?}"
            );
        }
    }

    #[test]
    fn ids_differ_by_case_and_a_device_sorts_before_its_modules() {
        let lower = TwinId::device("a").unwrap();
        assert_ne!(TwinId::device("A").unwrap(), lower);
        assert!(lower < TwinId::module("a", "$m").unwrap());
        assert!(TwinId::module("a", "z").unwrap() < TwinId::device("b").unwrap());
    }
}
