// Shows /api/status. Everything is computed there; this only puts it into words and places.
"use strict";

const EVENTS = "/api/events";
const POLL = "/api/status";
const POLL_MILLISECONDS = 5000;
/** The stream sends every two seconds. What is later than this is asked for. */
const LATE_MILLISECONDS = 2800;
/** Silence for longer is told. */
const SILENT_MILLISECONDS = 8000;
/** A stream that carried nothing, or was refused, is tried again after this. */
const STREAM_PAUSE_MILLISECONDS = 60000;
const WORDS = { good: "Good", attention: "Attention", bad: "Bad", unknown: "Unknown" };

const at = (id) => document.getElementById(id);

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Changes only what differs, so that screen readers and selections are left alone. */
function say(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.0095) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${(seconds * 1e3).toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 119.5) return `${seconds.toFixed(0)} s`;
  if (seconds < 7170) return `${(seconds / 60).toFixed(0)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(0)} h`;
  return `${(seconds / 86400).toFixed(0)} days`;
}

function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

const rate = (value) => (value === null || value === undefined ? "–" : `${number(value, value < 10 ? 1 : 0)}/s`);
const share = (value) => (value === null || value === undefined ? "–" : `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`);
const time = (text) => (text ? new Date(text).toLocaleTimeString("en-GB") : "–");
/** The time, with the date where that is not today's. */
function moment(text, now = Date.now()) {
  if (!text) return "never";
  const [then, today] = [new Date(text), new Date(now)];
  return then.toDateString() === today.toDateString() ? time(text) : then.toLocaleString("en-GB");
}

function state(word, level) {
  const cell = element("td");
  const marks = { good: "●", attention: "▲", bad: "■", unknown: "○" };
  cell.append(element("span", `${marks[level]} ${word}`, { "data-state": level }));
  return cell;
}

function rows(id, made, columns, empty) {
  const none = element("tr");
  none.append(element("td", empty, { colspan: columns, class: "quiet" }));
  at(id).replaceChildren(...(made.length > 0 ? made : [none]));
}

function list(id, entries) {
  const parts = entries.flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
  at(id).replaceChildren(...parts);
}

