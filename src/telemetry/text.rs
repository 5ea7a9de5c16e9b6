//! Prometheus' text format, for metrics that the recorder does not hold. It is generated on request.

use std::fmt::{Display, Write as _};

use super::name;

/// Samples, metric by metric.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds a metric with its samples: labels, in the format of [`labels`], and a value.
    pub(super) fn samples(&mut self, name: &str, samples: impl IntoIterator<Item = (impl Display, f64)>) {
        // Writing to a String cannot fail.
        if let Some(name::Description { help, kind, .. }) = name::described(name) {
            let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.label());
        }
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    /// Adds a metric without labels, if its value is known.
    pub(super) fn sample(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.samples(name, [("", value)]);
        }
    }

    /// The text so far.
    pub(super) fn text(self) -> String {
        self.0
    }
}

/// Labels in braces.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}
