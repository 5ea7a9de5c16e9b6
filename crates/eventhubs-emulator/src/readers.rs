//! The readers of a partition: epochs (owner levels), which reader displaces which, and the limit of readers.
//!
//! The rules are those of Microsoft's documentation of Event Hubs. A reader with an epoch displaces every
//! reader with the same or a lower epoch, and every reader without one. While it is connected, readers without
//! an epoch are refused. Without epochs, at most five readers may read one partition in one consumer group.

use std::sync::{Arc, Mutex, PoisonError};

use fe2o3_amqp_types::definitions::{self, AmqpError, ErrorCondition, LinkError};
use tokio::sync::oneshot;

/// Maximum number of readers without an epoch, per partition and consumer group (Azure Event Hubs quotas).
const MAXIMUM_READERS: usize = 5;

/// The error with which the broker closes a receiver's link. `None` closes it without an error.
pub(super) type Closure = Option<definitions::Error>;

/// The readers of one partition in all consumer groups.
#[derive(Debug, Default)]
pub(super) struct Readers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    id: u64,
    group: String,
    epoch: Option<i64>,
    close: oneshot::Sender<Closure>,
}

/// A registered reader. Dropping it removes the reader.
#[derive(Debug)]
pub(super) struct Registration {
    readers: Arc<Readers>,
    id: u64,
    closure: oneshot::Receiver<Closure>,
}

impl Readers {
    /// Admits a reader and displaces others according to its epoch. Returns the error for its link if it may
    /// not read.
    pub(super) fn admit(
        self: &Arc<Self>,
        group: &str,
        epoch: Option<i64>,
    ) -> Result<Registration, definitions::Error> {
        let mut state = self.lock();
        let highest = state.of_group(group).filter_map(|reader| reader.epoch).max();
        match (epoch, highest) {
            (Some(epoch), Some(highest)) if epoch < highest => {
                return Err(stolen(format!(
                    "a receiver with epoch {highest} is connected: one with epoch {epoch} is not allowed"
                )));
            }
            (Some(epoch), _) => state.close_group(
                group,
                &stolen(format!("a receiver with epoch {epoch} was created: this one is disconnected")),
            ),
            (None, Some(highest)) => {
                return Err(stolen(format!(
                    "a receiver with epoch {highest} is connected: one without an epoch is not allowed"
                )));
            }
            (None, None) if state.of_group(group).count() >= MAXIMUM_READERS => {
                return Err(definitions::Error::new(
                    AmqpError::ResourceLimitExceeded,
                    format!("at most {MAXIMUM_READERS} receivers per partition in a consumer group"),
                    None,
                ));
            }
            (None, None) => {}
        }
        let (close, closure) = oneshot::channel();
        let id = state.next_id;
        state.next_id += 1;
        state.readers.push(Reader { id, group: group.to_owned(), epoch, close });
        Ok(Registration { readers: Arc::clone(self), id, closure })
    }

    /// Closes the links of all readers. Returns their number.
    pub(super) fn close_all(&self, closure: &Closure) -> usize {
        let readers = std::mem::take(&mut self.lock().readers);
        readers.into_iter().filter_map(|reader| reader.close.send(closure.clone()).ok()).count()
    }

    /// Closes the links of all readers of a consumer group.
    pub(super) fn close_group(&self, group: &str, error: &definitions::Error) {
        self.lock().close_group(group, error);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of_group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Reader> {
        self.readers.iter().filter(move |reader| reader.group == group)
    }

    fn close_group(&mut self, group: &str, error: &definitions::Error) {
        let (leaving, staying) =
            std::mem::take(&mut self.readers).into_iter().partition(|r| r.group == group);
        self.readers = staying;
        let leaving: Vec<Reader> = leaving;
        for reader in leaving {
            // Sending fails if the reader has ended already.
            drop(reader.close.send(Some(error.clone())));
        }
    }
}

impl Registration {
    /// Completes when the broker wants to close the link. Cancel safe.
    pub(super) async fn closed(&mut self) -> Closure {
        (&mut self.closure).await.unwrap_or_default()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.readers.lock().readers.retain(|reader| reader.id != self.id);
    }
}

fn stolen(description: String) -> definitions::Error {
    definitions::Error::new(ErrorCondition::LinkError(LinkError::Stolen), description, None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{MAXIMUM_READERS, Readers, Registration};

    /// Whether the broker has closed this reader's link.
    fn displaced(registration: &mut Registration) -> bool {
        registration.closure.try_recv().is_ok()
    }

    #[test]
    fn a_higher_or_equal_epoch_displaces_and_a_lower_one_is_refused() {
        let readers = Arc::new(Readers::default());
        let mut first = readers.admit("group", Some(3)).expect("nobody reads");
        readers.admit("group", Some(2)).expect_err("a lower epoch");
        assert!(!displaced(&mut first), "a refused reader displaces nobody");
        let mut second = readers.admit("group", Some(3)).expect("an equal epoch");
        assert!(displaced(&mut first));
        let _third = readers.admit("group", Some(4)).expect("a higher epoch");
        assert!(displaced(&mut second));
    }

    #[test]
    fn a_reader_without_an_epoch_waits_for_the_end_of_one_with() {
        let readers = Arc::new(Readers::default());
        let mut plain = readers.admit("group", None).expect("nobody reads");
        let owner = readers.admit("group", Some(0)).expect("an epoch wins over none");
        assert!(displaced(&mut plain));
        readers.admit("group", None).expect_err("an owner reads");
        drop(owner);
        readers.admit("group", None).expect("the owner is gone");
    }

    #[test]
    fn groups_do_not_disturb_each_other() {
        let readers = Arc::new(Readers::default());
        let mut other = readers.admit("other", Some(1)).expect("nobody reads");
        let _owner = readers.admit("group", Some(9)).expect("nobody reads");
        assert!(!displaced(&mut other));
    }

    #[test]
    fn readers_without_an_epoch_are_limited_until_one_leaves() {
        let readers = Arc::new(Readers::default());
        let mut open: Vec<Registration> =
            (0..MAXIMUM_READERS).map(|_| readers.admit("group", None).expect("a place")).collect();
        readers.admit("group", None).expect_err("no place");
        open.pop();
        readers.admit("group", None).expect("a place became free");
    }
}
