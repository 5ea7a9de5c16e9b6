// Runs Azurite's blob service until standard input ends. It ends whenever the parent process ends, for whatever reason.
"use strict";

let stopping = false;
process.stdin.resume();
process.stdin.once("end", stop);

// Emits SIGTERM, which is how Azurite stops: it closes the port and writes its data to disk. It installs its handler a
// moment after it prints that it listens, so this is tried until there is a handler.
function stop() {
  stopping = true;
  if (!process.emit("SIGTERM")) {
    setTimeout(stop, 20);
  }
}
process.once("beforeExit", () => process.exit(stopping ? 0 : 1));

require("azurite/dist/src/blob/main.js");
