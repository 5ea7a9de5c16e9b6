// Runs Azurite's blob service until standard input ends, which it does whatever becomes of the parent process.
"use strict";

let stopping = false;
process.stdin.resume();
process.stdin.once("end", stop);

// Azurite's own way to stop: closes the port and writes what it holds to disk. It listens to that a moment after it says
// that it serves.
function stop() {
  stopping = true;
  if (!process.emit("SIGTERM")) {
    setTimeout(stop, 20);
  }
}
process.once("beforeExit", () => process.exit(stopping ? 0 : 1));

require("azurite/dist/src/blob/main.js");
