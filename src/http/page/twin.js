// Shows one twin: what /api/twins says about it. All of it comes from devices and back ends, so all of it is put into the page
// as text, never as HTML.
"use strict";

// The token is kept in sessionStorage: so a reload does not ask for it again, and it is gone with the tab. localStorage would
// keep it on the machine for whoever comes next; a cookie would be sent with requests that other pages cause. A script that
// could read it here could as well read the field that it is typed into; the page's policy lets only our own run.
const KEPT = "twinsync-token";
const LIMIT_MILLISECONDS = 30000;

const at = (id) => document.getElementById(id);

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const moment = (text) => (text ? `${new Date(text).toLocaleString("en-GB")} (${text})` : "not known");
const json = (value) => JSON.stringify(value, null, 2);

function headline(level, word, sentence) {
  at("headline").dataset.level = level;
  at("level").textContent = word;
  at("sentence").textContent = sentence;
}

/** The twin that the address names; `null` where it names none. */
function named() {
  const parameters = new URLSearchParams(location.search);
  const hub = parameters.get("hub") ?? "";
  const found = /^\/twins\/([^/]+)(?:\/modules\/([^/]+))?$/.exec(location.pathname);
  if (found === null) {
    const device = parameters.get("device");
    return device ? { device, module: parameters.get("module") ?? "", hub } : null;
  }
  try {
    return { device: decodeURIComponent(found[1]), module: found[2] ? decodeURIComponent(found[2]) : "", hub };
  } catch {
    return null; // no percent-encoded UTF-8
  }
}

/** The path of a twin below `root`. No path can carry `.` and `..`: browsers resolve them. */
function path(root, { device, module, hub }, more = {}) {
  const parameters = new URLSearchParams(hub ? { hub, ...more } : more);
  let address = root;
  if ([device, module].some((id) => id === "." || id === "..")) {
    parameters.set("device", device);
    if (module) parameters.set("module", module);
  } else {
    address += `/${encodeURIComponent(device)}`;
    if (module) address += `/modules/${encodeURIComponent(module)}`;
  }
  const query = parameters.toString();
  return query ? `${address}?${query}` : address;
}

/** The twin that is shown: what is there stays while it is asked for again, and with it the focus. */
let shown = null;

function clear() {
  shown = null;
  at("twin").hidden = true;
  for (const id of ["reasons-section", "comparison", "differences-part", "hub-part", "document-section"]) at(id).hidden = true;
  for (const id of ["reasons", "differences", "hub-twin", "document", "facts", "comparison-text", "connection"]) at(id).replaceChildren();
}

function askForToken(sentence) {
  clear();
  headline("unknown", "Token", sentence);
  at("door").hidden = false;
  at("token").value = "";
  at("token").focus();
}

function levelOf(state, sync) {
  if (state === "present") return sync.flagged ? "attention" : "good";
  return state === "partial" ? "attention" : "unknown";
}

const STATES = { present: "Present", partial: "Partial", deleted: "Deleted", absent: "Absent", unknown: "Unknown" };

function facts(answer) {
  const { sync } = answer;
  const versions = [["desired", answer.desiredVersion], ["reported", answer.reportedVersion]].filter(([, version]) => version !== null);
  const sections = versions.map(([name, version]) => `${name} ${version}`).join(", ");
  const known = [
    ["Device", answer.device],
    ["Module", answer.module],
    ["IoT hub", answer.hub],
    ["Version", answer.version === null ? null : `${answer.version}${sections ? ` (${sections})` : ""}: it rises with each change in the hub`],
  ];
  if (sync !== null) {
    known.push(
      ["Last change", `${moment(sync.lastEvent.at)}, by the hub's clock: ${sync.lastEvent.text}`],
      ["Copied", moment(sync.writtenAt)],
      ["Life of the twin", sync.incarnation.text],
      ["Known from", sync.confirmedUntil === null ? "events" : `an answer of the hub, as of ${moment(sync.confirmedUntil)}, and the events since then`],
      ["Modules", sync.modulesPending ? "still have to be updated after a change of their device" : null],
      ["ETag", answer.etag === null ? null : `${answer.etag} (the document's version in Cosmos DB, not the hub's)`],
    );
  }
  return known.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
}

function difference({ path: where, stored, hub }) {
  const row = element("tr");
  const value = (side) => element("td", side === null ? "nothing" : JSON.stringify(side), { class: "value" });
  const head = element("th", where, { scope: "row", class: "text" });
  row.append(head, value(stored), value(hub));
  return row;
}

