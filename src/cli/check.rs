//! `twinsync check`: reports problems and how to fix them, before a start or beside a running daemon.
//!
//! Exit codes: 0 no problems; 1 warnings only (0 with `--allow-warnings`); 2 at least one failure, or a configuration that no command can
//! use, or a report that cannot be printed; 130 stopped before the end. `docs/check.md` describes the lines and the JSON.

mod text;

use std::process::ExitCode;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Error, Sources, output};
use crate::{
    app,
    config::{self, Settings},
    domain::checks::{Checked, Finding, Kind, Verdict, worst},
    telemetry::VERSION,
};

/// The version of the JSON. Adding fields does not raise it.
const SCHEMA: u32 = 1;

/// Exit code after a stop by a signal, as shells use it.
const STOPPED: u8 = 130;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Checks all services too: connections, permissions and quotas. Writes a test document and a test blob, and removes them.
    #[arg(long)]
    connect: bool,
    /// Exit code 0 if there are only warnings: for init containers, pipelines and tests.
    #[arg(long)]
    allow_warnings: bool,
    /// Prints one JSON object, for scripts.
    #[arg(long)]
    json: bool,
}

/// Prints a line for each check. The exit code is that of the worst one.
pub async fn run(arguments: &Arguments) -> ExitCode {
    match check(arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            super::ended(Err(error), config::LogFormat::Text);
            // The same code as for other failures here: 1 would mean warnings only.
            ExitCode::from(Verdict::Fail.exit_code())
        }
    }
}

async fn check(arguments: &Arguments) -> Result<u8, Error> {
    let stop = app::stop_on_signals()?;
    let Arguments { connect, allow_warnings, json, .. } = *arguments;
    let mut report = Report { connect, allow_warnings, json, lines: Vec::new(), failed: None };
    report.begin();
    match arguments.sources.load() {
        Err(error) => {
            for line in problems(&error).chain(app::check::without_configuration(arguments.connect)) {
                report.tell(line);
            }
        }
        Ok(settings) => {
            report.tell(Checked::new(Kind::Configuration, Finding::ok(words(&settings))));
            Box::pin(app::check::run(&settings, arguments.connect, &stop, |line| report.tell(line))).await;
        }
    }
    report.end(&stop)
}

/// Every problem of the configuration, on one line each.
fn problems(error: &config::Error) -> impl Iterator<Item = Checked> {
    error.problems.iter().map(|problem| {
        let subject = problem.key.clone().unwrap_or_default();
        let (text, remedy) = match problem.message.rsplit_once(": ") {
            Some((text, remedy)) => (text, remedy.to_owned()),
            None => (problem.message.as_str(), place(problem)),
        };
        let text = format!("{text} ({})", problem.origin);
        Checked::about(Kind::Configuration, subject, Finding::fail(config::Error::CODE, text, remedy))
    })
}

/// Where to fix a problem whose message does not say that.
fn place(problem: &config::Problem) -> String {
    match (&problem.origin, &problem.key) {
        (config::Origin::Default, Some(key)) => {
            let variable = key.to_uppercase().replace('.', "__");
            format!("set {key} in a file for --config, or the variable TWINSYNC__{variable}")
        }
        (config::Origin::Default, None) => "set it in a file for --config".to_owned(),
        (config::Origin::File(path), _) => format!("fix it in {}", path.display()),
        (config::Origin::Environment(name), _) => format!("fix or unset {name}"),
    }
}

fn words(settings: &Settings) -> String {
    let set = settings.effective().iter().filter(|line| line.origin != config::Origin::Default).count();
    format!("valid; {set} of {} settings are not the default", settings.effective().len())
}

/// The printed report.
struct Report {
    connect: bool,
    allow_warnings: bool,
    json: bool,
    lines: Vec<Checked>,
    /// The error when the output was closed.
    failed: Option<Error>,
}

/// The JSON output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    schema: u32,
    version: &'a str,
    connect: bool,
    complete: bool,
    verdict: &'static str,
    exit_code: u8,
    checks: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    check: &'static str,
    subject: Option<&'a str>,
    verdict: &'static str,
    text: &'a str,
    remedy: Option<&'a str>,
    code: Option<&'static str>,
    page: Option<String>,
}

/// Address of the page about a code.
fn page(code: &str) -> String {
    format!("docs/errors/{code}.md")
}

impl<'a> Line<'a> {
    fn of(checked: &'a Checked) -> Self {
        let problem = checked.finding.problem();
        Self {
            check: checked.kind.name(),
            subject: Some(checked.subject.as_str()).filter(|subject| !subject.is_empty()),
            verdict: checked.finding.verdict().name(),
            text: checked.finding.text(),
            remedy: problem.map(|problem| problem.remedy.as_str()),
            code: problem.map(|problem| problem.code),
            page: problem.map(|problem| page(problem.code)),
        }
    }
}

impl Report {
    fn begin(&mut self) {
        if !self.json {
            self.print(&text::title(self.connect));
        }
    }

    fn tell(&mut self, line: Checked) {
        if !self.json {
            let before = self.lines.last().map(|line| line.kind.area());
            let text = text::line(before, &line);
            self.print(&text);
        }
        self.lines.push(line);
    }

    fn print(&mut self, text: &str) {
        if let Err(error) = output::line(text) {
            self.failed.get_or_insert(error);
        }
    }

    fn end(mut self, stop: &CancellationToken) -> Result<u8, Error> {
        let complete = !stop.is_cancelled();
        let verdict: Verdict = worst(&self.lines);
        let exit_code = match verdict {
            _ if !complete => STOPPED,
            Verdict::Warn if self.allow_warnings => Verdict::Ok.exit_code(),
            verdict => verdict.exit_code(),
        };
        if self.json {
            let checks = self.lines.iter().map(Line::of).collect();
            let verdict = verdict.name();
            let object = Json {
                schema: SCHEMA,
                version: VERSION,
                connect: self.connect,
                complete,
                verdict,
                exit_code,
                checks,
            };
            output::json(&object)?;
        } else {
            let text = text::summary(&self.lines, self.connect, complete);
            self.print(&text);
        }
        self.failed.map_or(Ok(exit_code), Err)
    }
}
