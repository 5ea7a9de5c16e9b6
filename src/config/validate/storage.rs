//! `[blob]`, `[lease]`, `[checkpoint]` and `[dead_letters]`: the stores of progress and dead letters, and the ownership of partitions.

use super::{
    Check,
    values::{bounded_duration, choice, directory, is_loopback, positive_duration},
};
use crate::config::{
    container, raw,
    secret::Secret,
    settings::{Blob, Checkpoint, CheckpointStore, DeadLetters, Identity, IotHub, Lease, OnInvalid},
};

/// Minimum ratio of a lease to its renewal interval. With fewer renewals, a single slow answer loses the lease.
const LEASE_INTERVALS_MIN: u32 = 3;

impl Check<'_> {
    /// The container: `Some(None)` if none is configured, `None` if it is wrong.
    pub(super) fn blob(&mut self, raw: &raw::Blob, identity: Option<&Identity>) -> Option<Option<Blob>> {
        let api_version = self.optional("blob.api_version", &raw.api_version, container::api_version);
        let url = self.optional("blob.container_url", raw.container_url.expose(), container::url)?;
        let Some(url) = url else {
            return api_version.map(|_| None);
        };
        let signed = url.query().is_some();
        let emulated = matches!(identity, Some(Identity::Emulator { .. }));
        match url.scheme() {
            "http" if !is_loopback(&url) && !emulated => {
                self.problem(
                    "blob.container_url",
                    "http would show the signature to the network: use https; http is for loopback addresses and for \
                     credential.kind = \"emulator\"",
                );
                return None;
            }
            "http" if !signed => {
                self.problem(
                    "blob.container_url",
                    "has no signature, and http would show a real token to the network: append a SAS, or use https",
                );
                return None;
            }
            // An emulator on this machine may know the fixed token.
            _ if !signed && emulated && !is_loopback(&url) => {
                self.problem(
                    "blob.container_url",
                    "has no signature, and this account does not accept the emulator's fixed token: append a SAS, or \
                     use another credential.kind",
                );
                return None;
            }
            _ => {}
        }
        Some(Some(Blob { container_url: Secret::new(url), api_version: api_version? }))
    }

    pub(super) fn lease(&mut self, raw: &raw::Lease) -> Option<Lease> {
        let duration = self.parse("lease.duration", &raw.duration, bounded_duration);
        let renew_interval = self.parse("lease.renew_interval", &raw.renew_interval, bounded_duration);
        let (duration, renew_interval) = (duration?, renew_interval?);
        if duration < renew_interval.saturating_mul(LEASE_INTERVALS_MIN) {
            self.problem(
                "lease.duration",
                format!(
                    "is less than {LEASE_INTERVALS_MIN} times lease.renew_interval, so that one failed renewal could \
                     cost the partition: raise it, or lower the interval"
                ),
            );
            return None;
        }
        Some(Lease { duration, renew_interval })
    }

    pub(super) fn checkpoint(
        &mut self,
        raw: &raw::Checkpoint,
        blob: Option<&Option<Blob>>,
        iothub: Option<&IotHub>,
    ) -> Option<Checkpoint> {
        #[derive(Clone, Copy)]
        enum Kind {
            Memory,
            File,
            Blob,
        }
        let kinds = [("file", Kind::File), ("memory", Kind::Memory), ("blob", Kind::Blob)];
        let kind = self.parse("checkpoint.store", &raw.store, |text| choice(text, &kinds));
        let interval = self.parse("checkpoint.interval", &raw.interval, positive_duration);
        let policies = [
            ("stop", OnInvalid::Stop),
            ("earliest", OnInvalid::Earliest),
            ("earliest_and_audit", OnInvalid::EarliestAndAudit),
        ];
        let on_invalid = self.parse("checkpoint.on_invalid", &raw.on_invalid, |text| choice(text, &policies));
        if on_invalid == Some(OnInvalid::EarliestAndAudit)
            && iothub.is_some_and(|iothub| !iothub.is_configured())
        {
            self.problem(
                "checkpoint.on_invalid",
                "\"earliest_and_audit\" needs a hub to compare with: set iothub.hosts or iothub.connection_strings, or use \
                 \"earliest\"",
            );
        }
        let store = match kind? {
            Kind::Memory => CheckpointStore::Memory,
            Kind::File => {
                CheckpointStore::File { path: self.parse("checkpoint.path", &raw.path, directory)? }
            }
            Kind::Blob => {
                let message = "is needed for checkpoint.store = \"blob\": write e.g. \
                               \"https://contoso.blob.core.windows.net/twinsync\"";
                CheckpointStore::Blob(self.present(
                    "blob.container_url",
                    blob?.clone(),
                    message.to_owned(),
                )?)
            }
        };
        Some(Checkpoint { store, interval: interval?, on_invalid: on_invalid? })
    }

    pub(super) fn dead_letters(
        &mut self,
        raw: &raw::DeadLetters,
        blob: Option<&Option<Blob>>,
    ) -> Option<DeadLetters> {
        #[derive(Clone, Copy)]
        enum Kind {
            File,
            Blob,
        }
        let kinds = [("file", Kind::File), ("blob", Kind::Blob)];
        match self.parse("dead_letters.store", &raw.store, |text| choice(text, &kinds))? {
            Kind::File => {
                Some(DeadLetters::File { path: self.parse("dead_letters.path", &raw.path, directory)? })
            }
            Kind::Blob => {
                let message = "is needed for dead_letters.store = \"blob\": write e.g. \
                               \"https://contoso.blob.core.windows.net/twinsync\"";
                let blob = self.present("blob.container_url", blob?.clone(), message.to_owned())?;
                Some(DeadLetters::Blob(blob))
            }
        }
    }
}
