// Performs the reads of reads.json with the unchanged package azure-iothub, and prints one line of JSON for each.
//
// CONNECTION_STRING names the endpoint and the key; WRONG_CONNECTION_STRING is the same with a wrong key.

import { readFileSync } from "node:fs";
import iothub from "azure-iothub";

const registryOf = (read) =>
  iothub.Registry.fromConnectionString(process.env[read.key ? "WRONG_CONNECTION_STRING" : "CONNECTION_STRING"]);

// The client's result without its private fields.
function plain(value) {
  const visible = Object.entries(value).filter(([name]) => !name.startsWith("_"));
  return JSON.parse(JSON.stringify(Object.fromEntries(visible)));
}

async function twin(registry, [device, module]) {
  const { responseBody } = module === undefined
    ? await registry.getTwin(device)
    : await registry.getModuleTwin(device, module);
  return plain(responseBody);
}

async function rows(registry, read) {
  const query = registry.createQuery(read.query, read.page ?? 100);
  const all = [];
  let pages = 0;
  while (query.hasMoreResults) {
    // Without the argument, an awaited `next` would request the first page again.
    const { result } = await query.next(query.continuationToken);
    all.push(...result);
    pages += 1;
  }
  if (read.page !== undefined && all.length > read.page && pages < 2) {
    throw new Error(`${all.length} rows are on one page of size ${read.page}`);
  }
  return read.rows === "count" ? all.length : all;
}

for (const read of JSON.parse(readFileSync(new URL("../reads.json", import.meta.url)))) {
  const registry = registryOf(read);
  let line;
  try {
    const result = read.twin ? await twin(registry, read.twin) : await rows(registry, read);
    line = { read: read.name, result };
  } catch (error) {
    const status = error.response?.statusCode;
    if (status === undefined) throw error;
    const code = error.response?.headers?.["iothub-errorcode"];
    // The name of the client's error, because applications see it.
    line = { read: read.name, error: { status, code, name: error.constructor.name } };
  }
  console.log(JSON.stringify(line));
}
