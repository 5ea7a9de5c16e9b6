//! `twinsync run`: the daemon.

use super::{Error, Sources};
use crate::{app, telemetry};

/// Loads the configuration, starts everything, and returns when the daemon has stopped.
pub async fn run(sources: &Sources) -> Result<(), Error> {
    let settings = sources.load()?;
    telemetry::init(&settings.telemetry).map_err(|error| Error::Failed(error.to_string()))?;
    app::run(&settings).await?;
    Ok(())
}
