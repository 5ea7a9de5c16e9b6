// A TLS proxy for devkit's hub, whose API is plain HTTP.
//
// The hub requires signatures for its own host name. The proxy signs a request again: with the hub's key if it was signed with CLIENT_KEY, and
// otherwise with a wrong key, so that the hub itself refuses it.

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const { TARGET, HUB_CONNECTION_STRING, CLIENT_KEY, CERTIFICATE, KEY, PORT } = process.env;
const hub = Object.fromEntries(
  HUB_CONNECTION_STRING.split(";").map((part) => {
    const at = part.indexOf("=");
    return [part.slice(0, at), part.slice(at + 1)];
  }),
);

const sign = (key, text) => createHmac("sha256", Buffer.from(key, "base64")).update(text).digest("base64");

function isGood(authorization) {
  const parts = new Map(
    (authorization ?? "").replace(/^SharedAccessSignature /, "").split("&").map((part) => part.split(/=(.*)/s)),
  );
  return sign(CLIENT_KEY, `${parts.get("sr")}\n${parts.get("se")}`) === decodeURIComponent(parts.get("sig") ?? "");
}

function signature(key) {
  const expiry = Math.floor(Date.now() / 1000) + 3600;
  const resource = encodeURIComponent(hub.HostName);
  const signed = encodeURIComponent(sign(key, `${resource}\n${expiry}`));
  return `SharedAccessSignature sr=${resource}&sig=${signed}&se=${expiry}&skn=${hub.SharedAccessKeyName}`;
}

function answer(request, response) {
  const key = isGood(request.headers.authorization) ? hub.SharedAccessKey : CLIENT_KEY;
  const headers = { ...request.headers, host: hub.HostName, authorization: signature(key) };
  const asked = http.request(TARGET + request.url, { method: request.method, headers }, (given) => {
    response.writeHead(given.statusCode, given.headers);
    given.pipe(response);
  });
  asked.on("error", (error) => response.writeHead(502).end(String(error)));
  request.pipe(asked);
}

const options = { cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) };
https.createServer(options, answer).listen(Number(PORT), "127.0.0.1", () => console.log("listening"));
