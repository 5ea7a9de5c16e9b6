// Azure's JavaScript client for Cosmos DB, as a conformance test of devkit's Cosmos DB host. README.md describes the commands.

import { CosmosClient } from "@azure/cosmos";

import { main, print, readLines } from "./lines.mjs";

const options = {
  endpoint: { type: "string" },
  key: { type: "string" },
  database: { type: "string" },
  container: { type: "string" },
  "partition-key-path": { type: "string", default: "/deviceId" },
  "partition-key": { type: "string" },
  id: { type: "string" },
  query: { type: "string", default: "SELECT * FROM c" },
  parameters: { type: "string", default: "[]" },
};

function clientOf({ endpoint, key }) {
  return new CosmosClient({
    endpoint,
    key,
    // The host is one region on a loopback address. Without retries, a test sees the first error.
    connectionPolicy: {
      enableEndpointDiscovery: false,
      requestTimeout: 10_000,
      retryOptions: { maxRetryAttemptCount: 0, fixedRetryIntervalInMilliseconds: 0, maxWaitTimeInSeconds: 0 },
    },
  });
}

function containerOf(values) {
  return clientOf(values).database(values.database).container(values.container);
}

function printResponse(response) {
  print({
    statusCode: response.statusCode,
    requestCharge: response.requestCharge,
    etag: response.etag,
    resource: response.resource,
  });
}

/** Creates database and container if they do not exist. */
async function create(values) {
  const { database, statusCode } = await clientOf(values).databases.createIfNotExists({ id: values.database });
  const container = await database.containers.createIfNotExists({
    id: values.container,
    partitionKey: { paths: [values["partition-key-path"]] },
  });
  print({ database: statusCode, container: container.statusCode });
}

/** Upserts each document on stdin. */
async function upsert(values) {
  const container = containerOf(values);
  for (const document of await readLines()) {
    printResponse(await container.items.upsert(document));
  }
}

/** Reads one document. If it is missing, the status is 404, and that is no error. */
async function read(values) {
  printResponse(await containerOf(values).item(values.id, values["partition-key"]).read());
}

/** Replaces one document twice with the ETag of one read. The second replace must fail with 412. */
async function replaceStale(values) {
  const item = containerOf(values).item(values.id, values["partition-key"]);
  const { resource, etag } = await item.read();
  const accessCondition = { type: "IfMatch", condition: etag };
  printResponse(await item.replace({ ...resource, changed: 1 }, { accessCondition }));
  await item.replace({ ...resource, changed: 2 }, { accessCondition });
}

/** Prints each document that a query returns, then their number and the request units. */
async function query(values) {
  const specification = { query: values.query, parameters: JSON.parse(values.parameters) };
  const partitionKey = values["partition-key"];
  const scope = partitionKey === undefined ? {} : { partitionKey };
  const iterator = containerOf(values).items.query(specification, scope);
  let [count, requestCharge] = [0, 0];
  while (iterator.hasMoreResults()) {
    const page = await iterator.fetchNext();
    requestCharge += page.requestCharge ?? 0;
    for (const resource of page.resources ?? []) {
      print({ resource });
      count += 1;
    }
  }
  print({ count, requestCharge });
}

await main({ create, upsert, read, "replace-stale": replaceStale, query }, options);
