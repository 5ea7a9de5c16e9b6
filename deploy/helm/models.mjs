// Validates resources against the models of KEDA and of the Prometheus operator. Standard input is a JSON list of resources, standard
// output a JSON list of findings. The argument is the directory with the packages.
//
// The validation of the models accepts unknown fields, like a cluster, which drops them without a warning. So this script also reads the
// types, and reports each field that they do not have.
import {existsSync, readFileSync} from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";

const modules = path.join(process.argv[2], "node_modules");
const homes = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
};

// The fields of an interface in FILE.d.ts: name → the file of its type, or null if its type has no known fields.
function fields(file) {
  const text = readFileSync(`${file}.d.ts`, "utf8");
  const from = {};
  for (const [, names, place] of text.matchAll(/^import \{ ([^}]+) \} from "([^"]+)";/gm)) {
    const target = place.startsWith(".") ? path.join(path.dirname(file), place) : path.join(modules, place);
    for (const name of names.split(", ")) from[name] = target.replace(/\.js$/, "");
  }
  const body = text.match(/^export interface [^{]*\{\n([\s\S]*?)^\}/m);
  if (!body) return null;
  const found = {};
  for (const [, name, type] of body[1].matchAll(/^ {4}"([^"]+)"\??: (.*)$/gm)) {
    const named = type.match(/^(?:Array<)?(I\w+)>?;$/);
    found[name] = named && from[named[1]] && existsSync(`${from[named[1]]}.d.ts`) ? from[named[1]] : null;
  }
  return found;
}

let checked = 0;
function unknown(value, file, at) {
  if (Array.isArray(value)) return value.flatMap((item, index) => unknown(item, file, `${at}[${index}]`));
  const known = file && value && typeof value === "object" ? fields(file) : null;
  if (!known) return [];
  return Object.entries(value).flatMap(([name, inner]) => {
    checked += 1;
    return name in known ? unknown(inner, known[name], `${at}.${name}`) : [`${at}.${name} is not a field of this resource`];
  });
}

const findings = [];
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const what = `${resource.apiVersion} ${resource.kind}`;
  try {
    const file = path.join(modules, homes[resource.apiVersion], resource.kind);
    const module = await import(pathToFileURL(`${file}.js`));
    checked = 0;
    findings.push(...unknown(resource.spec, fields(file).spec, "spec").map((finding) => `${what}: ${finding}`));
    if (checked < 2) findings.push(`${what}: this check cannot read the types of the package`);
    new module[resource.kind](resource).validate();
  } catch (error) {
    findings.push(`${what}: ${error.message}`);
  }
}
console.log(JSON.stringify(findings));
