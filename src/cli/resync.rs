//! `twinsync resync`: reconciles single twins, whatever their documents contain.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use serde::Serialize;

use super::{
    Error, Sources,
    output::{self, printable},
    reconcile::{Session, stopped},
};
use crate::{
    domain::{
        drift::{Drift, Strictness},
        id::TwinKey,
        quota::Purpose,
    },
    runtime::{
        rate_limited_registry::RateLimitedRegistry,
        reconcile::{
            backfill::{Expected, RetryOutcome, reconcile_with_retries},
            candidates::{CandidatePages, Ended, Kind},
            reconciler::{Mode, Task, Unless, Verdict},
        },
    },
};

/// Arguments of `resync`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["device", "condition"]))]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// The hub; required with --device if several hubs are configured.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// A device, with all its modules. Exit code 1 if neither the hub nor Cosmos DB knows it.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Only this module of the device.
    #[arg(long, value_name = "ID", requires = "device")]
    module: Option<String>,
    /// Devices that match a condition of the hub's query language, e.g. "tags.site = 'north'". Queries may be up to 30
    /// minutes behind.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// With --where: selects modules instead of devices.
    #[arg(long, requires = "condition")]
    modules: bool,
    /// Reports differences and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints one JSON object per twin, then the counts.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    hub: &'a str,
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    twins: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

/// Reads the twins from the hub and makes their documents equal, including `$metadata`.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    let session = Session::begin(&arguments.sources).await?;
    let mut resync =
        Resync { arguments, session: &session, outcomes: BTreeMap::new(), twins: 0, unknown_name: None };
    let hubs = session.hubs(arguments.hub.as_deref())?;
    match (&arguments.device, &arguments.condition) {
        (Some(device), _) => {
            let [registry] = hubs.as_slice() else {
                return Err(Error::Usage("several hubs are configured: name one with --hub".to_owned()));
            };
            resync.device(registry, device).await?;
        }
        (None, condition) => {
            let kind = if arguments.modules { Kind::Modules } else { Kind::Devices };
            for registry in &hubs {
                resync.matching(registry, kind, condition.as_deref()).await?;
            }
        }
    }
    resync.end()
}

struct Resync<'a> {
    arguments: &'a Arguments,
    session: &'a Session,
    outcomes: BTreeMap<&'static str, u64>,
    twins: u64,
    /// A twin that was requested by name and exists nowhere.
    unknown_name: Option<TwinKey>,
}

