//! Event Hubs: partitions, and connections that break, hang and deliver again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use twinsync::{
    domain::{id::SequenceNumber, message::Message, progress::Extent},
    ports::{EventSource, Receiver, SourceError, Start},
};

use crate::{
    link::Link,
    plan::Fault,
    world::{Place, Service},
};

/// One Event Hub.
pub(crate) struct Hub {
    pub(crate) link: Arc<Link>,
    pub(crate) name: String,
}

fn lost(operation: &'static str) -> SourceError {
    SourceError::Lost { operation, reason: "the connection broke".to_owned() }
}

impl Hub {
    fn place(&self, partition: &str) -> Place {
        (self.name.clone(), partition.to_owned())
    }

    /// Makes a management request, which may fail.
    async fn ask(&self, what: &str) -> Result<(), SourceError> {
        let step = self.link.begin(what).await;
        let away = self.link.world.is_away(Service::EventHubs, &self.link.name);
        let refuses = away || self.link.world.draws(Fault::HubRefuses);
        let throttles = refuses && !away && self.link.world.below(3) == 0;
        self.link.end(step).await;
        match (refuses, throttles) {
            (false, _) => Ok(()),
            (true, false) => Err(lost("asking")),
            (true, true) => Err(SourceError::Throttled { operation: "asking", reason: "50008".to_owned() }),
        }
    }
}

#[async_trait]
impl EventSource for Hub {
    fn name(&self) -> &str {
        &self.name
    }

    async fn partitions(&self) -> Result<Vec<String>, SourceError> {
        self.ask(&format!("partitions of {}", self.name)).await?;
        let inner = self.link.world.lock();
        Ok(inner
            .partitions
            .keys()
            .filter(|(hub, _)| *hub == self.name)
            .map(|(_, name)| name.clone())
            .collect())
    }

    async fn extent(&self, partition: &str) -> Result<Extent, SourceError> {
        self.ask(&format!("extent of {}/{partition}", self.name)).await?;
        let inner = self.link.world.lock();
        let Some(log) = inner.partitions.get(&self.place(partition)) else { return Err(lost("asking")) };
        Ok(Extent {
            first: SequenceNumber(log.first as i64),
            last: SequenceNumber(log.newest()),
            is_empty: log.first == log.events.len(),
            newest: log.events.last().and_then(|newest| newest.message.enqueued),
        })
    }

    async fn open(&self, partition: &str, start: Start) -> Result<Box<dyn Receiver>, SourceError> {
        self.ask(&format!("open {}/{partition} {start:?}", self.name)).await?;
        let place = self.place(partition);
        let inner = self.link.world.lock();
        let Some(log) = inner.partitions.get(&place) else { return Err(lost("opening")) };
        let (era, next) = (
            log.era,
            match start {
                Start::Earliest => 0,
                Start::After(number) => number.0 + 1,
                Start::At(position) => log.at_offset(position.offset.parse().expect("a known offset")),
            },
        );
        drop(inner);
        Ok(Box::new(Connection { link: Arc::clone(&self.link), place, era, next: next.max(0) as usize }))
    }

    async fn close(&self) {}
}

struct Connection {
    link: Arc<Link>,
    place: Place,
    /// Identifies the partition among those of this name that were created one after another.
    era: i64,
    next: usize,
}

impl Connection {
    /// The next events. Fails if the Event Hub was created again after the connection was opened.
    fn there(&mut self) -> Result<Vec<Message>, SourceError> {
        let most = 1 + self.link.world.below(40) as usize;
        let inner = self.link.world.lock();
        let log = inner.partitions.get(&self.place).filter(|log| log.era == self.era);
        let log = log.ok_or_else(|| lost("receiving"))?;
        self.next = self.next.max(log.first);
        Ok(log.events.iter().skip(self.next).take(most).map(|routed| routed.message.clone()).collect())
    }
}

#[async_trait]
impl Receiver for Connection {
    async fn receive(&mut self) -> Result<Vec<Message>, SourceError> {
        loop {
            if self.link.is_dead() {
                std::future::pending::<()>().await;
            }
            let link = Arc::clone(&self.link);
            let arrives = link.world.arrivals.notified();
            let messages = self.there()?;
            if messages.is_empty() {
                arrives.await;
                continue;
            }
            let (hub, partition) = self.place.clone();
            let step = link.begin(&format!("receive {hub}/{partition} from {}", self.next)).await;
            if link.world.draws_rarely(Fault::LinkHangs) {
                link.world.tell(format!("{hub}/{partition} goes silent"));
                std::future::pending::<()>().await;
            }
            let away = link.world.is_away(Service::EventHubs, &link.name);
            let breaks = away || link.world.draws(Fault::LinkBreaks);
            if link.world.draws(Fault::LinkGoesBack) {
                self.next = self.next.saturating_sub(1 + link.world.below(4) as usize);
            } else {
                self.next += messages.len();
            }
            link.end(step).await;
            return if breaks { Err(lost("receiving")) } else { Ok(messages) };
        }
    }

    async fn close(self: Box<Self>) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
