//! `$cbs` and `$management`: requests arrive on one link, and answers go out on another link of the same
//! session.
//!
//! An answer goes to the link whose target address is the request's reply-to address (Rust), otherwise to the
//! link with that name (JavaScript), otherwise to the newest link of the same node.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::SystemTime,
};

use fe2o3_amqp::{Receiver, Sender, link::delivery::Sendable};
use fe2o3_amqp_types::{
    messaging::{AmqpValue, ApplicationProperties, Body, Properties},
    primitives::{Array, OrderedMap, SimpleValue, Timestamp, Value},
};
use tokio::sync::mpsc;

use super::{
    Error, authorization,
    context::SessionContext,
    inbox::Inbox,
    link,
    namespace::{Hub, Namespace},
    wire::Message,
};

/// Number of answers that may wait for a client's credit. After that, its requests wait as well.
const ANSWERS_IN_FLIGHT: usize = 256;

/// The two nodes that answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// `$cbs`.
    Tokens,
    /// `$management`.
    Management,
}

/// The reply links of one session.
#[derive(Debug, Clone, Default)]
pub(super) struct Replies {
    links: Arc<Mutex<Vec<ReplyLink>>>,
}

#[derive(Debug)]
struct ReplyLink {
    service: Service,
    name: String,
    address: Option<String>,
    answers: mpsc::Sender<Answer>,
}

#[derive(Debug)]
enum Answer {
    Message(Box<Message>),
    /// Close the link instead of answering.
    Close,
}

/// The response to a request.
enum Response {
    Status { code: i32, description: String, body: Value },
    CloseLinks,
}

impl Replies {
    /// Serves a link that carries answers to the client, until either side ends it.
    pub(super) async fn serve(&self, service: Service, mut sender: Sender) {
        let (answers, mut queue) = mpsc::channel(ANSWERS_IN_FLIGHT);
        let address = sender.target().as_ref().and_then(|target| target.address.clone());
        let name = sender.name().to_owned();
        lock(&self.links).push(ReplyLink { service, name, address, answers });
        loop {
            let answer = tokio::select! {
                biased;
                // Observed while idle as well: a client that closes the link waits for the broker's detach.
                cause = sender.on_detach() => return link::answer_detach(sender, &cause).await,
                answer = queue.recv() => answer,
            };
            match answer {
                Some(Answer::Message(message)) => {
                    if let Err(error) = link::send(&mut sender, &Sendable::from(*message)).await {
                        return tracing::debug!(%error, "a reply link ended under an answer");
                    }
                }
                Some(Answer::Close) | None => return link::close_sender(sender, None).await,
            }
        }
    }

    async fn answer(&self, service: Service, reply_to: Option<&str>, answer: Answer) {
        let Some(link) = self.find(service, reply_to) else {
            tracing::debug!(?service, "a request has no link to answer on");
            return;
        };
        if link.send(answer).await.is_err() {
            tracing::debug!(?service, "a reply link is gone before its answer");
        }
    }

    fn find(&self, service: Service, reply_to: Option<&str>) -> Option<mpsc::Sender<Answer>> {
        let mut links = lock(&self.links);
        links.retain(|link| !link.answers.is_closed());
        let of_service = || links.iter().rev().filter(|link| link.service == service);
        let named = |reply_to: &str| {
            of_service()
                .find(|link| link.address.as_deref() == Some(reply_to))
                .or_else(|| of_service().find(|link| link.name == reply_to))
        };
        reply_to.and_then(named).or_else(|| of_service().next()).map(|link| link.answers.clone())
    }
}

/// Serves a link that carries requests, until either side ends it.
pub(super) async fn serve_requests(
    service: Service,
    receiver: Receiver,
    replies: Replies,
    context: SessionContext,
) {
    let mut inbox = Inbox::new(receiver);
    while let Some(delivery) = inbox.next().await {
        let (info, request) = delivery.into_parts();
        inbox.settle(info, Ok(()));
        let response = match service {
            Service::Tokens => put_token(&request, &context),
            Service::Management => match context.authorization.check() {
                Ok(()) => read(&request, &context.namespace),
                Err(error) => status(401, error.description.as_deref().unwrap_or("unauthorized access")),
            },
        };
        let reply_to = request.properties.as_ref().and_then(|properties| properties.reply_to.clone());
        match response {
            Response::Status { code, description, body } => {
                let message = Box::new(answer_to(&request, code, description, body));
                replies.answer(service, reply_to.as_deref(), Answer::Message(message)).await;
            }
            Response::CloseLinks => {
                replies.answer(service, reply_to.as_deref(), Answer::Close).await;
                return inbox.close(None).await;
            }
        }
    }
}

