//! The limiter with a table of times, and the formatter with both formats.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn key(class: &str) -> Key {
    ("a.rs", 7, class.to_owned())
}

#[test]
fn one_line_in_ten_seconds_and_the_next_one_counts_what_was_held_back() {
    let mut limiter = Limiter::default();
    for (now, expected) in [
        (100, Line::Written(0)),
        (100, Line::HeldBack),
        (105, Line::HeldBack),
        (109, Line::HeldBack),
        (110, Line::Written(3)),
        (111, Line::HeldBack),
        (125, Line::Written(1)),
        (140, Line::Written(0)),
    ] {
        assert_eq!(limiter.admit(seconds(now), key("a"), Subject::default(), "x"), expected, "{now}");
    }
}

#[test]
fn places_and_classes_do_not_hold_each_other_back() {
    let mut limiter = Limiter::default();
    for key in [key("a"), key("b"), ("b.rs", 7, "a".to_owned()), ("a.rs", 8, "a".to_owned())] {
        assert_eq!(
            limiter.admit(seconds(1), key.clone(), Subject::default(), "x"),
            Line::Written(0),
            "{key:?}"
        );
        assert_eq!(limiter.admit(seconds(1), key, Subject::default(), "x"), Line::HeldBack);
    }
}

#[test]
fn what_has_been_quiet_for_a_minute_is_over_and_told_once_where_it_repeated() {
    let mut limiter = Limiter::default();
    for now in [0, 1, 2, 30, 31] {
        limiter.admit(seconds(now), key("many"), Subject::default(), "lost");
    }
    limiter.admit(seconds(31), key("single"), Subject::default(), "odd");
    assert_eq!(limiter.over(seconds(90)), []);
    let over =
        Over { message: "lost".into(), class: "many".into(), lines: 5, held_back: 1, lasted: seconds(31) };
    assert_eq!(limiter.over(seconds(91)), [over]);
    assert_eq!(limiter.over(seconds(1000)), []);
    assert_eq!(
        limiter.admit(seconds(1001), key("single"), Subject::default(), "odd"),
        Line::Written(0),
        "the counting starts again"
    );
    assert!(limiter.0.len() == 1, "old keys must be dropped");
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `log` writes. It receives the clock in seconds and the lines.
fn logged(shape: Shape, log: impl FnOnce(&AtomicU64, &Lines)) -> Vec<String> {
    let (captured, time) = (Captured::default(), Arc::new(AtomicU64::new(0)));
    let clock = Arc::clone(&time);
    let lines = Lines::with_clock(Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed))));
    let (writer, shared) = (captured.clone(), lines.clone());
    let recoveries = Recoveries(lines.clone());
    let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    match shape {
        Shape::Text => {
            let subscriber = builder
                .map_event_format(|inner| Limited { inner, shape, lines: shared })
                .finish()
                .with(recoveries);
            tracing::subscriber::with_default(subscriber, || log(&time, &lines));
        }
        Shape::Json => {
            let builder = builder.json().flatten_event(true);
            let subscriber = builder
                .map_event_format(|inner| Limited { inner, shape, lines: shared })
                .finish()
                .with(recoveries);
            tracing::subscriber::with_default(subscriber, || log(&time, &lines));
        }
    }
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The line of a partition that lost its connection.
fn lost(partition: &str) {
    let (stream, partition) = partition.split_once('/').expect("a stream and a partition");
    tracing::warn!(%stream, %partition, code = "EVENTHUBS_UNAVAILABLE", retry_in = ?seconds(1), "connection lost");
}

/// The line of a partition whose events were lost.
fn gone(partition: &str) {
    let (stream, partition) = partition.split_once('/').expect("a stream and a partition");
    tracing::error!(%stream, %partition, code = "EVENTS_LOST", "events were never received");
}

#[test]
fn eight_partitions_that_try_again_are_one_line_and_one_news_is_a_line_for_each() {
    let lines = logged(Shape::Text, |_, _| {
        for partition in 0..8 {
            lost(&format!("twins/{partition}"));
            gone(&format!("twins/{partition}"));
        }
        lost("lifecycle/0");
    });
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("connection lost"), count("never received")), (2, 8), "{lines:#?}");
}

