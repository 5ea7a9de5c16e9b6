//! `[eventhubs]`: the sources of events.

use super::{
    Check,
    values::{
        amqp_endpoint, choice, count, entity_name, namespace, partition_discovery_interval,
        positive_duration, retention,
    },
};
use crate::config::{
    raw,
    settings::{EventHubs, Identity, Start},
};

/// The largest link credit that the SDK can request without a refusal by the broker.
const PREFETCH_MAX: u32 = 50_000;

impl Check<'_> {
    pub(super) fn eventhubs(
        &mut self,
        raw: &raw::EventHubs,
        identity: Option<&Identity>,
    ) -> Option<EventHubs> {
        let namespace = self.parse("eventhubs.namespace", &raw.namespace, namespace);
        let endpoint = self.optional("eventhubs.endpoint", &raw.endpoint, amqp_endpoint);
        let consumer_group = self.parse("eventhubs.consumer_group", &raw.consumer_group, entity_name);
        let prefetch = self.parse("eventhubs.prefetch", &raw.prefetch, |text| count(text, PREFETCH_MAX));
        let open_timeout = self.parse("eventhubs.open_timeout", &raw.open_timeout, positive_duration);
        let stall_timeout = self.parse("eventhubs.stall_timeout", &raw.stall_timeout, positive_duration);
        let retention = self.parse("eventhubs.retention", &raw.retention, retention);
        let partition_discovery_interval = self.parse(
            "eventhubs.partition_discovery_interval",
            &raw.partition_discovery_interval,
            partition_discovery_interval,
        );
        let start = self.parse("eventhubs.start", &raw.start, |text| {
            choice(text, &[("earliest", Start::Earliest), ("latest", Start::Latest)])
        });
        let lifecycle_hub = self.parse("eventhubs.lifecycle.hub", &raw.lifecycle.hub, entity_name);
        let twin_changes_hub = self.parse("eventhubs.twin_changes.hub", &raw.twin_changes.hub, entity_name);

        let plain = endpoint.as_ref()?.as_ref().is_some_and(|endpoint| endpoint.scheme() == "amqp");
        match identity {
            Some(Identity::Emulator { .. }) if endpoint.as_ref()?.is_none() => self.problem(
                "credential.kind",
                "\"emulator\" needs eventhubs.endpoint, e.g. \"amqp://127.0.0.1:5672\": Azure accepts real \
                 identities only",
            ),
            Some(Identity::Emulator { .. }) | None => {}
            Some(_) if plain => self.problem(
                "eventhubs.endpoint",
                "amqp is plain text and would show a real token to the network: use amqps, or credential.kind = \
                 \"emulator\" for an emulator",
            ),
            Some(_) => {}
        }
        Some(EventHubs {
            namespace: namespace?,
            endpoint: endpoint?,
            consumer_group: consumer_group?,
            prefetch: prefetch?,
            open_timeout: open_timeout?,
            stall_timeout: stall_timeout?,
            retention: retention?,
            partition_discovery_interval: partition_discovery_interval?,
            start: start?,
            lifecycle_hub: lifecycle_hub?,
            twin_changes_hub: twin_changes_hub?,
        })
    }
}