fn put_token(request: &Message, context: &SessionContext) -> Response {
    let switches = &context.namespace.switches;
    switches.put_tokens.fetch_add(1, Ordering::AcqRel);
    if switches.leaves_token() {
        return Response::CloseLinks;
    }
    if property(request, "operation") != Some("put-token") {
        return status(400, "$cbs knows the operation put-token only");
    }
    let token = match &request.body {
        Body::Value(AmqpValue(Value::String(token))) => token.as_str(),
        _ => return status(400, "the body of put-token is the token, a string"),
    };
    if switches.refuses_token() || !context.namespace.accepts(token) {
        return status(401, "InvalidToken: the token is not accepted");
    }
    let expires = authorization::expiry(token);
    if expires.is_some_and(|time| time <= SystemTime::now()) {
        return status(401, "ExpiredToken: the token has expired");
    }
    context.authorization.accept(expires);
    status(202, "Accepted")
}

fn read(request: &Message, namespace: &Namespace) -> Response {
    if property(request, "operation") != Some("READ") {
        return status(400, "$management knows the operation READ only");
    }
    let hub = match namespace.hub(property(request, "name").unwrap_or_default()) {
        Ok(hub) => hub,
        Err(error) => return not_found(&error),
    };
    match property(request, "type") {
        Some("com.microsoft:eventhub") => found(hub_properties(hub)),
        Some("com.microsoft:partition") => {
            match partition_properties(hub, property(request, "partition").unwrap_or_default()) {
                Ok(properties) => found(properties),
                Err(error) => not_found(&error),
            }
        }
        _ => status(400, "$management reads com.microsoft:eventhub and com.microsoft:partition only"),
    }
}

/// The AMQP types must be exactly these: the Rust client panics on others, and treats a list of ids as a
/// malformed answer.
fn hub_properties(hub: &Hub) -> OrderedMap<Value, Value> {
    let lanes = hub.lanes();
    let ids = lanes.iter().map(|lane| Value::String(lane.partition.id().to_string()));
    [
        ("name", Value::String(hub.name.clone())),
        ("type", Value::String("com.microsoft:eventhub".to_owned())),
        ("created_at", timestamp(hub.created_at)),
        ("partition_count", Value::Int(i32::try_from(lanes.len()).unwrap_or(i32::MAX))),
        ("partition_ids", Value::Array(Array(ids.collect()))),
    ]
    .into_iter()
    .map(|(name, value)| (Value::String(name.to_owned()), value))
    .collect()
}

fn partition_properties(hub: &Hub, id: &str) -> Result<OrderedMap<Value, Value>, Error> {
    let state = hub.lane_by_id(id)?.partition.state();
    let properties = [
        ("name", Value::String(hub.name.clone())),
        ("type", Value::String("com.microsoft:partition".to_owned())),
        ("partition", Value::String(state.id.to_string())),
        ("begin_sequence_number", Value::Long(state.first_sequence_number)),
        ("begin_sequence_number_epoch", Value::Long(0)),
        ("last_enqueued_sequence_number", Value::Long(state.last_sequence_number)),
        ("last_enqueued_sequence_number_epoch", Value::Long(0)),
        ("last_enqueued_offset", Value::String(state.last_offset)),
        ("last_enqueued_time_utc", timestamp(state.last_enqueued_at)),
        ("is_partition_empty", Value::Bool(state.events == 0)),
    ];
    Ok(properties.into_iter().map(|(name, value)| (Value::String(name.to_owned()), value)).collect())
}

fn answer_to(request: &Message, code: i32, description: String, body: Value) -> Message {
    let asked = request.properties.as_ref();
    let properties = Properties {
        to: asked.and_then(|properties| properties.reply_to.clone()),
        // The id keeps the type of the request's id: JavaScript compares a string, Rust sends a number.
        correlation_id: asked.and_then(|properties| properties.message_id.clone()),
        ..Properties::default()
    };
    let application_properties = ApplicationProperties::builder()
        .insert("status-code", SimpleValue::Int(code))
        .insert("status-description", SimpleValue::String(description))
        .build();
    Message {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(properties),
        application_properties: Some(application_properties),
        body: Body::Value(AmqpValue(body)),
        footer: None,
    }
}

fn property<'a>(request: &'a Message, name: &str) -> Option<&'a str> {
    let properties = request.application_properties.as_ref()?;
    match properties.as_inner().get(name)? {
        SimpleValue::String(text) => Some(text),
        _ => None,
    }
}

fn timestamp(milliseconds: i64) -> Value {
    Value::Timestamp(Timestamp::from_milliseconds(milliseconds))
}

fn found(properties: OrderedMap<Value, Value>) -> Response {
    Response::Status { code: 200, description: "OK".to_owned(), body: Value::Map(properties) }
}

fn not_found(error: &Error) -> Response {
    status(404, &error.to_string())
}

fn status(code: i32, description: &str) -> Response {
    Response::Status { code, description: description.to_owned(), body: Value::Null }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
