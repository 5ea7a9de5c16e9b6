//! Notes of long scans.

use std::{io, sync::Arc};

use async_trait::async_trait;
use twinsync::ports::{NoteError, NoteStore};

use crate::{link::Link, plan::Fault, world::Service};

pub(crate) struct Notes(pub(crate) Arc<Link>);

fn failed(operation: &'static str, name: &str) -> NoteError {
    NoteError {
        operation,
        name: name.to_owned(),
        place: "the simulation".to_owned(),
        source: io::ErrorKind::TimedOut.into(),
    }
}

#[async_trait]
impl NoteStore for Notes {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        let step = self.0.begin(&format!("load {name}")).await;
        let fails =
            self.0.world.is_away(Service::Storage, &self.0.name) || self.0.world.draws(Fault::NotesFail);
        let note = self.0.world.lock().notes.get(name).cloned();
        self.0.end(step).await;
        if fails { Err(failed("read", name)) } else { Ok(note) }
    }

    async fn save(&self, name: &str, note: &[u8]) -> Result<(), NoteError> {
        let step = self.0.begin(&format!("save {name}")).await;
        let away = self.0.world.is_away(Service::Storage, &self.0.name);
        let fails = away || self.0.world.draws(Fault::NotesFail);
        let is_saved = !away && self.0.world.below(2) == 0;
        if !fails || is_saved {
            self.0.world.lock().notes.insert(name.to_owned(), note.to_vec());
        }
        self.0.end(step).await;
        if fails { Err(failed("write", name)) } else { Ok(()) }
    }
}