impl Resync<'_> {
    async fn device(&mut self, registry: &Arc<RateLimitedRegistry>, device: &str) -> Result<(), Error> {
        let device = TwinKey::device(registry.hub(), device);
        if let Some(module) = &self.arguments.module {
            let key = TwinKey { module: Some(module.clone()), ..device };
            return self.twins(vec![key]).await;
        }
        let account = self.session.reconciler.reconciler.budgeted_store();
        let mut keys = vec![device.clone()];
        let known = account.modules(&device, Purpose::Repair).await;
        keys.extend(known.map_err(|trouble| Error::Failed(trouble.message))?);
        self.twins(keys.clone()).await?;
        // The hub may have modules without a document. An id with a quotation mark cannot be written in a query.
        if device.device.contains('\'') {
            return output_note(
                "modules that have no document yet were not searched for, because the id has a quotation mark",
            );
        }
        let condition = format!("deviceId = '{}'", device.device);
        let found = self.modules(registry, &condition).await?;
        self.twins(found.into_iter().filter(|key| !keys.contains(key)).collect()).await
    }

    async fn matching(
        &mut self,
        registry: &Arc<RateLimitedRegistry>,
        kind: Kind,
        condition: Option<&str>,
    ) -> Result<(), Error> {
        let mut pages = CandidatePages::references(Arc::clone(registry), kind, condition, Purpose::Repair);
        while let Some(page) = pages.next(&self.session.stop).await.map_err(ended)? {
            self.twins(page.rows.into_iter().map(|row| row.key).collect()).await?;
        }
        Ok(())
    }

    async fn modules(
        &self,
        registry: &Arc<RateLimitedRegistry>,
        condition: &str,
    ) -> Result<Vec<TwinKey>, Error> {
        let mut pages =
            CandidatePages::references(Arc::clone(registry), Kind::Modules, Some(condition), Purpose::Repair);
        let mut keys = Vec::new();
        while let Some(page) = pages.next(&self.session.stop).await.map_err(ended)? {
            keys.extend(page.rows.into_iter().map(|row| row.key));
        }
        Ok(keys)
    }

    async fn twins(&mut self, keys: Vec<TwinKey>) -> Result<(), Error> {
        let task = Task {
            purpose: Purpose::Repair,
            strictness: Strictness::Metadata,
            mode: if self.arguments.dry_run { Mode::Compare } else { Mode::Correct },
            unless: Unless::Never,
        };
        let (session, task) = (self.session, &task);
        let turns: Vec<_> = keys
            .into_iter()
            .map(|key| {
                Box::pin(async move {
                    let verdict = reconcile_with_retries(
                        &session.reconciler.reconciler,
                        &key,
                        task,
                        Expected::Anything,
                        &session.stop,
                    )
                    .await;
                    (key, verdict)
                })
            })
            .collect();
        let mut turns = futures::stream::iter(turns).buffered(session.reconciler.audit.concurrency.max(1));
        while let Some((key, verdict)) = turns.next().await {
            match verdict {
                RetryOutcome::Reconciled(verdict) => self.tell(&key, &verdict)?,
                RetryOutcome::Exhausted(_) => self.line(&key, "unknown", None)?,
                RetryOutcome::Stopped => {
                    return Err(stopped("twins that were already resynced stay correct"));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, key: &TwinKey, verdict: &Verdict) -> Result<(), Error> {
        let Arguments { device, module, .. } = self.arguments;
        if *verdict == Verdict::Absent && (device.as_ref(), module) == (Some(&key.device), &key.module) {
            self.unknown_name = Some(key.clone());
        }
        let (outcome, drift) = match verdict {
            Verdict::Spared | Verdict::Equal => ("equal", None),
            Verdict::Absent => ("absent", None),
            Verdict::Corrected(drift) => ("repaired", Some(*drift)),
            Verdict::Differs(drift) => ("differs", Some(*drift)),
            Verdict::Rejected(drift, _) => ("rejected", Some(*drift)),
            Verdict::ForeignHub => ("foreign_hub", None),
        };
        self.line(key, outcome, drift.map(Drift::class))
    }

    fn line(
        &mut self,
        key: &TwinKey,
        outcome: &'static str,
        class: Option<&'static str>,
    ) -> Result<(), Error> {
        self.twins += 1;
        *self.outcomes.entry(outcome).or_default() += 1;
        if self.arguments.json {
            let TwinKey { hub, device, module } = key;
            let module_id = module.as_deref();
            return output::json(&Line { r#type: "twin", hub, device_id: device, module_id, outcome, class });
        }
        let class = class.map_or_else(String::new, |class| format!(" ({class})"));
        output::line(format_args!("{}  {outcome}{class}", printable(&key.to_string(), false)))
    }

    fn end(self) -> Result<(), Error> {
        let Self { arguments, outcomes, twins, unknown_name, .. } = self;
        let failed: u64 = ["rejected", "unknown"].iter().filter_map(|outcome| outcomes.get(outcome)).sum();
        if arguments.json {
            output::json(&Summary { r#type: "summary", twins, outcomes })?;
        } else if twins == 0 {
            output::line("no twin matches")?;
        } else {
            let counts: Vec<_> =
                outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
            output::line(format_args!("{twins} twins: {}", counts.join(", ")))?;
        }
        if let Some(key) = unknown_name {
            return Err(Error::Failed(format!(
                "{} is absent in both: neither the hub nor Cosmos DB knows such a twin; names are case-sensitive",
                printable(&key.to_string(), false)
            )));
        }
        match failed {
            0 => Ok(()),
            failed => Err(Error::Failed(format!(
                "{failed} twins were refused by Cosmos DB, or there was no answer about them: see the log"
            ))),
        }
    }
}

fn ended(error: Ended) -> Error {
    match error {
        Ended::Stopped => stopped("twins that were already resynced stay correct"),
        Ended::Refused { .. } => Error::Usage(error.to_string()),
        Ended::Silent { .. } => Error::Failed(error.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "a note beside the output, which may be read by a script")]
fn output_note(text: &str) -> Result<(), Error> {
    eprintln!("note: {text}");
    Ok(())
}
