// Azure's JavaScript client for Event Hubs, as a conformance test of devkit's broker. README.md describes the
// commands.

import {
  EventHubConsumerClient,
  EventHubProducerClient,
  earliestEventPosition,
  latestEventPosition,
} from "@azure/event-hubs";

import { describe, main, print, readLines } from "./lines.mjs";

// Without retries, a test sees the first error.
const noRetries = { retryOptions: { maxRetries: 0, timeoutInMs: 10_000 } };

const options = {
  connection: { type: "string" },
  hub: { type: "string" },
  group: { type: "string", default: EventHubConsumerClient.defaultConsumerGroupName },
  partition: { type: "string" },
  "partition-key": { type: "string" },
  single: { type: "boolean", default: false },
  position: { type: "string", default: "earliest" },
  count: { type: "string", default: "1" },
  timeout: { type: "string", default: "20" },
  first: { type: "string", default: "1" },
  second: { type: "string", default: "2" },
};

function consumerOf({ connection, hub, group }) {
  return new EventHubConsumerClient(group, connection, hub, noRetries);
}

/** Closes a client and prints how long that took. */
async function close(client) {
  const started = performance.now();
  await client.close();
  print({ closedMilliseconds: Math.round(performance.now() - started) });
}

/** An EventData, or an annotated message if the line has fields that only such a message can have. */
function toEvent({ body, properties, annotations, contentType, contentEncoding, correlationId }, partitionKey) {
  if (annotations === undefined && contentEncoding === undefined) {
    return { body, properties, contentType, correlationId };
  }
  return {
    body,
    bodyType: "data",
    applicationProperties: properties,
    // The client sets the batch's partition key on EventData only.
    messageAnnotations: {
      ...annotations,
      ...(partitionKey !== undefined && { "x-opt-partition-key": partitionKey }),
    },
    properties: { contentType, contentEncoding, correlationId },
  };
}

/** Sends single events, or as few batches as possible. */
async function publish(values) {
  const events = (await readLines()).map((line) => toEvent(line, values["partition-key"]));
  const target = {
    ...(values["partition-key"] !== undefined && { partitionKey: values["partition-key"] }),
    ...(values.partition !== undefined && { partitionId: values.partition }),
  };
  const producer = new EventHubProducerClient(values.connection, values.hub, noRetries);
  let batches = 0;
  try {
    if (values.single) {
      for (const event of events) await producer.sendBatch([event], target);
    } else {
      let batch = await producer.createBatch(target);
      for (const event of events) {
        if (batch.tryAdd(event)) continue;
        await producer.sendBatch(batch);
        batches += 1;
        batch = await producer.createBatch(target);
        if (!batch.tryAdd(event)) throw new Error("an event is larger than a batch");
      }
      if (batch.count > 0) {
        await producer.sendBatch(batch);
        batches += 1;
      }
    }
    print({ sent: events.length, batches });
  } finally {
    await close(producer);
  }
}

function toPosition(text) {
  if (text === "earliest") return earliestEventPosition;
  if (text === "latest") return latestEventPosition;
  return JSON.parse(text);
}

function fromEvent(event, partition) {
  return {
    partition,
    sequenceNumber: event.sequenceNumber,
    offset: event.offset,
    enqueuedTime: event.enqueuedTimeUtc.toISOString(),
    partitionKey: event.partitionKey,
    body: event.body,
    properties: event.properties,
    systemProperties: event.systemProperties,
    contentType: event.contentType,
    correlationId: event.correlationId,
  };
}

/** Prints the first events from a position, of one partition or of all. */
async function receive(values) {
  const client = consumerOf(values);
  const wanted = Number(values.count);
  let printed = 0;
  const finished = deferred();
  const timer = setTimeout(
    () => finished.reject(new Error(`${printed} of ${wanted} events after ${values.timeout} s`)),
    Number(values.timeout) * 1000,
  );
  const handlers = {
    async processEvents(events, context) {
      for (const event of events.slice(0, wanted - printed)) {
        print(fromEvent(event, context.partitionId));
        printed += 1;
      }
      if (printed >= wanted) finished.resolve();
    },
    async processError(error) {
      finished.reject(error);
    },
  };
  const subscribeOptions = {
    startPosition: toPosition(values.position),
    maxBatchSize: 100,
    maxWaitTimeInSeconds: 1,
  };
  const subscription =
    values.partition === undefined
      ? client.subscribe(handlers, subscribeOptions)
      : client.subscribe(values.partition, handlers, subscribeOptions);
  try {
    await finished.promise;
  } finally {
    clearTimeout(timer);
    await subscription.close();
    await close(client);
  }
}

/** Prints the hub's properties, then one line per partition. */
async function properties(values) {
  const client = consumerOf(values);
  try {
    const hub = await client.getEventHubProperties();
    print(hub);
    for (const partition of hub.partitionIds) {
      print(await client.getPartitionProperties(partition));
    }
  } finally {
    await close(client);
  }
}

/**
* Opens a receiver with the owner level `first`, then one with `second`. Prints which one is closed, and with which error.
 * The partition must already contain an event.
 */
async function epoch(values) {
  const loser = deferred();
  const timer = setTimeout(
    () => loser.reject(new Error(`no receiver was closed within ${values.timeout} s`)),
    Number(values.timeout) * 1000,
  );
  const open = (name) => {
    const client = consumerOf(values);
    const receiving = deferred();
    const subscription = client.subscribe(
      values.partition ?? "0",
      {
        async processEvents(events) {
          if (events.length > 0) receiving.resolve();
        },
        async processError(error) {
          loser.resolve({ loser: name, error: describe(error) });
        },
      },
      {
        startPosition: earliestEventPosition,
        ownerLevel: Number(values[name]),
        maxWaitTimeInSeconds: 1,
      },
    );
    return { client, subscription, receiving: receiving.promise };
  };
  const receivers = [];
  try {
    receivers.push(open("first"));
    await Promise.race([receivers[0].receiving, loser.promise]);
    receivers.push(open("second"));
    print(await loser.promise);
  } finally {
    clearTimeout(timer);
    for (const { client, subscription } of receivers) {
      await subscription.close();
      await close(client);
    }
  }
}

/** As `Promise.withResolvers`, which Node.js only has since version 22. */
function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

await main({ publish, receive, properties, epoch }, options);
