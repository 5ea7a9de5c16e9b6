use proptest::{prelude::*, sample::select};
use serde_json::json;

use super::*;
use crate::domain::{
    document::{Document, State},
    id::TwinKey,
    query::value,
    testing,
};

fn declared(counts: &[(Collection, Option<&str>, Option<&str>)]) -> Arc<[Declared]> {
    let count =
        |(number, (collection, condition, groups)): (usize, &(Collection, Option<&str>, Option<&str>))| {
            Declared::new(&format!("c{number}"), *collection, *condition, *groups, true).unwrap()
        };
    counts.iter().enumerate().map(count).collect()
}

/// The document of a twin with these tags; `None`: its tombstone.
fn document(device: &str, module: Option<&str>, tags: Option<&Value>) -> Document {
    let mut document = testing::document(1);
    document.key = TwinKey { hub: "h".into(), device: device.to_owned(), module: module.map(str::to_owned) };
    match (&mut document.state, tags) {
        (State::Live { twin, .. }, Some(tags)) => twin.tags = tags.as_object().expect("an object").clone(),
        _ => document.state = State::Deleted,
    }
    document
}

fn place(device: &str, module: Option<&str>) -> Place {
    Place::of(device, module.unwrap_or_default())
}

/// The rows of a new count of all these documents.
fn recount(declared: &Declared, documents: &BTreeMap<(String, Option<String>), Document>) -> Vec<Value> {
    let query = declared.query();
    let mut fold = query.aggregation(usize::MAX);
    for document in documents.values() {
        let of_modules = query.collection() == Collection::Modules;
        let twin = rest::twin(document).filter(|_| of_modules == document.key.is_module());
        if let Some(twin) = twin.filter(|twin| query.matches(twin)) {
            fold.add(&twin).expect("no bound");
        }
    }
    fold.rows()
}

fn same(left: &[Value], right: &[Value]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| value::equal(left, right))
}

/// A change of one document: its key and its new content.
fn change() -> impl Strategy<Value = (String, Option<String>, Option<Value>)> {
    let device = select(vec!["a", "b", "c", "A"]).prop_map(str::to_owned);
    let module = proptest::option::weighted(0.3, select(vec!["m", "n"]).prop_map(str::to_owned));
    let site = select(vec![json!("x"), json!("y"), json!(1), json!(1.0), json!(null), json!([1])]);
    let tags = (proptest::option::weighted(0.8, site), 0..3_u32).prop_map(|(site, level)| {
        let mut tags = json!({ "level": level });
        if let Some(site) = site {
            tags["site"] = site;
        }
        tags
    });
    (device, module, proptest::option::weighted(0.85, tags))
}

proptest! {
    #[test]
    fn whatever_changes_the_counts_are_those_of_a_recount(changes in proptest::collection::vec(change(), 0..60)) {
        let declared = declared(&[
            (Collection::Devices, None, None),
            (Collection::Devices, None, Some("tags.site")),
            (Collection::Devices, Some("tags.level > 0"), Some("tags.site, tags.level")),
            (Collection::Modules, Some("is_defined(tags.site)"), Some("tags.site")),
            (Collection::Modules, Some("tags.level = 7"), None),
        ]);
        let mut tally = Tally::new(Arc::clone(&declared));
        let mut documents = BTreeMap::new();
        for (device, module, tags) in changes {
            let found = document(&device, module.as_deref(), tags.as_ref());
            // Reported twice, as after a restart.
            for _ in 0..2 {
                tally.put(place(&device, module.as_deref()), &found);
            }
            documents.insert((device, module), found);
            for (declared, counted) in declared.iter().zip(tally.counts()) {
                let rows: Vec<_> = counted.rows.expect("few groups").iter().map(Row::json).collect();
                let expected = recount(declared, &documents);
                prop_assert!(same(&rows, &expected), "{}: {rows:?} and not {expected:?}", declared.query());
                prop_assert_eq!(rows.iter().filter_map(|row| row["twins"].as_u64()).sum::<u64>(), counted.total);
            }
        }
        // Counted again, in another order.
        let mut again = Tally::new(declared);
        for ((device, module), found) in documents.iter().rev() {
            again.put(place(device, module.as_deref()), found);
        }
        prop_assert_eq!(tally.differing(&again), HashSet::new());
        let totals = |tally: &Tally| tally.counts().iter().map(|count| count.total).collect::<Vec<_>>();
        prop_assert_eq!(totals(&tally), totals(&again));
    }
}

#[test]
fn beyond_so_many_groups_the_total_is_left_and_stays_right() {
    let declared = declared(&[(Collection::Devices, None, Some("tags.serial"))]);
    let mut tally = Tally::new(declared);
    let device = |number: usize| format!("d{number}");
    let with = |tally: &mut Tally, number: usize, tags: Option<Value>| {
        tally.put(place(&device(number), None), &document(&device(number), None, tags.as_ref()));
    };
    for number in 0..GROUPS_MAX {
        with(&mut tally, number, Some(json!({ "serial": number })));
    }
    assert_eq!(tally.counts()[0].rows.as_ref().map(Vec::len), Some(GROUPS_MAX));
    // The space of removed groups is used again.
    with(&mut tally, 0, Some(json!({ "serial": "new" })));
    assert_eq!(tally.counts()[0].rows.as_ref().map(Vec::len), Some(GROUPS_MAX));
    with(&mut tally, GROUPS_MAX, Some(json!({ "serial": "more" })));
    let counted = &tally.counts()[0];
    assert_eq!((counted.total, &counted.rows), (GROUPS_MAX as u64 + 1, &None));
    for number in 0..=GROUPS_MAX {
        with(&mut tally, number, None);
    }
    assert_eq!(tally.counts()[0].total, 0);
}

#[test]
fn what_cannot_be_read_counts_for_nothing_until_it_can() {
    let mut tally = Tally::new(declared(&[(Collection::Devices, None, None)]));
    let (at, found) = (place("d", None), document("d", None, Some(&json!({}))));
    tally.put(at, &found);
    for _ in 0..2 {
        tally.put_unreadable(at);
    }
    assert_eq!((tally.counts()[0].total, tally.unreadable()), (0, 1));
    tally.put(at, &found);
    assert_eq!((tally.counts()[0].total, tally.unreadable()), (1, 0));
}

#[test]
fn no_two_documents_have_one_place() {
    let places = [("a", "b"), ("ab", ""), ("", "ab"), ("a", "B"), ("b", "a")];
    let distinct: HashSet<_> = places.iter().map(|(device, id)| Place::of(device, id)).collect();
    assert_eq!(distinct.len(), places.len());
}

#[test]
fn what_is_counted_in_another_way_is_found() {
    let declared = declared(&[(Collection::Devices, None, Some("tags.site"))]);
    let (mut one, mut other) = (Tally::new(Arc::clone(&declared)), Tally::new(declared));
    for (device, site, elsewhere) in
        [("a", Some("x"), Some("x")), ("b", Some("x"), Some("y")), ("c", None, Some("x"))]
    {
        let with =
            |site: Option<&str>| document(device, None, site.map(|site| json!({ "site": site })).as_ref());
        one.put(place(device, None), &with(site));
        other.put(place(device, None), &with(elsewhere));
    }
    let found = HashSet::from([place("b", None), place("c", None)]);
    assert_eq!((one.differing(&other), other.differing(&one)), (found.clone(), found));
}
