//! Why an event can never be applied, and the limits behind that.

/// The maximum nesting of a body: the limit of Cosmos DB for an item.
pub const MAX_DEPTH: usize = 128;

/// The longest device or module id, in characters: IoT Hub's own limit. Both ids together with the hub's name, when
/// encoded, are well below the 1,023 bytes that Cosmos DB accepts for an id.
pub const MAX_ID: usize = 128;

/// Why an event can never be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Undeliverable {
    /// The message is larger than the configured limit.
    #[error("the message is larger than the configured limit")]
    TooLarge,
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// The body nests deeper than [`MAX_DEPTH`].
    #[error("the body nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The body is not JSON.
    #[error("the body is not valid JSON")]
    NotJson,
    /// The body is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotObject,
    /// A section (`tags`, `properties`, `properties.desired`, `properties.reported`) is not an object.
    #[error("tags or properties are not JSON objects")]
    SectionNotObject,
    /// No device id in properties, annotations or body.
    #[error("no device id in properties, annotations or body")]
    NoDevice,
    /// An operation on a module that does not name it.
    #[error("no module id in properties, annotations or body of an operation on a module")]
    NoModule,
    /// An id that is longer than IoT Hub allows, and that Cosmos DB may not accept.
    #[error("the device or module id is longer than {MAX_ID} characters")]
    IdTooLong,
    /// No hub name.
    #[error("no hub name in the application properties")]
    NoHub,
    /// No usable time.
    #[error("no usable operation time or enqueued time")]
    NoTime,
    /// A change without a version cannot be ordered.
    #[error("no usable version in the body")]
    NoVersion,
}

impl Undeliverable {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::TooLarge,
        Self::NotUtf8,
        Self::TooDeep,
        Self::NotJson,
        Self::NotObject,
        Self::SectionNotObject,
        Self::NoDevice,
        Self::NoModule,
        Self::IdTooLong,
        Self::NoHub,
        Self::NoTime,
        Self::NoVersion,
    ];

    /// Stable reason code of dead letters and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::TooDeep => "too_deep",
            Self::NotJson => "not_json",
            Self::NotObject => "not_an_object",
            Self::SectionNotObject => "section_not_an_object",
            Self::NoDevice => "no_device_id",
            Self::NoModule => "no_module_id",
            Self::IdTooLong => "id_too_long",
            Self::NoHub => "no_hub_name",
            Self::NoTime => "no_time",
            Self::NoVersion => "no_version",
        }
    }
}
