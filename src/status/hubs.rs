//! The walks over the twins of each IoT hub, as the status shows them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    exposition::{Exposition, seconds, whole},
    schema,
};
use crate::{
    domain::{
        ticks::Ticks,
        walk::{Course, done_in},
    },
    telemetry::{HubWalks, Walk, Walks, name},
};

/// The courses of the walks that go on.
#[derive(Debug)]
pub(super) struct Courses {
    began: Instant,
    courses: Mutex<BTreeMap<String, (Ticks, Course)>>,
}

impl Default for Courses {
    fn default() -> Self {
        Self { began: Instant::now(), courses: Mutex::default() }
    }
}

impl Courses {
    /// Notes how far the walks of these hubs are.
    pub(super) fn note(&self, hubs: &[String], walks: &Walks) {
        let mut courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
        for hub in hubs {
            match walks.of(hub).walk {
                Some(Walk { started, walking, .. }) => {
                    let (since, course) = courses.entry(hub.clone()).or_insert((started, Course::default()));
                    if *since != started {
                        (*since, *course) = (started, Course::default());
                    }
                    course.note(self.began.elapsed(), walking.dealt_with());
                }
                None => {
                    courses.remove(hub);
                }
            }
        }
    }

    fn per_second(&self, hub: &str, walk: &Walk, dealt_with: u64) -> Option<f64> {
        let courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, course) = courses.get(hub).filter(|(started, _)| *started == walk.started)?;
        course.per_second(self.began.elapsed(), dealt_with)
    }

    fn walk(&self, hub: &str, walk: &Walk, hub_is_silent: bool) -> schema::Walk {
        let (dealt_with, out_of) = (walk.walking.dealt_with(), walk.walking.out_of());
        let per_second = self.per_second(hub, walk, dealt_with);
        schema::Walk {
            what: walk.what.to_owned(),
            stage: walk.walking.stage().to_owned(),
            started: walk.started,
            dealt_with,
            out_of: out_of.map(|(twins, _)| twins),
            out_of_is: out_of.map(|(_, says)| says.to_owned()),
            per_second,
            done_in_seconds: done_in(dealt_with, out_of.map(|(twins, _)| twins), per_second)
                .as_ref()
                .map(Duration::as_secs_f64),
            waits_for: match hub_is_silent {
                true => Some("an answer of the hub".to_owned()),
                false => walk.walking.waits_for(),
            },
        }
    }

    /// What is shown of a hub. `done_by`: the replica that does its walks.
    pub(super) fn hub(
        &self,
        hub: &str,
        walks: &HubWalks,
        done_by: Option<String>,
        hub_is_silent: bool,
        metrics: &Exposition<'_>,
    ) -> schema::Hub {
        let completed = metrics.sum_with(name::AUDIT_COMPLETED, "hub", hub);
        let completed = (completed > 0.0).then(|| Ticks::new(0).after(seconds(completed)));
        let left = || metrics.sum_with(name::AUDIT_DIFFERENCES_LEFT, "hub", hub) as u64;
        let mut backfill = whole(metrics.by_with(name::BACKFILL_TWINS, "outcome", ("hub", hub)));
        if let (true, Some(backfilled)) = (backfill.is_empty(), &walks.backfilled) {
            backfill =
                backfilled.twins.iter().map(|(outcome, twins)| ((*outcome).to_owned(), *twins)).collect();
        }
        schema::Hub {
            hub: hub.to_owned(),
            done_by,
            walk: walks.walk.as_ref().map(|walk| self.walk(hub, walk, hub_is_silent)),
            backfill,
            backfill_completed: walks.backfilled.as_ref().map(|backfilled| backfilled.at),
            audit_completed: walks.audited.map(|audited| audited.at).or(completed),
            audit_twins: walks.audited.map(|audited| audited.twins),
            audit_differences_left: walks.audited.map(|audited| audited.left).or(completed.map(|_| left())),
            audit_differences: whole(metrics.by_with(name::AUDIT_DIFFERENCES, "class", ("hub", hub))),
            clean_audit: walks.clean.map(|clean| clean.at),
            clean_audit_twins: walks.clean.map(|clean| clean.twins),
            next_audit: walks.next_audit.filter(|_| walks.walk.is_none()),
        }
    }
}
