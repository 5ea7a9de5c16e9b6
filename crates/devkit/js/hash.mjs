// Prints the partition that the client's own buffered producer chooses for each key on stdin (one JSON string
// per line).

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { main, print, readLines } from "./lines.mjs";

// The function is internal, so it is imported by its path. The version of the package is pinned.
async function partition({ partitions }) {
  const entry = createRequire(import.meta.url).resolve("@azure/event-hubs");
  const root = entry.slice(0, entry.lastIndexOf("event-hubs") + "event-hubs".length);
  const path = join(root, "dist", "esm", "impl", "partitionKeyToIdMapper.js");
  const { mapPartitionKeyToId } = await import(pathToFileURL(path).href);
  for (const key of await readLines()) {
    print({ key, partition: mapPartitionKeyToId(key, Number(partitions)) });
  }
}

await main({ partition }, { partitions: { type: "string" } });
