//! The declared counts as they are shown, and their gauges.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    name,
    text::{Page, labels},
};
use crate::domain::{
    query::{Counted, Declared},
    ticks::Ticks,
};

/// The known state of the counts.
#[derive(Debug, Clone)]
pub struct ShownCounts {
    /// The declared counts, in the order of the configuration.
    pub declared: Arc<[Declared]>,
    /// Their values. `None`: not every document has been read yet.
    pub counted: Option<Arc<[Counted]>>,
    /// When the change feed was last read to its end, by the local clock. The counts are not older than that.
    pub as_of: Option<Ticks>,
    /// Number of documents that were read since counting last began.
    pub documents: u64,
    /// Number of unreadable documents. They are not counted.
    pub unreadable: usize,
    /// When the change feed was last read to its end. Before the first time: when counting began.
    current: Instant,
}

/// The counts, shared by the task that counts and the readers. Cheap to clone. Empty if no counts are declared.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<Option<ShownCounts>>>);

impl Counts {
    /// Begins to show these counts. Their values are unknown until the first result.
    pub fn begin(&self, declared: Arc<[Declared]>) {
        *self.lock() = Some(ShownCounts {
            declared,
            counted: None,
            as_of: None,
            documents: 0,
            unreadable: 0,
            current: Instant::now(),
        });
    }

    /// Shows how many documents were read since counting last began.
    pub fn read(&self, documents: u64) {
        self.change(|shown| shown.documents = documents);
    }

    /// Shows the state at this moment. `counted`: the values, if they have changed.
    pub fn current(&self, counted: Option<Vec<Counted>>, unreadable: usize, at: Ticks) {
        self.change(|shown| {
            if let Some(counted) = counted {
                shown.counted = Some(counted.into());
            }
            shown.unreadable = unreadable;
            shown.as_of = Some(at);
            shown.current = Instant::now();
        });
    }

    /// Withdraws the values, because it is unknown whether they are right.
    pub fn withdraw(&self) {
        self.change(|shown| {
            shown.counted = None;
            shown.as_of = None;
            shown.documents = 0;
        });
    }

    /// The state that is shown. `None`: no counts are declared.
    pub fn get(&self) -> Option<ShownCounts> {
        self.lock().clone()
    }

    fn change(&self, change: impl FnOnce(&mut ShownCounts)) {
        if let Some(shown) = &mut *self.lock() {
            change(shown);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ShownCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gauges in Prometheus' text format. Empty if no counts are declared. An unknown count has no gauge, because 0 would be wrong.
    pub(super) fn render(&self, page: &mut Page) {
        let Some(shown) = self.get() else { return };
        page.sample(name::COUNTS_AGE, Some(shown.current.elapsed().as_secs_f64()));
        page.sample(name::COUNTS_UNREADABLE, Some(shown.unreadable as f64));
        let Some(counted) = shown.counted else { return };
        page.samples(name::COUNTED_TWINS, counted.iter().flat_map(samples));
    }
}

/// The samples of one count. If it has too many groups, their sum.
fn samples(counted: &Counted) -> Vec<(String, f64)> {
    let named = ("name".to_owned(), counted.name.clone());
    let Some(rows) = &counted.rows else {
        return vec![(written(&[named]), counted.total as f64)];
    };
    let mut samples = Vec::<(String, f64)>::new();
    for row in rows {
        let of_group = row
            .group
            .iter()
            .map(|(label, value)| (label.clone(), value.as_ref().map_or_else(String::new, text)));
        let labels: Vec<_> = std::iter::once(named.clone()).chain(of_group).collect();
        let labels = written(&labels);
        // As label values, the text "1" and the number 1 are equal.
        match samples.iter_mut().find(|(other, _)| *other == labels) {
            Some((_, twins)) => *twins += row.twins as f64,
            None => samples.push((labels, row.twins as f64)),
        }
    }
    samples
}

fn written(pairs: &[(String, String)]) -> String {
    labels(&pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>())
}

/// Maximum length of a label value, in characters. A property may hold kilobytes.
const LABEL_MAX: usize = 120;

/// A value as a label value: text unchanged, anything else as JSON.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LABEL_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::query::{Collection, Row};

    fn row(value: Option<Value>, twins: u64) -> Row {
        Row { group: vec![("tags_site".to_owned(), value)], twins }
    }

    fn page(counts: &Counts) -> String {
        let mut page = Page::default();
        counts.render(&mut page);
        page.text()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_a_gauge_and_what_is_not_is_none() {
        let counts = Counts::default();
        assert_eq!(page(&counts), "", "without declared counts there are no metrics");
        let declared =
            |name: &str| Declared::new(name, Collection::Devices, None, Some("tags.site"), false).unwrap();
        counts.begin([declared("by_site"), declared("wide")].into());
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let found = page(&counts);
        assert!(found.lines().any(|line| line == "twinsync_counts_age_seconds 3"), "{found}");
        assert!(!found.contains("twinsync_counted_twins"), "{found}");
        let rows = vec![
            row(None, 1),
            row(Some(json!(null)), 2),
            row(Some(json!(7)), 3),
            row(Some(json!("7")), 4),
            row(Some(json!("a \"b\"")), 5),
            row(Some(json!("é".repeat(LABEL_MAX) + "x")), 6),
            row(Some(json!("é".repeat(LABEL_MAX) + "y")), 7),
        ];
        let by_site = Counted { name: "by_site".to_owned(), total: 28, rows: Some(rows) };
        let wide = Counted { name: "wide".to_owned(), total: 9, rows: None };
        counts.current(Some(vec![by_site, wide]), 2, Ticks::new(0));
        let found = page(&counts);
        let long =
            format!("twinsync_counted_twins{{name=\"by_site\",tags_site=\"{}…\"}} 13", "é".repeat(LABEL_MAX));
        for line in [
            long.as_str(),
            "twinsync_counted_twins{name=\"by_site\",tags_site=\"\"} 1",
            "twinsync_counted_twins{name=\"by_site\",tags_site=\"null\"} 2",
            "twinsync_counted_twins{name=\"by_site\",tags_site=\"7\"} 7",
            "twinsync_counted_twins{name=\"by_site\",tags_site=\"a \\\"b\\\"\"} 5",
            "twinsync_counted_twins{name=\"wide\"} 9",
            "twinsync_counts_age_seconds 0",
            "twinsync_counts_unreadable_documents 2",
        ] {
            assert!(found.lines().any(|other| other == line), "{line}\nnot in\n{found}");
        }
        counts.withdraw();
        assert!(!page(&counts).contains("twinsync_counted_twins"));
    }
}
