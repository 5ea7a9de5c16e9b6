//! One AMQP session. Its attach loop gives every link its own task.

use std::sync::{Arc, atomic::Ordering};

use fe2o3_amqp::acceptor::{LinkAcceptor, LinkEndpoint, ListenerSessionHandle};
use fe2o3_amqp_types::{
    definitions::{self, AmqpError, ErrorCondition, Role},
    messaging::{Source, Target, TargetArchetype},
    performatives::Attach,
    primitives::{Symbol, Value},
};

use super::{
    address::Node,
    context::SessionContext,
    delivery::Delivery,
    intake::Intake,
    link,
    namespace::{Hub, Lane},
    position::Position,
    services::{self, Replies, Service},
    switches::server_busy,
};

/// Maximum message size of Event Hubs' Standard tier, in bytes. The attach frame must contain it, because the
/// Rust producer reads it.
const MAXIMUM_MESSAGE_BYTES: u64 = 1024 * 1024;

/// Condition with which Event Hubs refuses a start position.
const ARGUMENT_ERROR: &str = "com.microsoft:argument-error";

type Acceptor = LinkAcceptor<fn(Source) -> Option<Source>, fn(Target) -> Option<Target>>;

/// The work of a link. It is decided from the attach frame, before the link is accepted.
enum Work {
    Service(Service),
    Deliver(Delivery),
    Take(Intake),
    Refuse(definitions::Error),
}

impl SessionContext {
    /// Serves a session until the client ends it or its connection ends.
    pub(super) async fn serve(self, mut session: ListenerSessionHandle) {
        let acceptor = LinkAcceptor::builder().max_message_size(MAXIMUM_MESSAGE_BYTES).build();
        let replies = Replies::default();
        while let Some(attach) = session.next_incoming_attach().await {
            self.attach(attach, &acceptor, &replies, &mut session).await;
        }
        if let Err(error) = session.end().await {
            tracing::debug!(%error, "a session ended");
        }
    }

    async fn attach(
        &self,
        mut attach: Attach,
        acceptor: &Acceptor,
        replies: &Replies,
        session: &mut ListenerSessionHandle,
    ) {
        let work = self.work(&attach);
        if matches!(work, Work::Refuse(_)) {
            // A refused link is attached without its terminus (AMQP 1.0, 2.6.3). A detach with the error
            // follows.
            match attach.role {
                Role::Receiver => attach.source = None,
                Role::Sender => attach.target = None,
            }
        }
        let endpoint = match acceptor.accept_incoming_attach(attach, session).await {
            Ok(endpoint) => endpoint,
            Err(error) => {
                tracing::debug!(%error, "a link could not be attached");
                return;
            }
        };
        let replies = replies.clone();
        match (work, endpoint) {
            (Work::Service(service), LinkEndpoint::Sender(sender)) => {
                self.tasks.spawn(async move { replies.serve(service, sender).await });
            }
            (Work::Service(service), LinkEndpoint::Receiver(receiver)) => {
                self.tasks.spawn(services::serve_requests(service, receiver, replies, self.clone()));
            }
            (Work::Deliver(delivery), LinkEndpoint::Sender(sender)) => {
                self.tasks.spawn(delivery.run(sender));
            }
            (Work::Take(intake), LinkEndpoint::Receiver(receiver)) => {
                self.tasks.spawn(intake.run(receiver));
            }
            (Work::Refuse(error), endpoint) => {
                self.tasks.spawn(refuse(endpoint, error));
            }
            (Work::Deliver(_), endpoint @ LinkEndpoint::Receiver(_))
            | (Work::Take(_), endpoint @ LinkEndpoint::Sender(_)) => {
                let error = definitions::Error::from(AmqpError::InternalError);
                self.tasks.spawn(refuse(endpoint, error));
            }
        }
    }

