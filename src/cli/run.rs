//! `twinsync run`, the daemon, and `twinsync serve`, IoT Hub's read API: the long-running commands.

use std::process::ExitCode;

use super::{Error, Sources, ended};
use crate::{app, config::Settings, telemetry};

/// A long-running command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The daemon.
    Daemon,
    /// IoT Hub's read API.
    ReadApi,
}

/// Loads the configuration, starts everything, and returns when it has stopped. The final line has the format of the log.
pub async fn run(service: Service, sources: &Sources) -> ExitCode {
    match sources.load() {
        Ok(settings) => {
            let format = settings.telemetry.log_format;
            ended(start(service, &settings).await, format)
        }
        Err(error) => {
            let format = error.log_format;
            ended(Err(error.into()), format)
        }
    }
}

async fn start(service: Service, settings: &Settings) -> Result<(), Error> {
    let recent_warnings =
        telemetry::init(&settings.telemetry).map_err(|error| Error::Failed(error.to_string()))?;
    match service {
        Service::Daemon => app::run(settings, recent_warnings).await?,
        Service::ReadApi => app::serve::run(settings, recent_warnings).await?,
    }
    Ok(())
}
