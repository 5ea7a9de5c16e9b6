//! `twinsync run`: the daemon.

use std::process::ExitCode;

use super::{Error, Sources, ended};
use crate::{app, config::Settings, telemetry};

/// Loads the configuration, starts everything, and returns when the daemon has stopped. Its last word is of the log's format.
pub async fn run(sources: &Sources) -> ExitCode {
    match sources.load() {
        Ok(settings) => {
            let format = settings.telemetry.log_format;
            ended(start(&settings).await, format)
        }
        Err(error) => {
            let format = error.log_format;
            ended(Err(error.into()), format)
        }
    }
}

async fn start(settings: &Settings) -> Result<(), Error> {
    let journal = telemetry::init(&settings.telemetry).map_err(|error| Error::Failed(error.to_string()))?;
    app::run(settings, journal).await?;
    Ok(())
}
