//! To come.
/// Placeholder until the document lands.
#[derive(Debug, Clone)]
pub struct Document;
