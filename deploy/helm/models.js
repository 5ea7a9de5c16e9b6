// Validates resources against the models of KEDA and of the Prometheus operator. On standard input: a JSON list of resources. On
// standard output: a JSON list of findings. The directory with the packages is the argument.
const {createRequire} = require("node:module");
const path = require("node:path");
const load = createRequire(path.join(process.argv[2], "package.json"));
const homes = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1/",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/",
};

const findings = [];
for (const resource of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
  const home = homes[resource.apiVersion];
  if (!home) {
    findings.push(`${resource.kind} ${resource.apiVersion}: no model is known for it`);
    continue;
  }
  try {
    new (load(home + resource.kind)[resource.kind])(resource).validate();
  } catch (error) {
    findings.push(`${resource.kind}: ${error.message}`);
  }
}
console.log(JSON.stringify(findings));