    fn work(&self, attach: &Attach) -> Work {
        let node = match attach.role {
            Role::Receiver => attach.source.as_ref().and_then(|source| source.address.as_deref()),
            Role::Sender => attach.target.as_ref().and_then(|target| match target.as_ref() {
                TargetArchetype::Target(target) => target.address.as_deref(),
            }),
        }
        .and_then(Node::parse);
        let work = match (node, &attach.role) {
            (Some(Node::TokenService), _) => return Work::Service(Service::Tokens),
            (Some(Node::Management), _) => return Work::Service(Service::Management),
            (Some(Node::Subscription { hub, group, partition }), Role::Receiver) => {
                self.delivery(attach, &hub, &group, &partition).map(Work::Deliver)
            }
            (Some(Node::Hub { hub }), Role::Sender) => self.intake(&hub, None).map(Work::Take),
            (Some(Node::Partition { hub, partition }), Role::Sender) => {
                self.intake(&hub, Some(&partition)).map(Work::Take)
            }
            (Some(Node::Subscription { .. }), Role::Sender)
            | (Some(Node::Hub { .. } | Node::Partition { .. }), Role::Receiver)
            | (None, _) => Err(not_found("no node of this broker has the address")),
        };
        self.namespace.switches.attaches.fetch_add(1, Ordering::AcqRel);
        work.unwrap_or_else(Work::Refuse)
    }

    fn delivery(
        &self,
        attach: &Attach,
        hub: &str,
        group: &str,
        partition: &str,
    ) -> Result<Delivery, definitions::Error> {
        let hub = self.hub(hub)?;
        let lane = lane(hub, partition)?;
        let group = hub.group(group).map_err(not_found)?;
        let position = start_position(attach)?;
        let cursor = lane.partition.resolve(position).map_err(argument_error)?;
        if self.namespace.switches.is_busy() {
            return Err(server_busy());
        }
        let registration = lane.readers.admit(&group, epoch(attach))?;
        Ok(Delivery {
            namespace: Arc::clone(&self.namespace),
            authorization: Arc::clone(&self.authorization),
            hub: Arc::clone(hub),
            partition: lane.partition.id(),
            cursor,
            registration,
        })
    }

    fn intake(&self, hub: &str, partition: Option<&str>) -> Result<Intake, definitions::Error> {
        let hub = self.hub(hub)?;
        let partition = partition.map(|partition| lane(hub, partition)).transpose()?;
        Ok(Intake {
            namespace: Arc::clone(&self.namespace),
            hub: Arc::clone(hub),
            partition: partition.map(|lane| lane.partition.id()),
        })
    }

    fn hub(&self, name: &str) -> Result<&Arc<Hub>, definitions::Error> {
        self.authorization.check()?;
        self.namespace.hub(name).map_err(not_found)
    }
}

async fn refuse(endpoint: LinkEndpoint, error: definitions::Error) {
    match endpoint {
        LinkEndpoint::Sender(sender) => link::close_sender(sender, Some(error)).await,
        LinkEndpoint::Receiver(receiver) => link::close_receiver(receiver, Some(error)).await,
    }
}

fn lane(hub: &Hub, partition: &str) -> Result<Arc<Lane>, definitions::Error> {
    hub.lane_by_id(partition).map_err(not_found)
}

fn start_position(attach: &Attach) -> Result<Position, definitions::Error> {
    let filter = attach.source.as_ref().and_then(|source| source.filter.as_ref());
    let expression = filter.and_then(|filter| filter.as_inner().get("apache.org:selector-filter:string"));
    match expression {
        None => Ok(Position::Latest),
        Some(Value::Described(described)) => match &described.value {
            Value::String(expression) => Position::parse(expression).map_err(argument_error),
            _ => Err(argument_error("the start position is not a string")),
        },
        Some(Value::String(expression)) => Position::parse(expression).map_err(argument_error),
        Some(_) => Err(argument_error("the start position is not a described string")),
    }
}

fn epoch(attach: &Attach) -> Option<i64> {
    let properties = attach.properties.as_ref()?;
    match properties.as_inner().get("com.microsoft:epoch")? {
        Value::Long(epoch) => Some(*epoch),
        Value::Int(epoch) => Some(i64::from(*epoch)),
        _ => None,
    }
}

/// Begins with the words of the service: the JavaScript client recognizes a missing entity by them.
fn not_found(error: impl ToString) -> definitions::Error {
    let description = format!("The messaging entity of this link could not be found: {}", error.to_string());
    definitions::Error::new(AmqpError::NotFound, description, None)
}

fn argument_error(error: impl ToString) -> definitions::Error {
    let condition = ErrorCondition::Custom(Symbol::from(ARGUMENT_ERROR));
    definitions::Error::new(condition, error.to_string(), None)
}
