//! Divides budgets that are set for all replicas together by the number of replicas that are alive.
//!
//! The leases show in each round which replicas are alive. A replica that cannot read the leases keeps the last known number, since the
//! others may still be there. A new replica takes its part as soon as it owns a partition. The others reduce theirs at their next poll, at
//! most a quarter of `lease.renew_interval` later. A replica that dies counts until its leases have run out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use super::{rate_limited_registry::RateLimitedRegistry, request_unit_budget::RequestUnitBudget};
use crate::{
    domain::{lease::alive, quota::each_of},
    telemetry::Metrics,
};

/// The budgets of all replicas together.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    /// The part of each hub's quota that may be used for reads, as a fraction.
    pub registry_share: f64,
    /// Request units per second, if they are limited.
    pub request_units_per_second: Option<f64>,
}

/// Divides budgets by the number of replicas that are alive.
pub struct Replicas {
    budgets: Budgets,
    registries: Vec<Arc<RateLimitedRegistry>>,
    budget: RequestUnitBudget,
    metrics: Metrics,
    known: Mutex<Known>,
}

struct Known {
    /// The other replicas, by Event Hub.
    others: BTreeMap<String, BTreeSet<String>>,
    alive: usize,
}

impl Replicas {
    /// Starts with one replica, until the leases show others.
    pub fn new(
        budgets: Budgets,
        registries: Vec<Arc<RateLimitedRegistry>>,
        budget: RequestUnitBudget,
        metrics: Metrics,
    ) -> Self {
        let replicas = Self {
            budgets,
            registries,
            budget,
            metrics,
            known: Mutex::new(Known { others: BTreeMap::new(), alive: 1 }),
        };
        replicas.show(1);
        replicas
    }

    /// Sets the other replicas that the leases of an Event Hub show.
    pub fn seen(&self, event_hub: &str, others: BTreeSet<String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.others.insert(event_hub.to_owned(), others);
        let alive = alive(known.others.values());
        if alive == known.alive {
            return;
        }
        known.alive = alive;
        for registry in &self.registries {
            registry.rate_limiter().share_among(alive);
        }
        self.budget.share_among(alive);
        self.show(alive);
        tracing::info!(replicas = alive, "budgets are divided by the replicas that are alive");
    }

    fn show(&self, alive: usize) {
        self.metrics.set_replicas_alive(alive);
        if !self.registries.is_empty() {
            self.metrics.set_registry_share(each_of(alive, self.budgets.registry_share));
        }
        if let Some(cap) = self.budgets.request_units_per_second {
            self.metrics.set_request_units_limit(each_of(alive, cap));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_cap_on_request_units_is_divided_and_given_back() {
        let (budget, metrics) = (RequestUnitBudget::new(Some(100.0)), Metrics::new().expect("buckets"));
        let budgets = Budgets { registry_share: 0.5, request_units_per_second: Some(100.0) };
        let replicas = Replicas::new(budgets, Vec::new(), budget.clone(), metrics.clone());
        budget.spend(200.0); // 100 were available, and 100 are debt
        assert_eq!(budget.wait(), Duration::from_secs(1));
        replicas.seen("lifecycle", of(&["b"]));
        assert_eq!(budget.wait(), Duration::from_secs(2));
        replicas.seen("changes", of(&["b", "c", "d"]));
        assert_eq!(budget.wait(), Duration::from_secs(4));
        let page = metrics.render();
        assert!(page.contains("twinsync_replicas_alive 4"), "{page}");
        assert!(page.contains("twinsync_request_units_per_second_limit 25"), "{page}");
        assert!(!page.contains("twinsync_registry_share "), "without a hub there is no share: {page}");
        for hub in ["changes", "lifecycle"] {
            replicas.seen(hub, BTreeSet::new());
        }
        assert_eq!(budget.wait(), Duration::from_secs(1));
        assert!(metrics.render().contains("twinsync_replicas_alive 1"));
    }
}