#[test]
fn the_count_joins_the_next_line_in_both_shapes() {
    for shape in [Shape::Text, Shape::Json] {
        let lines = logged(shape, |time, _| {
            for second in 0..12 {
                time.store(second, Ordering::Relaxed);
                lost("twins/0");
            }
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        match shape {
            Shape::Text => assert!(lines[1].ends_with(" held_back=9"), "{lines:#?}"),
            Shape::Json => {
                let line: serde_json::Value = serde_json::from_str(&lines[1]).expect("JSON");
                assert_eq!(line["held_back"], 9, "{line}");
                assert_eq!((&line["stream"], &line["partition"]), (&"twins".into(), &"0".into()), "{line}");
                assert_eq!(line["replica"], replica(), "{line}");
            }
        }
    }
}

#[test]
fn it_is_told_when_it_is_over() {
    let lines = logged(Shape::Text, |time, lines| {
        lost("twins/0");
        lost("twins/1");
        time.store(59, Ordering::Relaxed);
        lines.tell_what_is_over();
        time.store(60, Ordering::Relaxed);
        lines.tell_what_is_over();
        lines.tell_what_is_over();
    });
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let over = &lines[1];
    assert!(over.contains("INFO") && over.contains("lines=2") && over.contains("held_back=1"), "{over}");
    assert!(over.contains("class=\"EVENTHUBS_UNAVAILABLE twins\""), "{over}");
}

#[test]
fn below_warn_nothing_is_held_back_and_reasons_in_words_are_no_class() {
    let lines = logged(Shape::Text, |_, _| {
        for number in 0..3 {
            tracing::info!(number, "took over a partition");
            tracing::warn!(reason = %format!("status {number} at 10.0.0.{number}"), "no answer");
        }
        for reason in ["body_not_json", "too_large"] {
            tracing::warn!(reason, "dead letter");
        }
    });
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("took"), count("no answer"), count("dead letter")), (3, 1, 1 + 1), "{lines:#?}");
}

/// The line about the state of the store.
fn store(answers: bool) {
    match answers {
        true => tracing::info!(what = "the store", outage = OVER, "it answers"),
        false => {
            tracing::warn!(what = "the store", code = "COSMOS_UNAVAILABLE", outage = "began", "no answer")
        }
    }
}

#[test]
fn the_first_line_of_a_second_outage_is_written_however_soon_it_follows() {
    let lines = logged(Shape::Text, |time, _| {
        for second in [0, 1, 2] {
            time.store(second, Ordering::Relaxed);
            store(false);
            store(false); // suppressed: it is the same outage
            store(true);
        }
    });
    let told: Vec<_> = lines.iter().map(|line| line.contains(" WARN ")).collect();
    assert_eq!(told, [true, false, true, false, true, false], "{lines:#?}");
    assert!(lines[2].ends_with(" held_back=1"), "suppressed lines must be counted: {lines:#?}");
}

#[test]
fn what_recovers_re_arms_the_lines_about_itself_and_no_others() {
    let lines = logged(Shape::Text, |_, _| {
        for stream in ["twins", "lifecycle"] {
            for partition in 0..4 {
                lost(&format!("{stream}/{partition}"));
                gone(&format!("{stream}/{partition}"));
            }
        }
        tracing::info!(stream = %"twins", partition = %1, outage = OVER, "received from again");
        for stream in ["twins", "lifecycle"] {
            lost(&format!("{stream}/3"));
            gone(&format!("{stream}/1"));
        }
        store(true);
        lost("twins/2");
    });
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    let again = lines.iter().filter(|line| line.contains("connection lost") && line.contains("stream=twins"));
    assert_eq!((again.count(), count("connection lost"), count("never received")), (2, 3, 8), "{lines:#?}");
}

#[test]
fn each_line_of_any_level_says_which_replica_it_is_of() {
    for shape in [Shape::Text, Shape::Json] {
        let lines = logged(shape, |_, _| {
            tracing::info!("took over a partition");
            gone("twins/0");
        });
        for line in lines {
            match shape {
                Shape::Text => assert!(line.contains(&format!(" replica={}", replica())), "{line}"),
                Shape::Json => {
                    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                    assert_eq!(line["replica"], replica(), "{line}");
                }
            }
        }
    }
}