/** A curve of the last minutes; holes where nothing is known. */
function curve(id, values, interval, name, show) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) {
    at(id).replaceChildren();
    return;
  }
  const most = Math.max(...known, Number.MIN_VALUE);
  let path = "";
  let drawing = false;
  values.forEach((value, place) => {
    if (value === null) {
      drawing = false;
      return;
    }
    const x = (place / Math.max(values.length - 1, 1)) * 100;
    const y = 29 - (value / most) * 28;
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const minutes = Math.max(1, Math.round((values.length * interval) / 60));
  svg.setAttribute("aria-label", `${name} over the last ${minutes} min: at most ${show(most)}, last ${show(known[known.length - 1])}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  at(id).replaceChildren(svg);
}

let announced = "";

function headline(level, text) {
  at("headline").dataset.level = level;
  say("level", WORDS[level] ?? level);
  say("sentence", text);
  // Who listens hears what is new, and not each second that passes.
  const gist = `${level} ${text.replace(/\d+([.,]\d+)*( (ms|s|min|h|days)\b)?/g, "…")}`;
  if (gist !== announced) {
    announced = gist;
    say("announced", `${WORDS[level] ?? level}: ${text}`);
  }
  document.title = `${level === "good" ? "" : `${WORDS[level]}: `}twinsync`;
}

/** How long until a moment, as the replica's own clock tells it; nothing where it has passed. */
function until(text, now) {
  const seconds = (new Date(text) - new Date(now)) / 1000;
  if (!text || seconds <= 0) return "";
  return seconds < 1 ? "next try in a moment" : `next try in ${duration(seconds)}`;
}

function dependency(found, now) {
  const row = element("tr");
  const level = found.state === "up" ? "good" : found.state === "unknown" ? "unknown" : found.needed ? "bad" : "attention";
  const cell = state(found.state, level);
  const more = [found.downSince ? `since ${time(found.downSince)}` : "", until(found.nextTry, now)].filter((text) => text !== "");
  if (more.length > 0) cell.append(element("div", more.join(", "), { class: "quiet" }));
  row.append(
    element("th", found.name, { scope: "row" }),
    cell,
    element("td", found.asked ? moment(found.asked, now) : "not asked yet"),
    element("td", found.reason ?? "", { class: "text" }),
  );
  return row;
}

function partition(found, now) {
  const row = element("tr");
  const levels = { receiving: "good", connecting: "attention", waiting: "bad", throttled: "attention", elsewhere: "unknown", unread: "bad" };
  const words = { elsewhere: "another replica's", unread: "nobody reads it" };
  const cell = state(words[found.state] ?? found.state, levels[found.state] ?? "unknown");
  const shared = found.basis === "checkpoint";
  const asked = shared && found.lagMeasured ? `from its checkpoint, as of ${time(found.lagMeasured)}` : shared && !found.reason ? "being loaded" : "";
  const why = [found.reason ?? "", asked, until(found.nextTry, now)].filter((text) => text !== "").join("; ");
  if (why !== "") cell.append(element("div", why, { class: "quiet" }));
  const oldest = found.oldestIncomplete === null ? "–" : `${number(found.oldestIncomplete)}, ${duration(found.oldestIncompleteSeconds)}`;
  const right = { class: "number" };
  row.append(
    element("th", `${found.stream}/${found.partition}`, { scope: "row" }),
    cell,
    element("td", `${shared && found.lagSeconds > 0 ? "at least " : ""}${duration(found.lagSeconds)}`, right),
    element("td", number(found.lagEvents), right),
    element("td", share(found.retentionUsed), right),
    element("td", oldest, right),
    element("td", duration(found.checkpointAgeSeconds), right),
    element("td", found.owner ?? "nobody"),
  );
  return row;
}

function logged(entry) {
  const row = element("tr");
  const line = element("td", entry.message, { class: "text" });
  if (entry.code) {
    const hint = element("div", entry.hint ? `${entry.hint} ` : "", { class: "quiet" });
    hint.append(element("a", entry.code, { href: `/errors/${encodeURIComponent(entry.code)}` }));
    line.append(hint);
  }
  row.append(
    element("td", time(entry.last)),
    element("td", number(entry.count), { class: "number" }),
    state(entry.level === "error" ? "error" : "warning", entry.level === "error" ? "bad" : "attention"),
    line,
  );
  return row;
}

function scan(found, now) {
  if (!found) return "none is running";
  const twins = found.outOf !== null ? `${number(found.dealtWith)} of about ${number(found.outOf)} twins` : `${number(found.dealtWith)} twins`;
  const parts = [`${found.what} since ${moment(found.started, now)} (${found.stage}): ${twins}`];
  if (found.perSecond !== null) parts.push(rate(found.perSecond));
  if (found.doneInSeconds !== null) parts.push(`done in about ${duration(found.doneInSeconds)}`);
  if (found.waitsFor) parts.push(`waits for ${found.waitsFor}`);
  return parts.join(", ");
}

function hub(found, now) {
  const part = element("div");
  part.append(element("h3", found.hub));
  const counts = (named) => Object.entries(named).filter(([, count]) => count > 0).map(([name, count]) => `${number(count)} ${name.replaceAll("_", " ")}`).join(", ");
  const details = element("dl", null, { class: "wide" });
  const audited = (at, twins, left) => `${moment(at, now)}${twins === null ? "" : `, ${number(twins)} twins`}, ${left} different`;
  const rows = [["Now", scan(found.scan, now)]];
  if (found.scan?.outOf > 0) rows[0].push(Math.min(1, found.scan.dealtWith / found.scan.outOf));
  const backfilled = found.backfillCompleted ? `${moment(found.backfillCompleted, now)}: ` : "";
  rows.push(["Last backfill", `${backfilled}${counts(found.backfill) || (found.backfillCompleted ? "no twins" : "none")}`]);
  rows.push(["Last audit", found.auditCompleted ? audited(found.auditCompleted, found.auditTwins, number(found.auditDifferencesLeft)) : "none yet"]);
  rows.push(["Last clean audit", found.cleanAudit ? audited(found.cleanAudit, found.cleanAuditTwins, 0) : "none yet"]);
  rows.push(["Next audit", found.scan?.what === "audit" ? "after this one" : found.nextAudit ? moment(found.nextAudit, now) : "none is planned here"]);
  rows.push(["Found by audits", counts(found.auditDifferences) || "nothing"]);
  if (found.doneBy) rows.push(["Done by", found.doneBy]);
  for (const [name, value, done] of rows) {
    const cell = element("dd", value);
    if (done !== undefined) cell.append(element("progress", null, { value: done, max: 1, "aria-label": `${found.scan.what}: share of twins that were processed` }));
    details.append(element("dt", name), cell);
  }
  part.append(details);
  return part;
}

function token(found, now) {
  const names = { eventhubs: "Event Hubs", cosmos: "Cosmos DB", storage: "Azure Storage", iothub: "IoT Hub", other: "another service", storage_sas: "SAS in blob.container_url" };
  const left = (new Date(found.expires) - new Date(now)) / 1000;
  const ends = !found.expires ? "none was issued yet" : left > 0 ? `valid for ${duration(left)}, until ${moment(found.expires, now)}` : `expired ${moment(found.expires, now)}`;
  const since = found.obtained ? `, issued ${moment(found.obtained, now)}` : "";
  const failed = found.failed ? `; not renewed ${moment(found.failed, now)}: ${found.reason}` : "";
  return element("li", `${names[found.scope] ?? found.scope}: ${ends}${since}${failed}`, found.failed || left <= 0 ? { "data-state": "attention" } : {});
}

function letters({ sinceStart, stored, command }, now) {
  const known = stored?.count !== null && stored?.count !== undefined;
  const entries = [["stored", known ? `${stored.more ? "more than " : ""}${number(stored.count)}` : "not known"]];
  if (known && stored.count > 0) {
    if (stored.oldest) entries.push(["the oldest", moment(stored.oldest, now)]);
    const reasons = Object.entries(stored.byReason).sort(([, one], [, other]) => other - one).slice(0, 5);
    for (const [name, count] of reasons) entries.push([name.replaceAll("_", " "), number(count)]);
    if (stored.read < stored.count) entries.push(["checked for their reason", number(stored.read)]);
  }
  entries.push(["since the start", number(sinceStart)]);
  list("letters", entries);
  say("letters-asked", stored?.reason ? `Not known: ${stored.reason}` : stored?.asked ? `As of ${time(stored.asked)}.` : "Being loaded.");
  say("letters-command", command);
}

/** One declared count: its total, and its largest groups. */
function count({ name, query, total, rows, omitted }) {
  const section = element("div", "", { title: query });
  const entries = element("dl", "");
  const add = (term, text) => entries.append(element("dt", term), element("dd", text));
  section.append(element("h3", name.replaceAll("_", " ")), entries);
  add("all", total === null ? "not known yet" : number(total));
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const groups = (rows ?? []).map(({ twins, ...group }) => [Object.values(group).map(shown).join(", "), twins]);
  if (rows !== null && (groups.length !== 1 || groups[0][0] !== "")) for (const [group, twins] of groups) add(group === "" ? "without a value" : group, number(twins));
  if (omitted > 0) add("more groups", number(omitted));
  if (rows === null && total !== null) add("groups", "too many to show one by one");
  return section;
}

function counts(found, now) {
  const declared = found?.counts ?? [];
  at("counts-section").hidden = declared.length === 0;
  const unreadable = found?.unreadable > 0 ? ` ${number(found.unreadable)} documents cannot be read and are not counted.` : "";
  say("counts-note", (found?.asOf ? `As of ${moment(found.asOf, now)}; all groups at /api/counts.` : `Being counted: ${number(found?.documents ?? 0)} documents so far.`) + unreadable);
  at("counts").replaceChildren(...declared.map(count));
}

function show(status) {
  headline(status.headline.level, status.headline.text);
  say("replica", status.replica.name);
  say("version", `${status.replica.version} (${status.replica.revision}), started ${moment(status.replica.started)}`);
  const more = [...status.reasons, ...status.warnings];
  at("reasons").hidden = more.length < 2;
  at("reasons").replaceChildren(...more.map((reason) => element("li", reason)));

  const { freshness, loss, flow, store, history } = status;
  say("freshness", freshness.p99Seconds === null ? "no changes" : duration(freshness.p99Seconds));
  say("oldest", freshness.oldestIncompleteSeconds === 0 ? "none" : duration(freshness.oldestIncompleteSeconds));
  say("loss", loss === null ? "not known" : duration(loss.seconds));
  say("loss-detail", loss === null ? "no partition of this replica has been measured" : `without progress, in ${loss.stream}/${loss.partition}; retention ${duration(loss.retentionSeconds)}`);
  say("lag", flow.lagEvents === null ? "not measured" : `${number(flow.lagEvents)} events`);
  say("lag-detail", flow.caughtUpInSeconds === null ? `${number(flow.inFlightEvents)} in flight` : `done in about ${duration(flow.caughtUpInSeconds)}, ${number(flow.inFlightEvents)} in flight`);
  say("completed", rate(flow.completedPerSecond));
  say("completed-detail", `${rate(flow.arrivedPerSecond)} arrive`);
  const units = Object.entries(store.requestUnitsPerSecond);
  say("units", units.length === 0 ? "–" : rate(units.reduce((sum, [, value]) => sum + value, 0)));
  say("units-detail", units.filter(([, value]) => value > 0).map(([name, value]) => `${name} ${rate(value)}`).join(", ") || "no requests");

  curve("freshness-curve", history.freshnessP99Seconds, history.intervalSeconds, "Freshness", duration);
  curve("lag-curve", history.lagEvents, history.intervalSeconds, "Events behind", number);
  curve("completed-curve", history.completedPerSecond, history.intervalSeconds, "Events completed", rate);
  curve("units-curve", history.requestUnitsPerSecond, history.intervalSeconds, "Request units", rate);

  rows("dependencies", status.dependencies.map((found) => dependency(found, status.at)), 4, "nothing");
  at("tokens").replaceChildren(...(status.tokens ?? []).map((found) => token(found, status.at)));
  rows("partitions", status.partitions.map((found) => partition(found, status.at)), 8, "none is known");
  rows("log", status.log.map(logged), 4, "none since the start");
  list("decisions", Object.entries(status.decisions).map(([name, count]) => [name.replaceAll("_", " "), number(count)]));
  const { twins } = status;
  list("twins", [
    ["no answer from Cosmos DB", number(twins.inTrouble)],
    ["so many waiting events that partitions wait", number(twins.full)],
    ["repairs waiting", number(twins.repairsWaiting)],
    ["refused by Cosmos DB", number(twins.rejected)],
    ["repaired and different again", number(twins.stillDifferent)],
    ["events lost", number(twins.eventsLost)],
  ]);
  letters(status.deadLetters, status.at);
  list("store", [["writes", rate(store.writesPerSecond)], ["throttled", share(store.throttledShare)], ["maximum concurrent requests", number(store.concurrencyLimit)]]);
  counts(status.counts, status.at);
  at("hubs").replaceChildren(...(status.hubs.length > 0 ? status.hubs.map((found) => hub(found, status.at)) : [element("p", "No IoT hub is configured.", { class: "quiet" })]));
}

/** The stream, while it is open; it carries nothing where a proxy keeps it. */
let source = null;
/** When the stream was opened, closed, or heard of last. */
let streamed = 0;
let asking = false;
/** When an answer came last that was newer than the one before. */
let heard = Date.now();
let last = null;

/** Shows an answer, unless a newer one of the same process was shown: what a proxy has kept back comes late. */
function received(text) {
  const status = JSON.parse(text);
  const { replica } = status;
  if (last !== null && last.replica.name === replica.name && last.replica.started === replica.started && status.at <= last.at) return;
  if (last !== null && (last.replica.version !== replica.version || last.replica.revision !== replica.revision) && reload()) return;
  last = status;
  heard = Date.now();
  say("connection", `As of ${time(status.at)}.`);
  show(status);
}

/** Another release has another page. Where old and new ones answer in turn, once a minute is enough. */
function reload() {
  const before = Number(sessionStorage.getItem("reloaded") ?? 0);
  if (Date.now() - before < 60000) return false;
  sessionStorage.setItem("reloaded", String(Date.now()));
  location.reload();
  return true;
}

function silent() {
  const since = new Date(heard).toLocaleTimeString("en-GB");
  headline("bad", `No answer from the replica since ${since}`);
  say("connection", "The data below is from that time. The page continues automatically when the replica answers.");
}

async function poll() {
  asking = true;
  try {
    const answer = await fetch(POLL, { signal: AbortSignal.timeout(POLL_MILLISECONDS) });
    if (!answer.ok) throw new Error(answer.statusText);
    received(await answer.text());
  } catch {
    // One answer that is missing says nothing: a busy server closes connections.
    if (!document.hidden && Date.now() - heard > SILENT_MILLISECONDS) silent();
  } finally {
    asking = false;
  }
}

function listen() {
  source = new EventSource(EVENTS);
  streamed = Date.now();
  source.addEventListener("status", (event) => {
    streamed = Date.now();
    received(event.data);
  });
  // Refused, as it is where others listen already: asking does as well. A stream that broke off is opened again by the browser.
  source.addEventListener("error", () => source?.readyState === EventSource.CLOSED && rest());
}

function rest() {
  source?.close();
  source = null;
  streamed = Date.now();
}

/** The stream where it gets through; asking where it does not. Nothing while nobody looks. */
function watch() {
  if (document.hidden) {
    if (source !== null) rest();
    return;
  }
  const now = Date.now();
  if (source !== null && now - streamed > SILENT_MILLISECONDS) rest();
  if (source === null && now - streamed > STREAM_PAUSE_MILLISECONDS) listen();
  if (!asking && now - heard > LATE_MILLISECONDS) poll();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    // What is shown is from before, when nobody was asked any more.
    heard = Date.now();
    say("connection", "Trying again.");
    if (!asking) poll();
    if (source === null) listen();
  }
  watch();
});
setInterval(watch, 500);
poll();
listen();
