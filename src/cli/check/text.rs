//! The report for people.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use super::{super::output::printable, page};
use crate::{
    domain::checks::{Area, Checked, Verdict},
    telemetry::VERSION,
};

/// Width of the columns for the verdict and for the name of a check.
const VERDICT_WIDTH: usize = 7;
const NAME_WIDTH: usize = 22;

/// The colour of a verdict on a terminal (ECMA-48).
const fn colour(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "\u{1b}[32m",
        Verdict::Skipped => "\u{1b}[2m",
        Verdict::Warn => "\u{1b}[33m",
        Verdict::Fail => "\u{1b}[1;31m",
    }
}

const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// Whether to use colour: only on a terminal, and unless the user has disabled it (no-color.org).
fn coloured() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(colour: &str, text: &str) -> String {
    if coloured() { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
}

/// The first lines of the report.
pub(super) fn title(connect: bool) -> String {
    let what = if connect { "configuration, machine and connections" } else { "configuration and machine" };
    format!("twinsync {VERSION} checks {what}")
}

/// The line of one check, preceded by the title of its area if it is the first one there.
pub(super) fn line(before: Option<Area>, checked: &Checked) -> String {
    let mut text = String::new();
    let area = checked.kind.area();
    if before != Some(area) {
        text.push_str(&format!("\n{}\n", paint(BOLD, area.title())));
    }
    let verdict = checked.finding.verdict();
    let name = format!("{:VERDICT_WIDTH$}", verdict.name());
    let subject = match checked.subject.as_str() {
        "" => String::new(),
        subject => format!("{}: ", printable(subject, false)),
    };
    text.push_str(&format!(
        "  {} {:NAME_WIDTH$} {subject}{}",
        paint(colour(verdict), &name),
        checked.kind.name(),
        printable(checked.finding.text(), false)
    ));
    if let Some(problem) = checked.finding.problem() {
        let indent = " ".repeat(VERDICT_WIDTH + 3);
        text.push_str(&format!("\n{indent}to fix it: {}", printable(&problem.remedy, false)));
        text.push_str(&format!("\n{indent}more: {} ({})", problem.code, page(problem.code)));
    }
    text
}

/// The last lines of the report.
pub(super) fn summary(lines: &[Checked], connect: bool, complete: bool) -> String {
    let count = |verdict| lines.iter().filter(|line| line.finding.verdict() == verdict).count();
    let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (warnings, failures, skipped) = (count(Verdict::Warn), count(Verdict::Fail), count(Verdict::Skipped));
    let mut parts = vec![format!("{} ok", count(Verdict::Ok))];
    if warnings > 0 {
        parts.push(paint(colour(Verdict::Warn), &plural(warnings, "warning")));
    }
    if failures > 0 {
        parts.push(paint(colour(Verdict::Fail), &plural(failures, "failure")));
    }
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    let more = match (complete, connect) {
        (false, _) => "; stopped on request before the end",
        (true, false) => "; --connect asks the services as well",
        (true, true) => "",
    };
    format!("\n{}{more}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::{Finding, Kind};

    #[test]
    fn a_line_says_what_is_wrong_and_what_mends_it_and_nothing_steers_the_terminal() {
        let wrong = Finding::fail("CLOCK_SKEW", "it is\u{1b}[2J late", "set it");
        let text = line(Some(Area::Credential), &Checked::about(Kind::Clock, "here", wrong));
        assert_eq!(
            text,
            "  fail    clock                  here: it is\\u{1b}[2J late\n          to fix it: set it\n          more: CLOCK_SKEW (docs/errors/CLOCK_SKEW.md)"
        );
        let first = line(None, &Checked::new(Kind::Clock, Finding::ok("right")));
        assert!(first.starts_with("\nCredential and clock\n  ok      clock "), "{first}");
    }

    #[test]
    fn the_summary_counts() {
        let lines = [
            Checked::new(Kind::Clock, Finding::ok("x")),
            Checked::new(Kind::Clock, Finding::warn("A", "x", "y")),
            Checked::new(Kind::Clock, Finding::Skipped("x".into())),
        ];
        assert_eq!(summary(&lines, true, true), "\n1 ok, 1 warning, 1 skipped");
        assert!(summary(&lines, false, true).ends_with("--connect asks the services as well"));
        assert!(summary(&lines, true, false).contains("stopped on request"));
    }
}
