//! This process: its address, its file descriptors, its memory, and the time for a shutdown.

use std::{net::SocketAddr, time::Duration};

use super::{Finding, words};

/// The current user of our address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listening {
    /// The address is free, and we may use it.
    Free,
    /// A twinsync of this version.
    Twinsync(String),
    /// The operating system refuses; the text is our own error.
    Refused(String),
}

/// Evaluates `http.listen`; `None` if it is off. `code` is the code of an address that cannot be used.
pub fn listening(address: Option<SocketAddr>, found: Option<&Listening>, code: &'static str) -> Finding {
    match (address, found) {
        (Some(address), Some(Listening::Free)) => Finding::ok(format!("{address} is free")),
        (Some(address), Some(Listening::Twinsync(version))) => {
            Finding::ok(format!("{address} is in use by a running twinsync {version}"))
        }
        (Some(_), Some(Listening::Refused(error))) => Finding::of_error(code, error),
        (Some(_), None) | (None, _) => {
            Finding::ok("off: health, metrics and status are not served".to_owned())
        }
    }
}

/// The connections and requests that may be open at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Partitions of all Event Hubs, each with a connection.
    pub partitions: u32,
    /// Whether their number was looked up. If not, it is the maximum number of a namespace for each of our Event Hubs.
    pub partitions_are_known: bool,
    /// Event Hubs, each with a connection for management.
    pub hubs: u32,
    /// Requests to Cosmos DB at the same time.
    pub store_requests: u32,
    /// Calls to IoT hubs at the same time.
    pub registry_calls: u32,
}

/// File descriptors for our HTTP server, blob storage, tokens, files, and the runtime.
const BESIDE: u32 = 32 + 64;

impl Load {
    /// The maximum number of file descriptors needed. While a connection is replaced, both may be open for a moment.
    pub const fn descriptors(self) -> u32 {
        2 * self.partitions + self.hubs + self.store_requests + self.registry_calls + BESIDE
    }
}

/// Evaluates the limit of open files; `None` if there is none, or if it is not known.
pub fn files(limit: Option<u64>, load: Load) -> Finding {
    let needed = load.descriptors();
    let partitions = words::count(load.partitions as usize, "partition");
    let partitions = if load.partitions_are_known { partitions } else { format!("up to {partitions}") };
    let Some(limit) = limit else {
        return Finding::ok(format!("no limit of open files; {needed} are needed for {partitions}"));
    };
    let text = format!("{limit} files may be open, {needed} are needed at most for {partitions}");
    let remedy = format!(
        "raise the limit: `ulimit -n {wanted}`, `LimitNOFILE={wanted}` in a systemd unit, or `--ulimit nofile={wanted}` for Docker",
        wanted = (needed * 2).next_power_of_two()
    );
    match limit {
        limit if limit < u64::from(needed) / 2 => Finding::fail("PROCESS_FILE_LIMIT", text, remedy),
        limit if limit < u64::from(needed) => Finding::warn("PROCESS_FILE_LIMIT", text, remedy),
        _ => Finding::ok(text),
    }
}

/// A mebibyte.
const MIB: u64 = 1 << 20;

/// The memory of a process after a start, before it has received anything: the first row under "Memory" in `docs/sizing.md`.
const AFTER_START: u64 = 38 * MIB;

/// The memory that the settings reserve, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Recently written documents, at most: `cache.max_bytes`.
    pub documents: u64,
    /// Events in flight, at most: `router.max_in_flight_bytes`.
    pub in_flight: u64,
}

impl Memory {
    /// The bytes that are needed if both are full: the sum in `docs/sizing.md`.
    pub const fn needed(self) -> u64 {
        AFTER_START.saturating_add(self.documents).saturating_add(self.in_flight)
    }
}

/// Evaluates the limit on memory; `None` if there is no limit, or if it is unknown.
pub fn memory(limit: Option<u64>, memory: Memory) -> Finding {
    // Rounded so that what does not fit never looks as if it did.
    let up = |bytes: u64| bytes.div_ceil(MIB);
    let needed = memory.needed();
    let needs = format!("up to {} MiB are needed", up(needed));
    let Some(limit) = limit else {
        return Finding::ok(format!("no limit on memory; {needs}"));
    };
    let text = format!("{} MiB may be used, {needs}", limit / MIB);
    if limit >= needed {
        return Finding::ok(text);
    }
    let raise = format!("raise the memory limit to {} MiB or more", up(needed));
    let remedy = match limit.saturating_sub(AFTER_START) / MIB {
        0 => raise,
        left => format!(
            "{raise}, or lower router.max_in_flight_bytes ({} MiB) and cache.max_bytes ({} MiB) to {left} MiB together",
            up(memory.in_flight),
            up(memory.documents)
        ),
    };
    Finding::warn("PROCESS_MEMORY_LIMIT", text, remedy)
}

