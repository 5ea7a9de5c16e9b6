//! `[counting]` and `[[counts]]`: declared counts of twins.

use std::time::Duration;

use super::values::{bounded_duration, choice, positive_duration};
use super::{
    super::{
        problem::{Origin, Problem},
        raw::{self, Raw},
        settings::{Counting, IotHub},
    },
    Check,
};
use crate::domain::query::{Collection, Declared, DeclaredError};

/// Maximum number of counts. Each one is evaluated for every changed document, and shown in every scrape.
const COUNTS_MAX: usize = 32;
/// Minimum interval. Each read of the change feed costs a request unit or two per physical partition, even without changes.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Minimum recount interval. Each recount reads every document.
const RECOUNT_MIN: Duration = Duration::from_secs(60);

impl Check<'_> {
    pub(super) fn counting(&mut self, raw: &Raw, iothub: Option<&IotHub>) -> Option<Counting> {
        let interval = self.parse("counting.interval", &raw.counting.interval, interval);
        let recount_interval =
            self.parse("counting.recount_interval", &raw.counting.recount_interval, recount_interval);
        let before = self.problems.len();
        // If [iothub] itself is wrong, only that is reported, and not its consequences.
        let identity = iothub.is_none_or(|iothub| iothub.is_configured() && iothub.identity);
        let mut declared = Vec::<Declared>::new();
        for (place, count) in &raw.counts {
            let Some(count) = self.count(*place, count, identity) else { continue };
            if declared.iter().any(|other| other.name() == count.name()) {
                self.problem(
                    &format!("counts.{place}.name"),
                    format!(
                        "{:?} is the name of another count already: give this one a name of its own",
                        count.name()
                    ),
                );
            }
            declared.push(count);
        }
        if declared.len() > COUNTS_MAX {
            self.problem(
                &format!("counts.{COUNTS_MAX}.name"),
                format!("there are more than {COUNTS_MAX} counts: one count with group_by can replace many"),
            );
        }
        if self.problems.len() > before {
            return None;
        }
        Some(Counting { declared, interval: interval?, recount_interval: recount_interval? })
    }

    fn count(&mut self, place: usize, raw: &raw::Count, identity: bool) -> Option<Declared> {
        let key = |name: &str| format!("counts.{place}.{name}");
        if raw.name.is_empty() {
            let of_the_same = |(other, _): &(&String, _)| other.starts_with(&format!("counts.{place}."));
            let origin = self.layers.values.iter().find(of_the_same).map(|(_, value)| value.origin.clone());
            self.problems.push(Problem {
                key: Some(key("name")),
                origin: origin.unwrap_or(Origin::Default),
                message: "is required and not set: write e.g. name = \"by_site\"".to_owned(),
            });
            return None;
        }
        let from = self.parse(&key("from"), &raw.from, |text| match text {
            "" => Ok(Collection::Devices),
            text => {
                choice(text, &[("devices", Collection::Devices), ("devices.modules", Collection::Modules)])
            }
        })?;
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (condition, groups) = (text(&raw.condition), text(&raw.group_by));
        match Declared::new(&raw.name, from, condition.as_deref(), groups.as_deref(), identity) {
            Ok(declared) => Some(declared),
            Err(error) => {
                let name = match error {
                    DeclaredError::Name(_) => "name",
                    DeclaredError::Condition(_) => "where",
                    DeclaredError::Identity(_) | DeclaredError::HubOnly(_) if raw.group_by.is_empty() => {
                        "where"
                    }
                    DeclaredError::Group(_)
                    | DeclaredError::PerTwin(_)
                    | DeclaredError::Label(_)
                    | DeclaredError::HubOnly(_)
                    | DeclaredError::Identity(_) => "group_by",
                };
                self.problem(&key(name), error.to_string());
                None
            }
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match bounded_duration(text)? {
        interval if interval < INTERVAL_MIN => Err(format!("{text:?} is too short: give at least \"1s\"")),
        interval => Ok(interval),
    }
}

fn recount_interval(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match positive_duration(text)? {
        interval if interval < RECOUNT_MIN => Err(format!(
            "{text:?} is too short, since each recount reads every document: give at least \"1m\", or \"off\""
        )),
        interval => Ok(Some(interval)),
    }
}
