// Runs Azurite's blob service until standard input ends, which it does whatever becomes of the parent process.
"use strict";

let stopping = false;
process.stdin.resume();
process.stdin.once("end", () => {
  stopping = true;
  // Azurite's own way to stop: closes the port and writes what it holds to disk.
  process.emit("SIGTERM");
});
process.once("beforeExit", () => process.exit(stopping ? 0 : 1));

require("azurite/dist/src/blob/main.js");
