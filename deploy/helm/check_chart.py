"""Runs all checks of the chart that need no cluster. `check` starts it inside its venv.

Prints one line per set of values and per check of the whole chart, with the findings below it. Exits with 1 if there are findings.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

import chart as whole
from chart import CHART, COUNT, HERE, SETTINGS, Loader, Repeated, leaves, tomllib

RELEASE, NAMESPACE = "twinsync", "iot"

# The oldest version of Kubernetes that Chart.yaml allows, and the newest one that the checker knows.
KUBERNETES = [
    re.search(r'^kubeVersion: ">=([0-9]+[.][0-9]+)', (CHART / "Chart.yaml").read_text(), re.MULTILINE)[1],
    kubernetes_validate.latest_version(),
]

# Validated by models.mjs.
MODELLED = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}

# Rules of checkov that the chart does not follow, with the reason.
CHECKOV_SKIPS = {
    "CKV_K8S_15": "image.pullPolicy is IfNotPresent: with a digest or a fixed tag, Always only adds a possible failure",
    "CKV_K8S_43": "only those who build the image know its digest; values.yaml recommends to set image.digest",
    "CKV_K8S_35": "secrets are variables, because the daemon reads settings from variables; it redacts them in all output",
}

# The pod of `helm test` runs once and ends, so it needs no probes.
CHECKOV_NOT_FOR_PODS = {"CKV_K8S_8": "liveness", "CKV_K8S_9": "readiness"}


def merged(base: dict, over: dict) -> dict:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class Set:
    """One set of values: a file whose first comment lines describe it and the expected result."""

    def __init__(self, path: Path):
        self.name, self.text = path.stem, path.read_text()
        self.values = yaml.load(self.text, Loader) or {}

    def head(self, word: str) -> list[str]:
        return re.findall(rf"^# {word}: (.*)$", self.text, re.MULTILINE)


# ---- rendering ----


class Rendered:
    """The output of Helm for a set of values."""

    def __init__(self, chart: helm.Chart, values: dict):
        manifests = chart.render(values, name=RELEASE, namespace=NAMESPACE, is_install=True)
        self.notes = next(text for path, text in manifests.items() if path.endswith("NOTES.txt"))
        self.text = "\n---\n".join(
            f"# {path}\n{text}" for path, text in sorted(manifests.items()) if path.endswith(".yaml") and text.strip()
        )
        self.resources = [resource for resource in yaml.load_all(self.text, Loader) if resource]

    def all(self, kind: str) -> list[dict]:
        return [resource for resource in self.resources if resource["kind"] == kind]

    def pods(self) -> list[dict]:
        """The pods of the Deployments, and that of `helm test`."""
        return [deployment["spec"]["template"] for deployment in self.all("Deployment")] + self.all("Pod")

    def one(self, kind: str) -> dict:
        """The first: of the Deployments, that of the daemon."""
        return self.all(kind)[0]

    def config(self) -> str:
        maps = (resource["data"] for resource in self.resources if resource["kind"] == "ConfigMap")
        return next(data["twinsync.toml"] for data in maps if "twinsync.toml" in data)


def message(error: Exception) -> str:
    return " ".join(str(error).split())


def lint(values: dict) -> list[str]:
    report = helm.lint(str(CHART), values, strict=True, namespace=NAMESPACE, kube_version=f"v{KUBERNETES[-1]}.0")
    # Severity 1 is a hint, for example that the chart has no icon.
    return [f"helm lint: {entry['path']}: {entry['error']}" for entry in report["messages"] if entry["severity"] > 1]


def install(values: dict) -> list[str]:
    """Runs Helm's installation without a cluster. It checks the version of Kubernetes, the schema, the hooks and the notes."""
    try:
        with helm.Config(namespace=NAMESPACE, storage_driver="memory", kube_apiserver="http://127.0.0.1:9") as config:
            config.install(str(CHART), RELEASE, values, dry_run="client")
    except helm.HelmError as error:
        return [f"helm install --dry-run: {message(error)}"]
    return []


