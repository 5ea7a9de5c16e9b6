//! Where the declared counts are shown, and their gauges.

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

/// What is known of the counts.
#[derive(Debug, Clone)]
pub struct ShownCounts {
    /// What is counted, in the order of the configuration.
    pub declared: Arc<[Declared]>,
    /// What it has come to; `None`: not every document has been read yet.
    pub counted: Option<Arc<[Counted]>>,
    /// When the changes were last read to their end, by our clock; the counts are not older than that.
    pub as_of: Option<Ticks>,
    /// Documents that were read since counting began anew.
    pub documents: u64,
    /// Documents that nobody can read, so that they count for nothing.
    pub unreadable: usize,
    /// When the changes were last read to their end; before: when counting began.
    current: Instant,
}

/// Shared by the one who counts and those who look. Cheap to clone. Empty where nothing is declared.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<Option<ShownCounts>>>);

impl Counts {
    /// Shows that these are counted from here on, and that nothing is known yet.
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

    /// Shows that so many documents were read since counting began anew.
    pub fn read(&self, documents: u64) {
        self.change(|shown| shown.documents = documents);
    }

    /// Shows what is known at this moment; `counted`: where it is news.
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

    /// Takes back what was shown: it is not known whether it is right.
    pub fn withdraw(&self) {
        self.change(|shown| {
            shown.counted = None;
            shown.as_of = None;
            shown.documents = 0;
        });
    }

    /// What is shown; `None`: nothing is declared.
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

    /// Gauges in Prometheus' text format; none where nothing is declared. A count that is not known has none: 0 would be wrong.
    pub(super) fn render(&self, page: &mut Page) {
        let Some(shown) = self.get() else { return };
        page.sample(name::COUNTS_AGE, Some(shown.current.elapsed().as_secs_f64()));
        page.sample(name::COUNTS_UNREADABLE, Some(shown.unreadable as f64));
        let Some(counted) = shown.counted else { return };
        page.samples(name::COUNTED_TWINS, counted.iter().flat_map(samples));
    }
}

/// The samples of one count. Where it has too many groups, their sum.
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
        // In a label, the text "1" and the number 1 are one.
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

/// The longest value of a label, in characters: a property may hold kilobytes.
const LABEL_MAX: usize = 120;

/// A value as that of a label: a text as it is, anything else in JSON.
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
        assert_eq!(page(&counts), "", "nothing is declared");
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
