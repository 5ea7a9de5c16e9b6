// What the scripts share: JSON lines in and out, and one way to fail.

import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

/** Writes one JSON value as a line on stdout. */
export function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** All JSON lines of stdin. */
export async function readLines() {
  const values = [];
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() !== "") values.push(JSON.parse(line));
  }
  return values;
}

/** A client's error in a form that tests can compare. */
export function describe(error) {
  return {
    name: error?.name,
    code: error?.code,
    statusCode: error?.statusCode,
    message: error?.message ?? String(error),
  };
}

/**
 * Runs the command named by the first argument with its options, then ends the process. A failure is a line
 * `{"error": …}` and exit code 1; an unknown command or option is a line too, and exit code 2.
 *
 * The end is explicit because a client of Event Hubs that has lost a link keeps the timer of that link's token, and
 * with it the process, for most of an hour.
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