def kubernetes(rendered: Rendered) -> list[str]:
    found = []
    for resource in rendered.resources:
        if resource["apiVersion"] in MODELLED:
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                at = ".".join(map(str, error.path))
                found.append(f"kubernetes-validate {version}: {resource['kind']} {at}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                found.append(f"kubernetes-validate {version}: {error.message}")
    return found


def modelled(rendered: Rendered, models: str | None) -> list[str]:
    resources = [resource for resource in rendered.resources if resource["apiVersion"] in MODELLED]
    if not models or not resources:
        return []
    answer = subprocess.run(
        ["node", str(HERE / "models.mjs"), models], input=json.dumps(resources), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        return [f"models.mjs: {answer.stderr.strip()}"]
    return [f"models: {finding}" for finding in json.loads(answer.stdout)]


def coherent(rendered: Rendered) -> list[str]:
    """Checks what schemas cannot: that the resources of the chart refer to each other correctly."""
    found = []
    # The pods of each Deployment: those of the daemon, and those of `twinsync serve` if the set has them.
    pods = {deployment["metadata"]["name"]: deployment["spec"]["template"] for deployment in rendered.all("Deployment")}
    daemon = rendered.one("Deployment")["metadata"]["name"]

    def selected(selector: dict) -> set[str]:
        return {name for name, pod in pods.items() if selector.items() <= pod["metadata"]["labels"].items()}

    for resource in rendered.resources:
        kind, name, spec = resource["kind"], resource["metadata"]["name"], resource.get("spec", {})
        selector = spec.get("selector", {})
        selector = selector.get("matchLabels", selector)
        # Each of these has the name of the Deployment whose pods it selects.
        if kind in {"Deployment", "PodDisruptionBudget", "PodMonitor", "Service"} and selected(selector) != {name}:
            found.append(f"{kind} {name} selects the pods of {sorted(selected(selector))}")
        if kind == "NetworkPolicy":
            if selected(spec["podSelector"]["matchLabels"]) != set(pods):
                found.append("the NetworkPolicy does not select all pods")
            named = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            known = {port["name"] for pod in pods.values() for port in pod["spec"]["containers"][0]["ports"]}
            if not named <= known:
                found.append(f"the NetworkPolicy names ports that no pod has: {sorted(named - known)}")
        if kind == "ScaledObject" and spec["scaleTargetRef"]["name"] != daemon:
            found.append("the ScaledObject does not scale the daemon")
        if kind == "Deployment" and any(
            selector.items() <= other["metadata"]["labels"].items() for other in rendered.all("Pod")
        ):
            found.append(f"{kind} {name} selects the pod of helm test")
        if resource["metadata"].get("namespace") != NAMESPACE:
            found.append(f"{kind} is not in the release's namespace")
    for name, pod in pods.items():
        container = pod["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        variables = {entry["name"]: entry.get("value") for entry in container["env"]}
        for port, variable in {"http": "TWINSYNC__HTTP__LISTEN", "read-api": "TWINSYNC__SERVE__LISTEN"}.items():
            if port in ports and not variables[variable].endswith(f":{ports[port]}"):
                found.append(f"{name} does not listen on its port {port}")
    for pod in rendered.pods():
        container = pod["spec"]["containers"][0]
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        if volumes != mounts:
            found.append(f"volumes of {container['args'][0]} and their mounts differ: {sorted(volumes ^ mounts)}")
    return found


def is_of_count(path: str) -> bool:
    section, _, name = path.partition(".")
    return section == "counts" and name.partition(".")[2] in COUNT


def configuration(rendered: Rendered, values: dict) -> list[str]:
    """The file in the ConfigMap is valid TOML, has the settings of the values, and has no unknown setting."""
    try:
        says = leaves(tomllib.loads(rendered.config()))
    except tomllib.TOMLDecodeError as error:
        return [f"the ConfigMap has no valid TOML: {error}"]
    found = [f"the ConfigMap has {path}, which is not a setting" for path in says.keys() - SETTINGS.keys() if not is_of_count(path)]
    for path, value in leaves(values.get("config", {})).items():
        # Python regards 1e+06 as equal to 1000000, but the daemon does not accept 1e+06 as a whole number.
        if says.get(path) != value or type(says[path]) is not type(value):
            found.append(f"{path} is {value!r} in config, and {says.get(path)!r} in the ConfigMap")
    return found


def binary(rendered: Rendered) -> list[str]:
    """The binary of TWINSYNC_BINARY, if set, accepts the configuration of each kind of pod."""
    file = os.environ.get("TWINSYNC_BINARY")
    if not file:
        return []
    found = []
    for pod in rendered.pods():
        found += accepted(file, rendered.config(), pod)
    return found


def accepted(file: str, text: str, pod: dict) -> list[str]:
    """The binary accepts this configuration with the variables of this pod."""
    container = pod["spec"]["containers"][0]
    # The variables of the pod, with placeholders for the values of Secrets.
    stand_in = {"TWINSYNC__BLOB__CONTAINER_URL": "https://contoso.blob.core.windows.net/twinsync?sig=x",
                "TWINSYNC__HTTP__TOKEN": "0123456789abcdef0123456789abcdef",
                "TWINSYNC__IOTHUB__CONNECTION_STRINGS": "HostName=c.azure-devices.net;SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0",
                "TWINSYNC__SERVE__CONNECTION_STRINGS": "HostName=t.contoso.example;SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0IG9mIGEgdGVzdCBzZXQ=",
                "TWINSYNC__COSMOS__KEY": "c2VjcmV0", "TWINSYNC__OTLP__HEADERS": "key=value"}
    variables = {entry["name"]: entry.get("value", stand_in.get(entry["name"], "x")) for entry in container["env"]}
    if pod["metadata"]["labels"].get("azure.workload.identity/use") == "true":
        # The variables that the webhook of workload identity adds to a pod with this label.
        variables |= {"AZURE_CLIENT_ID": "x", "AZURE_TENANT_ID": "x", "AZURE_FEDERATED_TOKEN_FILE": "/dev/null"}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "twinsync.toml"
        if "token_file" in text:
            (Path(directory) / "token").write_text("0123456789abcdef0123456789abcdef")
            text = text.replace("/etc/token/token", f"{directory}/token")
        path.write_text(text)
        answer = subprocess.run(
            [file, "print-config", "--config", str(path)], env=variables, capture_output=True, text=True, check=False
        )
    return [] if answer.returncode == 0 else [f"twinsync print-config: {message(RuntimeError(answer.stderr))}"]


def expected(rendered: Rendered, values: Set) -> list[str]:
    text = rendered.text + rendered.notes
    found = [f"does not contain {part!r}" for part in values.head("contains") if part not in text]
    return found + [f"contains {part!r}" for part in values.head("lacks") if part in text]


def checkov(program: str | None, outputs: dict[str, Rendered]) -> dict[str, list[str]]:
    """Checks all sets in one run, because checkov takes seconds to start."""
    if not program:
        return {}
    with tempfile.TemporaryDirectory() as directory:
        for name, rendered in outputs.items():
            (Path(directory) / f"{name}.yaml").write_text(rendered.text)
        answer = subprocess.run(
            [program, "--directory", directory, "--framework", "kubernetes", "--output", "json", "--quiet", "--skip-download",
             "--skip-check", ",".join(CHECKOV_SKIPS)],
            capture_output=True, text=True, check=False, env={**os.environ, "LOG_LEVEL": "ERROR"},
        )
    try:
        report = json.loads(answer.stdout)
        results = report["results"]["failed_checks"]
        checked = report["summary"]["passed"]
    except (ValueError, KeyError, TypeError):
        return {"": [f"checkov wrote no report: {(answer.stderr or answer.stdout).strip()[:500]}"]}
    found: dict[str, list[str]] = {}
    if checked < 50 * len(outputs):
        found[""] = [f"checkov passed only {checked} checks, fewer than expected: it no longer reads these files"]
    for result in results:
        if result["check_id"] in CHECKOV_NOT_FOR_PODS and result["resource"].startswith("Pod."):
            continue
        name = Path(result["file_path"]).stem
        found.setdefault(name, []).append(f"checkov {result['check_id']}: {result['check_name']} ({result['resource']})")
    return found


def rolls(chart: helm.Chart, values: dict) -> list[str]:
    """A changed setting changes the checksum, which restarts the pods. Other changes do not change the checksum."""

    def checksum(over: dict) -> str:
        annotations = Rendered(chart, merged(values, over)).one("Deployment")["spec"]["template"]["metadata"]["annotations"]
        return annotations["checksum/config"]

    found = []
    if checksum({}) == checksum({"config": {"router": {"linger": "1s"}}}):
        found.append("a changed setting does not change checksum/config")
    if checksum({}) != checksum({"replicas": 5}):
        found.append("checksum/config changes without a changed setting")
    return found


# ---- all of it ----


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkov")
    parser.add_argument("--models")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    failures = 0

    def tell(name: str, findings: list[str], words: str = "") -> None:
        nonlocal failures
        failures += bool(findings)
        print(f"{'FAIL' if findings else 'ok'}  {name}{': ' + words if words else ''}")
        for finding in findings:
            print(f"      {finding}")

    print(f"Helm {helm.helm_sdk_version()}, Kubernetes {' and '.join(KUBERNETES)}")
    tell("copies", whole.copies(options.write), "files/ is identical to the originals")
    tell("settings", whole.settings_that_exist(), f"every named setting is one of the {len(SETTINGS)} in config/default.toml")
    tell("schema", whole.schema(options.write), "values.schema.json, values.yaml and config/default.toml match")
    tell("values", whole.readme(options.write), "each value has a comment, and README.md has the same text")
    tell("links", whole.links(), "the targets of the links in README.md exist")

    try:
        loaded = helm.Chart.load(str(CHART))
    except helm.HelmError as error:
        tell("chart", [f"Helm cannot load it: {message(error)}"])
        return 1
    with loaded as chart:
        sets = [Set(path) for path in sorted(HERE.glob("tests/*.yaml"))]
        outputs, findings = {}, {}
        for values in sets:
            try:
                rendered = outputs[values.name] = Rendered(chart, values.values)
            except (helm.HelmError, yaml.YAMLError, Repeated) as error:
                findings[values.name] = [f"does not render: {message(error)}"]
                continue
            findings[values.name] = [
                *lint(values.values),
                *install(values.values),
                *kubernetes(rendered),
                *modelled(rendered, options.models),
                *coherent(rendered),
                *configuration(rendered, values.values),
                *binary(rendered),
                *expected(rendered, values),
            ]
        scanned = checkov(options.checkov, outputs)
        for values in sets:
            resources = len(outputs[values.name].resources) if values.name in outputs else 0
            tell(values.name, findings[values.name] + scanned.pop(values.name, []), f"{resources} resources")
        for name, rest in scanned.items():
            tell(name or "checkov", rest)

        bases = {values.name: values.values for values in sets}
        tell("a changed setting restarts the pods", rolls(chart, bases["minimal"]))

        refused = [Set(path) for path in sorted(HERE.glob("tests/invalid/*.yaml"))]
        for values in refused:
            (base,), (expectation,) = values.head("over"), values.head("refused")
            try:
                Rendered(chart, merged(bases[base], values.values))
                found = ["the chart renders it instead of refusing it"]
            except (yaml.YAMLError, Repeated) as error:
                found = [f"the chart does not refuse it, and renders invalid YAML: {message(error)}"]
            except helm.HelmError as error:
                found = [] if expectation in message(error) else [f"the chart refuses it with another message: {message(error)}"]
            tell(f"refused: {values.name}", found)

    if not os.environ.get("TWINSYNC_BINARY"):
        print("SKIP twinsync print-config: it needs a twinsync binary: run cargo build, or set TWINSYNC_BINARY")
    print(f"{len(sets)} sets, {len(refused)} refused, {failures} with findings")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