/// The default time that Kubernetes waits after its request to stop.
const GRACE: Duration = Duration::from_secs(30);
/// The time for the steps after the drain: last checkpoints, leases, connections, the HTTP server.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// Evaluates `shutdown.drain_timeout`.
pub fn shutdown(drain: Duration) -> Finding {
    let whole = drain.saturating_add(AFTERWARDS);
    let text = format!("a stop takes up to {}", words::duration(whole));
    if whole <= GRACE {
        return Finding::ok(format!("{text}; Kubernetes waits for {}", words::duration(GRACE)));
    }
    Finding::warn(
        "SHUTDOWN_GRACE",
        format!(
            "{text}, and Kubernetes ends a pod after {} unless it says otherwise",
            words::duration(GRACE)
        ),
        format!(
            "set terminationGracePeriodSeconds of the pod to {} or more, or shutdown.drain_timeout = \"{}s\"",
            whole.as_secs() + 1,
            (GRACE - AFTERWARDS).as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    #[test]
    fn a_running_twinsync_may_have_the_address_and_nobody_else() {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let of = |found: &Listening| listening(address, Some(found), "HTTP_ADDRESS_UNUSABLE");
        assert_eq!(of(&Listening::Free).verdict(), Verdict::Ok);
        assert!(of(&Listening::Twinsync("0.1.0".into())).text().contains("running twinsync 0.1.0"));
        let refused = of(&Listening::Refused(
            "cannot listen: taken; choose another port (HTTP_ADDRESS_UNUSABLE)".into(),
        ));
        assert_eq!(
            refused,
            Finding::fail("HTTP_ADDRESS_UNUSABLE", "cannot listen: taken", "choose another port")
        );
        assert_eq!(listening(None, None, "X").verdict(), Verdict::Ok);
    }

    #[test]
    fn files_are_counted_against_partitions_and_requests() {
        let load = Load {
            partitions: 32,
            partitions_are_known: true,
            hubs: 2,
            store_requests: 64,
            registry_calls: 24,
        };
        assert_eq!(load.descriptors(), 64 + 2 + 64 + 24 + 96);
        let verdict = |limit| files(limit, load).verdict();
        assert_eq!((verdict(Some(124)), verdict(Some(125))), (Verdict::Fail, Verdict::Warn));
        assert_eq!(
            (verdict(Some(249)), verdict(Some(250)), verdict(None)),
            (Verdict::Warn, Verdict::Ok, Verdict::Ok)
        );
        let guess = files(Some(1 << 20), Load { partitions_are_known: false, ..load });
        assert!(guess.text().contains("up to 32 partitions"), "{guess:?}");
    }

    /// The default limits.
    const DEFAULT: Memory = Memory { documents: 64 * MIB, in_flight: 128 * MIB };

    #[test]
    fn what_may_be_full_must_fit_the_limit_on_memory() {
        assert_eq!(DEFAULT.needed(), 230 * MIB);
        let verdict = |limit| memory(Some(limit), DEFAULT).verdict();
        for (limit, expected) in [
            (0, Verdict::Warn),
            (230 * MIB - 1, Verdict::Warn),
            (230 * MIB, Verdict::Ok),
            (u64::MAX, Verdict::Ok),
        ] {
            assert_eq!(verdict(limit), expected, "{limit}");
        }
        assert_eq!(
            memory(Some(128 * MIB), DEFAULT),
            Finding::warn(
                "PROCESS_MEMORY_LIMIT",
                "128 MiB may be used, up to 230 MiB are needed",
                "raise the memory limit to 230 MiB or more, or lower router.max_in_flight_bytes (128 MiB) and cache.max_bytes \
                 (64 MiB) to 90 MiB together"
            )
        );
        // The recommended values are enough.
        assert_eq!(
            memory(Some(128 * MIB), Memory { documents: 45 * MIB, in_flight: 45 * MIB }).verdict(),
            Verdict::Ok
        );
        let close = memory(Some(230 * MIB - 1), DEFAULT);
        assert_eq!(close.text(), "229 MiB may be used, up to 230 MiB are needed");
        let tiny = memory(Some(38 * MIB), DEFAULT);
        assert_eq!(tiny.problem().expect("a problem").remedy, "raise the memory limit to 230 MiB or more");
    }

    #[test]
    fn without_a_limit_any_memory_is_fine() {
        let found = memory(None, DEFAULT);
        assert_eq!(found, Finding::ok("no limit on memory; up to 230 MiB are needed"));
        let most = Memory { documents: u64::MAX, in_flight: u64::MAX };
        assert_eq!(memory(None, most).verdict(), Verdict::Ok);
        assert_eq!(memory(Some(1 << 40), most).verdict(), Verdict::Warn);
    }

    #[test]
    fn the_page_about_sizing_has_the_same_figures() {
        let page = include_str!("../../../docs/sizing.md");
        let row = |what: &str, bytes: u64| {
            let row = format!("| {what} | {} |", bytes / MIB);
            assert!(page.contains(&row), "{row} is not in docs/sizing.md");
        };
        row("after a start", AFTER_START);
        row("events in flight, at most (`router.max_in_flight_bytes`)", DEFAULT.in_flight);
        row("recently written documents (`cache.max_bytes`)", DEFAULT.documents);
        row("sum", DEFAULT.needed());
    }

    #[test]
    fn a_stop_must_fit_the_grace_of_the_orchestrator() {
        assert_eq!(shutdown(Duration::from_secs(25)).verdict(), Verdict::Ok);
        assert_eq!(shutdown(Duration::from_secs(26)).verdict(), Verdict::Ok);
        let found = shutdown(Duration::from_secs(60));
        assert!(found.verdict() == Verdict::Warn, "{found:?}");
        let remedy = &found.problem().expect("a problem").remedy;
        assert!(remedy.contains("65") && remedy.contains("\"26s\""), "{remedy}");
    }
}
