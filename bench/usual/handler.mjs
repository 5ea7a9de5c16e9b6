// Writes twin events to Cosmos DB in the usual way: a function with an Event Hubs trigger receives batches of one partition. For each
// event, it does a point read, a merge and an upsert. The conditions are favourable: it has no other work, batches are large, and the merge
// is correct. `way` says how it processes a batch:
//
// - `in_order`: one event after the other, in a loop that awaits each. The plainest form.
// - `concurrent`: the twins of the batch at the same time, the events of a twin in order.
// - `coalesced`: the same, but all events of a twin share a read and an upsert.
//
// It omits what makes the result always correct: conditions, versions, deletions, checkpoints.
//
// Its argument is one JSON object. It prints one line of JSON: {"items", "seconds", "cpuSeconds"}.

import { CosmosClient } from "@azure/cosmos";
import { EventHubConsumerClient, earliestEventPosition } from "@azure/event-hubs";

// The defaults of the trigger's extension are at most 100 events per batch, and three batches in advance.
const BATCH = 256;
const AHEAD = 768;

const { endpoints, after, until, way } = JSON.parse(process.argv[2]);

const cosmos = new CosmosClient({
  endpoint: endpoints.cosmos,
  key: endpoints.cosmos_key,
  connectionPolicy: { enableEndpointDiscovery: false },
});
const container = cosmos.database(endpoints.database).container(endpoints.container);
const address = endpoints.eventhubs.replace("amqp://", "");
const connection = `Endpoint=sb://${address};SharedAccessKeyName=devkit;SharedAccessKey=ZGV2a2l0;UseDevelopmentEmulator=true`;

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** RFC 7396. */
function merge(target, patch) {
  const result = isObject(target) ? target : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else if (isObject(value)) result[name] = merge(result[name], value);
    else result[name] = value;
  }
  return result;
}

/** Removes the metadata of removed properties, which a merge leaves behind. */
function prune(metadata, values) {
  for (const name of Object.keys(metadata)) {
    if (name.startsWith("$")) continue;
    if (!isObject(values) || !(name in values)) delete metadata[name];
    else if (isObject(metadata[name])) prune(metadata[name], values[name]);
  }
}

function apply(document, { version, tags, properties }) {
  document.version = version;
  if (tags !== undefined) document.tags = merge(document.tags, tags);
  for (const section of ["desired", "reported"]) {
    if (properties?.[section] === undefined) continue;
    const merged = merge(document.properties[section], properties[section]);
    if (isObject(merged.$metadata)) prune(merged.$metadata, merged);
    document.properties[section] = merged;
  }
  return document;
}

// Document ids escape the characters that Cosmos DB forbids.
const idOf = (device) =>
  device.replace(/[/\\?#%|\u0000-\u001f]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);

async function handle(device, bodies) {
  const { resource } = await container.item(idOf(device), device).read();
  if (resource === undefined) throw new Error(`there is no document of ${device}`);
  await container.items.upsert(bodies.reduce(apply, resource));
}

async function handleTwin(device, bodies) {
  if (way === "coalesced") return handle(device, bodies);
  for (const body of bodies) await handle(device, [body]);
}

async function handleBatch(events) {
  if (way === "in_order") {
    for (const event of events) await handle(event.properties.deviceId, [event.body]);
    return;
  }
  const twins = new Map();
  for (const event of events) {
    const device = event.properties.deviceId;
    if (!twins.has(device)) twins.set(device, []);
    twins.get(device).push(event.body);
  }
  await Promise.all([...twins].map(([device, bodies]) => handleTwin(device, bodies)));
}

let items = 0;
let began;
let cpu;
let ended;
let spent;

async function consume(hub, partition, first, last) {
  const client = new EventHubConsumerClient("$Default", connection, hub, { retryOptions: { maxRetries: 0 } });
  const startPosition = first < 0 ? earliestEventPosition : { sequenceNumber: first, isInclusive: false };
  await new Promise((resolve, reject) => {
    const subscription = client.subscribe(
      String(partition),
      {
        async processEvents(events) {
          if (events.length === 0) return;
          began ??= performance.now();
          cpu ??= process.cpuUsage();
          await handleBatch(events);
          items += events.length;
          ended = performance.now();
          spent = process.cpuUsage(cpu);
          if (events.at(-1).sequenceNumber >= last) subscription.close().then(resolve, reject);
        },
        async processError(error) {
          reject(error);
        },
      },
      { startPosition, maxBatchSize: BATCH, prefetchCount: AHEAD, maxWaitTimeInSeconds: 1 },
    );
  });
  await client.close();
}

const partitions = Object.entries(until).flatMap(([hub, ends]) =>
  ends.map((last, partition) => ({ hub, partition, last, first: after[hub]?.[partition] ?? -1 })),
);
await Promise.all(
  partitions
    .filter(({ first, last }) => first < last)
    .map(({ hub, partition, first, last }) => consume(hub, partition, first, last)),
);
if (items === 0) throw new Error("nothing was received");
console.log(JSON.stringify({ items, seconds: (ended - began) / 1000, cpuSeconds: (spent.user + spent.system) / 1e6 }));
process.exit(0);
