//! The process itself, as the operating system and the runtime see it at the moment of asking.
//!
//! Nothing of it is needed for work: what the machine does not tell (no `/proc`, another operating system, no access) is left out.

use tokio::runtime::{Handle, RuntimeMetrics};

#[cfg(target_os = "linux")]
use super::process_limits::{memory_limit, open_files_limit};
use super::{
    name,
    text::{Page, labels},
};

/// Prometheus' text format of all that can be told. `receiving` are threads with a runtime each.
pub(super) fn render(receiving: &[RuntimeMetrics]) -> String {
    let mut page = Page::default();
    machine(&mut page);
    if let Ok(handle) = Handle::try_current() {
        runtimes(&mut page, &handle.metrics(), receiving);
    }
    page.text()
}

fn runtimes(page: &mut Page, main: &RuntimeMetrics, receiving: &[RuntimeMetrics]) {
    let all = || std::iter::once(main).chain(receiving);
    let sum = |figure: &dyn Fn(&RuntimeMetrics) -> usize| Some(all().map(figure).sum::<usize>() as f64);
    page.sample(name::RUNTIME_WORKERS, sum(&RuntimeMetrics::num_workers));
    page.sample(name::RUNTIME_TASKS, sum(&RuntimeMetrics::num_alive_tasks));
    page.sample(name::RUNTIME_QUEUED, sum(&RuntimeMetrics::global_queue_depth));
    #[cfg(target_has_atomic = "64")]
    {
        let busy = |metrics: &RuntimeMetrics| {
            let workers = 0..metrics.num_workers();
            workers.map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64()).sum::<f64>()
        };
        page.sample(name::RUNTIME_BUSY, Some(all().map(busy).sum()));
        let threads = receiving.iter().enumerate();
        let threads =
            threads.map(|(thread, metrics)| (labels(&[("thread", &thread.to_string())]), busy(metrics)));
        page.samples(name::RECEIVE_BUSY, threads);
    }
}

#[cfg(not(target_os = "linux"))]
fn machine(_: &mut Page) {}

#[cfg(target_os = "linux")]
fn machine(page: &mut Page) {
    use std::fs::{read_dir, read_to_string};

    let read = |path: &str| read_to_string(path).ok();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
        page.sample(name::PROCESS_CPU, Some(stat.busy_ticks / per_second));
        page.sample(
            name::PROCESS_RESIDENT_MEMORY,
            Some(stat.resident_pages * rustix::param::page_size() as f64),
        );
        page.sample(name::PROCESS_VIRTUAL_MEMORY, Some(stat.virtual_bytes));
        page.sample(name::PROCESS_THREADS, Some(stat.threads));
        let booted = read("/proc/stat").and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()
        });
        page.sample(name::PROCESS_START_TIME, booted.map(|booted| booted + stat.started_ticks / per_second));
    }
    // The directory itself is open while it is read.
    let open = read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1) as f64);
    page.sample(name::PROCESS_OPEN_FDS, open);
    let most = open_files_limit();
    page.sample(name::PROCESS_MAX_FDS, most.map(|most| most as f64));
    page.sample(name::MEMORY_LIMIT, memory_limit().map(|bytes| bytes as f64));
}

/// What `/proc/self/stat` says of a process.
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq)]
struct Stat {
    busy_ticks: f64,
    threads: f64,
    started_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

#[cfg(target_os = "linux")]
impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        // Numbered as in proc(5), where the one after the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            busy_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_process_and_its_runtime_are_told_as_they_are() {
        let text = render(&[]);
        let told = |name| value(&text, name).unwrap_or_else(|| panic!("{name} in\n{text}"));
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let field = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
        };
        let near = |one: f64, other: f64| (one / other - 1.0).abs() < 0.5;
        let (resident, kilobytes) = (told(name::PROCESS_RESIDENT_MEMORY), field("VmRSS:"));
        assert!(near(resident, kilobytes * 1024.0), "{resident} is not {kilobytes} kB");
        assert!(told(name::PROCESS_VIRTUAL_MEMORY) > resident);
        assert!(told(name::PROCESS_THREADS) >= 1.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        let age = now.as_secs_f64() - told(name::PROCESS_START_TIME);
        assert!((-5.0..3600.0).contains(&age), "the process started {age} s ago");
        assert!((1.0..told(name::PROCESS_MAX_FDS)).contains(&told(name::PROCESS_OPEN_FDS)));
        let before = told(name::PROCESS_CPU);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while value(&render(&[]), name::PROCESS_CPU).expect("known") <= before {
            assert!(std::time::Instant::now() < until, "the loop took no CPU time");
        }
        assert_eq!(told(name::RUNTIME_WORKERS), 1.0);
        assert!(told(name::RUNTIME_BUSY) >= 0.0 && told(name::RUNTIME_QUEUED) >= 0.0);
        let alive = value(&render(&[]), name::RUNTIME_TASKS).expect("known");
        let task = tokio::spawn(std::future::pending::<()>());
        assert_eq!(value(&render(&[]), name::RUNTIME_TASKS), Some(alive + 1.0));
        task.abort();
        // Another thread's runtime counts as well, with its own label.
        let receiving = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let text = render(&[receiving.metrics()]);
        assert_eq!(value(&text, name::RUNTIME_WORKERS), Some(2.0));
        let alone = format!("{}{{thread=\"0\"}}", name::RECEIVE_BUSY);
        assert!(value(&text, &alone).is_some_and(|busy| busy >= 0.0), "{text}");
        receiving.shutdown_background();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_may_hold_anything_and_what_is_cut_short_is_nothing() {
        let text = "7 (a) 1 (b) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14 15 16 4 18 900 20000 50 21 22";
        let stat = Stat {
            busy_ticks: 42.0,
            threads: 4.0,
            started_ticks: 900.0,
            virtual_bytes: 20_000.0,
            resident_pages: 50.0,
        };
        assert_eq!(Stat::parse(text), Some(stat));
        for cut in ["", "7 (a", "7 (a) S 1 2", "7 (a) S x y z"] {
            assert_eq!(Stat::parse(cut), None, "{cut}");
        }
    }

    #[test]
    fn without_a_runtime_there_is_nothing_about_it() {
        assert_eq!(value(&render(&[]), name::RUNTIME_WORKERS), None);
    }
}