function comparison(found) {
  at("comparison").hidden = false;
  const asOf = found.at ? ` Asked at ${moment(found.at)}.` : "";
  const more = found.moreDifferences ? " There are more differences than are shown." : "";
  at("comparison-text").textContent = `${found.text}${more}${asOf}`;
  at("differences-part").hidden = found.differences.length === 0;
  at("differences").replaceChildren(...found.differences.map(difference));
  at("hub-part").hidden = found.twin === null;
  at("hub-twin").textContent = found.twin === null ? "" : json(found.twin);
}

/** Says what went wrong, with the page about its code where there is one. */
function fail(word, sentence, code) {
  clear();
  headline("bad", word, sentence);
  if (code) at("connection").replaceChildren("What that means: ", element("a", code, { href: `/errors/${encodeURIComponent(code)}` }));
}

function show(answer) {
  const { sync, state } = answer;
  const beside = answer.comparison?.outcome;
  const differs = ["different", "missing", "extra"].includes(beside);
  const agreed = differs ? " The hub says something else." : beside === "equal" ? " The hub says the same." : "";
  headline(differs ? "attention" : levelOf(state, sync), STATES[state] ?? state, `${sync?.summary ?? answer.error ?? ""}${agreed}`);
  at("connection").textContent = `As of ${new Date().toLocaleTimeString("en-GB")}.`;
  at("twin").hidden = false;
  at("facts").replaceChildren(...facts(answer));
  const reasons = sync?.reasons ?? [];
  at("reasons-section").hidden = reasons.length === 0;
  at("reasons").replaceChildren(...reasons.map(({ text, since }) => element("li", since ? `${text} Since ${moment(since)}.` : text)));
  at("document-section").hidden = answer.document === null;
  at("document").textContent = answer.document === null ? "" : json(answer.document);
  // The field that had the focus may be gone: then the next Tab begins here.
  if (document.activeElement === document.body) at("twin").focus({ preventScroll: true });
  at("comparison").hidden = !answer.comparison;
  if (answer.comparison) {
    comparison(answer.comparison);
    at("comparison-heading").focus();
  }
}

/** Counts questions, so that a late answer to an earlier one is not taken for that to the latest. */
let asked = 0;

async function ask(more = {}) {
  const twin = named();
  const token = sessionStorage.getItem(KEPT);
  document.title = `${twin ? twin.device : "One twin"} – twinsync`;
  for (const id of ["device", "module", "hub"]) at(id).value = twin?.[id] ?? "";
  at("door").hidden = true;
  const address = twin && path("/twins", twin);
  if (address !== shown) clear();
  asked += 1;
  if (twin === null) {
    headline("unknown", "One twin", "Which device?");
    at("device").focus();
    return;
  }
  if (token === null) {
    askForToken("To see twins, you need the token of this replica.");
    return;
  }
  const question = asked;
  headline("unknown", "Loading", more.compare ? "The copy and the hub are being read." : "The copy is being read.");
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(path("/api/twins", twin, more), { headers, cache: "no-store", signal: AbortSignal.timeout(LIMIT_MILLISECONDS) });
    const body = await answer.json();
    if (question !== asked) return;
    if (answer.status === 401) {
      sessionStorage.removeItem(KEPT);
      askForToken("This is not the token of this replica: see http.token in its configuration.");
    } else if (answer.status === 403) {
      fail("Off", body.error);
    } else if (answer.ok || answer.status === 404) {
      show(body);
      shown = address;
    } else {
      at("hubs").replaceChildren(...(body.hubs ?? []).map((hub) => element("option", null, { value: hub })));
      fail(answer.status === 400 ? "Which one" : "No answer", body.error ?? answer.statusText, body.code);
      if (body.hubs) at("hub").focus();
    }
  } catch (error) {
    if (question !== asked) return;
    if (error instanceof TypeError && /header|ByteString|ISO-8859/i.test(error.message)) {
      sessionStorage.removeItem(KEPT);
      askForToken("A token has ASCII letters, digits and punctuation only; this one has other characters.");
      return;
    }
    fail("No answer", error.name === "TimeoutError" ? "The replica did not answer in time." : "The replica cannot be reached.");
  }
}

at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const [device, module, hub] = ["device", "module", "hub"].map((id) => at(id).value.trim());
  history.pushState(null, "", path("/twins", { device, module, hub }));
  ask();
});
at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEPT, at("token").value.trim());
  at("token").value = "";
  ask();
});
at("again").addEventListener("click", () => ask());
at("compare").addEventListener("click", () => ask({ compare: "true" }));
at("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEPT);
  askForToken("The token is forgotten.");
});
addEventListener("popstate", () => ask());
ask();
