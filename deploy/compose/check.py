"""Checks compose.yaml with Docker Compose, against the program and devkit, and by a test run without containers."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: Seconds that a shutdown takes after the drain, for the last checkpoints, leases and connections.
AFTER_DRAIN = 10


def seconds(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([smh])", text))


def flat(table: dict, prefix: str = "") -> dict:
    found = {}
    for key, item in table.items():
        found |= flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found


def read(compose: str, file: pathlib.Path) -> dict:
    answer = subprocess.run(
        [compose, "--file", file, "--profile", "*", "config", "--format", "json"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise SystemExit(f"docker compose: {answer.stderr.strip()}")
    # Docker Compose escapes $ as $$ in its output.
    return json.loads(answer.stdout.replace("$$", "$"))


def problems_of(stack: dict) -> list:
    problems = []
    services = stack["services"]
    twinsync, devkit = services["twinsync"], services["devkit"]
    defaults = flat(tomllib.loads((ROOT / "config/default.toml").read_text()))
    local = flat(tomllib.loads((ROOT / "config/local.toml").read_text()))
    settings = {
        name[len("TWINSYNC__") :].lower().replace("__", "."): text
        for name, text in twinsync["environment"].items()
        if name.startswith("TWINSYNC__")
    }
    problems += [f"config/default.toml has no {key}" for key in settings if key not in defaults]
    for key in ("cosmos.key", "cosmos.database", "cosmos.container", "eventhubs.namespace", "iothub.hosts", "credential.kind"):
        if settings.get(key) != local[key]:
            problems.append(f"{key} differs from config/local.toml")
    drain = seconds(defaults["shutdown.drain_timeout"])
    if seconds(twinsync.get("stop_grace_period", "10s")) < drain + AFTER_DRAIN:
        problems.append(f"twinsync may be killed during its drain of {drain} s, after {twinsync.get('stop_grace_period', '10s')}")
    options = set(re.findall(r"^    (\w+): ", (ROOT / "crates/devkit/src/cli.rs").read_text(), re.MULTILINE)) | {"consumer_group"}
    for name, service in services.items():
        for word in service.get("command") or []:
            option = re.match(r"--([\w-]+)", word)
            if option and option[1].replace("-", "_") not in options:
                problems.append(f"{name}: devkit has no option {option[0]}")
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"] or service.get("security_opt") != ["no-new-privileges:true"]:
            problems.append(f"{name}: needs read_only, cap_drop: [ALL] and no-new-privileges")
        if name != "devkit" and service.get("network_mode") != "service:devkit":
            problems.append(f"{name}: does not use devkit's network")
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                problems.append(f"{name}: port {port['published']} is not bound to 127.0.0.1")
    given = dict(word[2:].split("=", 1) for word in devkit["command"] if word.startswith("--"))
    for key, port in (("eventhubs.endpoint", "eventhubs-port"), ("cosmos.endpoint", "cosmos-port"), ("iothub.endpoint", "iothub-port")):
        if not settings[key].endswith(f":{given[port]}"):
            problems.append(f"{key} and --{port} differ")
    for key, option in (
        ("eventhubs.lifecycle.hub", "lifecycle-hub"),
        ("eventhubs.twin_changes.hub", "twin-changes-hub"),
        ("eventhubs.consumer_group", "consumer-group"),
    ):
        if settings[key] != given[option]:
            problems.append(f"{key} and --{option} differ")
    listens = settings["http.listen"].rsplit(":", 1)[1]
    if [str(port["target"]) for port in devkit["ports"]] != [listens]:
        problems.append(f"the published port of the status page is not {listens}")
    if "healthcheck" not in twinsync["healthcheck"]["test"]:
        problems.append("the health check of twinsync does not run twinsync healthcheck")
    dockerfile = ROOT / devkit["build"]["dockerfile"]
    if not dockerfile.is_file() or not pathlib.Path(f"{dockerfile}.dockerignore").is_file():
        problems.append(f"{dockerfile} or its .dockerignore does not exist")
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    allowed = (HERE / "devkit.Dockerfile.dockerignore").read_text().splitlines()
    problems += [f"devkit.Dockerfile.dockerignore excludes {member}" for member in workspace if f"!{member}" not in allowed]
    return problems


SLIPS = [
    ("TWINSYNC__COSMOS__DATABASE: twins", "TWINSYNC__COSMOS__DATABSE: twins", "has no cosmos.databse"),
    ("TWINSYNC__COSMOS__KEY: dGh", "TWINSYNC__COSMOS__KEY: xGh", "cosmos.key differs from"),
    ("stop_grace_period: 40s", "stop_grace_period: 20s", "may be killed"),
    ("--cosmos-port=8081", "--cosmos-port=8082", "--cosmos-port differ"),
    ("--iothub-name=", "--iot-hub-name=", "devkit has no option --iot-hub-name"),
    ("127.0.0.1:8080:8080", "8080:8080", "is not bound to 127.0.0.1"),
    ("    read_only: true\n    cap_drop: [ALL]\n    security_opt: [\"no-new-privileges:true\"]\n    restart", "    restart", "needs read_only"),
    ("network_mode: service:devkit\n    environment", "environment", "does not use devkit's network"),
    ("interval: 10s", "intervall: 10s", "intervall"),
    ("condition: service_healthy\n        # Its", "condition: healthy\n        # Its", "must be one of"),
]


def plant(compose: str) -> list:
    text = (HERE / "compose.yaml").read_text()
    problems = []
    for written, slip, expected in SLIPS:
        if written not in text:
            problems.append(f"compose.yaml does not contain {written!r}: update SLIPS")
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=HERE) as file:
            file.write(text.replace(written, slip))
            file.flush()
            try:
                found = problems_of(read(compose, pathlib.Path(file.name)))
            except (SystemExit, Exception) as error:
                found = [str(error)]
        if not any(expected in one for one in found):
            problems.append(f"the check does not report {slip!r} (expected: {expected}); it reports: {found}")
    return problems


def rehearse(stack: dict, devkit: str, twinsync: str) -> list:
    """Runs the same commands with the same settings as processes: start, health, load, comparison, restart, stop."""
    services = stack["services"]
    children = []
    with tempfile.TemporaryDirectory() as state:
        environment = {
            "PATH": os.environ["PATH"],
            **services["twinsync"]["environment"],
            "TWINSYNC__CHECKPOINT__PATH": f"{state}/checkpoints",
            "TWINSYNC__DEAD_LETTERS__PATH": f"{state}/dead-letters",
        }

        quiet = subprocess.DEVNULL

        def run(command: list, limit: int = 120) -> int:
            try:
                return subprocess.run(command, env=environment, timeout=limit, check=False, stdout=quiet, stderr=quiet).returncode
            except subprocess.TimeoutExpired:
                return -1

        def start(command: list, name: str):
            log = open(f"{state}/{name}.log", "a")
            child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            children.append(child)
            return child

        def healthy(service: str, child) -> bool:
            test = services[service]["healthcheck"]["test"][1:]
            test = [twinsync if word == "/usr/local/bin/twinsync" else word for word in test]
            for _ in range(60):
                if run(test, 10) == 0:
                    return True
                if child.poll() is not None:
                    return False
                time.sleep(0.5)
            return False

        def log(name: str) -> str:
            return "\n".join(pathlib.Path(f"{state}/{name}.log").read_text().splitlines()[-5:])

        def up(name: str):
            command = [devkit, *services["devkit"]["command"]] if name == "devkit" else [twinsync, "run"]
            child = start(command, name)
            return child, healthy(name, child)

        try:
            cloud, lives = up("devkit")
            if not lives:
                return [f"devkit did not become healthy: {log('devkit')}"]
            daemon, lives = up("twinsync")
            if not lives:
                return [f"twinsync did not become healthy: {log('twinsync')}"]
            for tool in ("fleet", "verify"):
                if run([devkit, *services[tool]["command"]]) != 0:
                    return [f"{tool} failed: {log('twinsync')}"]
            # A new devkit container has lost its data. It also replaces the network that twinsync uses, so both stop.
            for child in (daemon, cloud):
                child.send_signal(signal.SIGTERM)
                if child.wait(seconds(services["twinsync"]["stop_grace_period"])) != 0:
                    return [f"{child.args} did not stop with exit code 0: {log('twinsync')}"]
            _, lives = up("devkit")
            daemon, again = up("twinsync")
            if not (lives and again):
                return [f"devkit or twinsync did not start again: {log('devkit')} {log('twinsync')}"]
            for tool in ("fleet", "verify"):
                if run([devkit, *services[tool]["command"]]) != 0:
                    return [f"{tool} failed with a new devkit: {log('twinsync')}"]
            if daemon.poll() is not None:
                return [f"twinsync ended unexpectedly: {log('twinsync')}"]
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                    child.wait()
    return []


def binary(name: str) -> str | None:
    """Path of an existing build. Does not build."""
    wanted = os.environ.get(f"{name.upper()}_BINARY")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for candidate in [wanted, target / "release" / name, target / "debug" / name]:
        if candidate and shutil.which(candidate):
            return str(candidate)
    return None


def main() -> int:
    compose = sys.argv[1]
    if sys.argv[2:] == ["rehearse"]:
        problems = rehearse(read(compose, HERE / "compose.yaml"), os.environ["DEVKIT_BINARY"], os.environ["TWINSYNC_BINARY"])
        print("test run without containers:", "ok: fleet, verify, restart, stop" if not problems else problems)
        return 1 if problems else 0
    stack = read(compose, HERE / "compose.yaml")
    found = problems_of(stack)
    for problem in found:
        print(f"compose.yaml: {problem}")
    if not found:
        missed = plant(compose)
        for problem in missed:
            print(f"planted mistakes: {problem}")
        print(f"compose.yaml: {len(stack['services'])} services; {len(SLIPS) - len(missed)} of {len(SLIPS)} planted mistakes found")
        found = missed
    if found:
        return 1
    devkit, twinsync = binary("devkit"), binary("twinsync")
    if not devkit or not twinsync:
        print("SKIP: the test run needs devkit and twinsync: run cargo build --workspace, or set DEVKIT_BINARY and TWINSYNC_BINARY")
        return 0
    # In a separate network namespace, so that the ports are free.
    alone = ["unshare", "--net", "--map-root-user", "bash", "-c", 'ip link set lo up && exec "$@"', "alone"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        print("SKIP: the test run needs a separate network namespace, which this machine does not support (unshare, ip)")
        return 0
    environment = os.environ | {"DEVKIT_BINARY": devkit, "TWINSYNC_BINARY": twinsync}
    return subprocess.run([*alone, sys.executable, __file__, compose, "rehearse"], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
