// Shared by the scripts: input and output of JSON lines, and reporting of errors.

import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

/** Writes one JSON value as a line on stdout. */
export function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Reads all JSON lines of stdin. */
export async function readLines() {
  const values = [];
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() !== "") values.push(JSON.parse(line));
  }
  return values;
}

/** Describes a client's error in a form that tests can compare. */
export function describe(error) {
  return {
    name: error?.name,
    code: error?.code,
    statusCode: error?.statusCode,
    message: error?.message ?? String(error),
  };
}

/**
* Runs the command that the first argument names with its options, then ends the process. If it fails, prints a line `{"error": …}`
 * and ends with exit code 1. For an unknown command or option, prints such a line and ends with exit code 2.
 *
* The process is ended explicitly, because a client of Event Hubs that has lost a link keeps the timer of that link's token. This would keep
 * the process alive for most of an hour.
 */
export async function main(commands, options) {
  const code = await run(commands, options);
  process.stdout.write("", () => process.exit(code));
}

async function run(commands, options) {
  const [name, ...rest] = process.argv.slice(2);
  let values;
  try {
    if (!Object.hasOwn(commands, name)) {
      throw new Error(`unknown command ${name}: use one of ${Object.keys(commands).join(", ")}`);
    }
    values = parseArgs({ args: rest, options }).values;
  } catch (error) {
    print({ error: describe(error) });
    return 2;
  }
  try {
    await commands[name](values);
    return 0;
  } catch (error) {
    print({ error: describe(error) });
    return 1;
  }
}
