"""Checks twinsync.service with systemd-analyze, against the program, and against the system calls of a running daemon."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: Seconds that a shutdown takes after the drain, for the last checkpoints, leases and connections.
AFTER_DRAIN = 10
#: Maximum exposure level, of 100. The rest is the network, which the service needs.
EXPOSURE = 15


def seconds(text: str) -> int:
    units = {"s": 1, "min": 60, "m": 60, "h": 3600}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)(min|[smh])", text))


def values(unit: str, key: str) -> list:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


def analyze(unit: str, token: str) -> list:
    """Findings of systemd-analyze. ExecStart names another program, because twinsync is not installed."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "twinsync.service"
        (pathlib.Path(directory) / "twinsync.service.d").mkdir()
        (pathlib.Path(directory) / "twinsync.service.d/token.conf").write_text(token)
        path.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit, flags=re.MULTILINE))
        environment = os.environ | {"SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_COLORS": "0"}
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=False, env=environment)
        # systemd-analyze reports an unknown key only as a warning.
        verdict = run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path])
        said = [line for line in (verdict.stdout + verdict.stderr).splitlines() if "twinsync.service" in line or "token.conf" in line]
        problems = [f"systemd-analyze verify: {line}" for line in said]
        if verdict.returncode and not said:
            problems.append(f"systemd-analyze verify: exit code {verdict.returncode}: {verdict.stderr.strip()}")
        verdict = run(["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", path])
        level = re.search(r"exposure level for \S+: ([\d.]+)", verdict.stdout)
        if verdict.returncode or not level:
            problems.append(f"systemd-analyze security: {level[0] if level else verdict.stderr.strip()}; the maximum is {EXPOSURE / 10}")
    return problems


def problems_of(unit: str, token: str) -> list:
    problems = analyze(unit, token)
    default = (ROOT / "config/default.toml").read_text()

    def one(key: str) -> str:
        found = values(unit, key)
        if len(found) != 1:
            problems.append(f"{key} occurs {len(found)} times instead of once")
        return found[0] if found else ""

    drain = seconds(re.search(r'^drain_timeout = "(\w+)"', default, re.MULTILINE)[1])
    if seconds(one("TimeoutStopSec")) < drain + AFTER_DRAIN:
        problems.append(f"the daemon may be killed during its drain of {drain} s")
    codes = (ROOT / "src/cli.rs").read_text()
    for code in one("RestartPreventExitStatus").split():
        if f"ExitCode::from({code})" not in codes:
            problems.append(f"the program has no exit code {code}")
    if "2" not in one("RestartPreventExitStatus").split():
        problems.append("RestartPreventExitStatus has no 2: systemd would restart the daemon although its configuration is invalid")
    # systemd gives up only if StartLimitBurst starts fit into the interval.
    if int(one("StartLimitBurst")) * seconds(one("RestartSec")) >= seconds(one("StartLimitIntervalSec")):
        problems.append("the start limit is never reached, so systemd would restart the daemon for ever")
    state = f"/var/lib/{one('StateDirectory')}/"
    for path in re.findall(r'^path = "(.+)"', default, re.MULTILINE):
        if not path.startswith(state):
            problems.append(f"{path} is not below {state}")
    limit = re.search(r"LimitNOFILE=(\d+)", (ROOT / "docs/errors/PROCESS_FILE_LIMIT.md").read_text())[1]
    if int(one("LimitNOFILE")) < int(limit):
        problems.append(f"docs/errors/PROCESS_FILE_LIMIT.md requires {limit} files")
    command = one("ExecStart").split()
    if command[1:3] != ["run", "--config"]:
        problems.append("ExecStart is not twinsync run --config FILE")
    lines = [line for line in (unit + token).splitlines() if not line.startswith("#")]
    for name in re.findall(r"TWINSYNC__(\w+)=", "\n".join(lines)):
        section, key = name.lower().split("__", 1)
        if not re.search(rf"^\[{section}\]$(?:(?!^\[).)*?^{key} = ", default, re.MULTILINE | re.DOTALL):
            problems.append(f"config/default.toml has no {section}.{key}")
    return problems


def group(name: str, seen: set) -> set:
    """The system calls of one of systemd's groups, including nested groups."""
    if name in seen:
        return set()
    seen.add(name)
    said = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in said.splitlines() if line.startswith(" ") and not line.strip().startswith("#")]
    return {call for word in words for call in (group(word, seen) if word.startswith("@") else {word})}


def allowed(unit: str) -> set:
    calls: set = set()
    for line in values(unit, "SystemCallFilter"):
        without, names = line.startswith("~"), line.lstrip("~").split()
        found = set().union(*(group(name, set()) if name.startswith("@") else {name} for name in names))
        calls = calls - found if without else calls | found
    # systemd always allows these, because every program needs them to start and to exit.
    return calls | group("@default", set())


def trace(unit: str, devkit: str, twinsync: str) -> list:
    """Compares the system calls of a running daemon with those that the unit allows."""
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {
            "TWINSYNC__CHECKPOINT__PATH": f"{state}/checkpoints",
            "TWINSYNC__DEAD_LETTERS__PATH": f"{state}/dead-letters",
        }
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        ports = ["--eventhubs-port=5672", "--cosmos-port=8081", "--iothub-port=8091", "--control-port=8090"]
        cloud = subprocess.Popen([devkit, "up", *ports], **quiet)
        daemon = None
        try:
            time.sleep(1)
            command = [twinsync, "run", "--config", str(ROOT / "config/local.toml")]
            daemon = subprocess.Popen(
                ["strace", "-f", "-qq", "-o", f"{state}/trace", *command], env=environment, process_group=0, **quiet
            )
            time.sleep(3)
            fleet = [devkit, "fleet", "--control", "http://127.0.0.1:8090", "--devices", "20", "--events", "500"]
            if subprocess.run(fleet, timeout=120, check=False, **quiet).returncode:
                return ["the fleet failed"]
            subprocess.run([twinsync, "status", "--address", "http://127.0.0.1:8080"], check=False, **quiet)
            # Signals the process group. strace exits with the exit code of the daemon.
            os.killpg(daemon.pid, signal.SIGTERM)
            if daemon.wait(60):
                return [f"twinsync exited with {daemon.returncode}"]
        finally:
            for child in (daemon, cloud):
                if child and child.poll() is None:
                    child.kill()
                    child.wait()
        lines = [line.split(None, 1)[1] for line in pathlib.Path(f"{state}/trace").read_text(errors="replace").splitlines() if " " in line]
    called = {call for line in lines for call in re.findall(r"^(\w+)\(", line)}
    families = {family for line in lines for family in re.findall(r"^socket\((AF_\w+)", line)}
    may, sockets = allowed(unit), set(" ".join(values(unit, "RestrictAddressFamilies")).split())
    problems = [f"the daemon calls {call}, which the unit does not allow" for call in sorted(called - may)]
    problems += [f"the daemon opens sockets of {family}, which the unit does not allow" for family in sorted(families - sockets)]
    if any(re.search(r"^(?:mmap|mprotect)\(.*PROT_WRITE\|PROT_EXEC", line) for line in lines):
        problems.append("the daemon maps memory that is writable and executable, which MemoryDenyWriteExecute refuses")
    if len(called) < 30 or not sockets:
        problems.append(f"strace recorded only {len(called)} different system calls: the daemon may not have run")
    if not problems:
        print(f"strace: ok, {len(called)} system calls, all of them among the {len(may)} that the unit allows; sockets {', '.join(sorted(families))}")
    return problems


SLIPS = [
    ("ProtectHome=yes", "ProtectHomes=yes", "Unknown key"),
    ("ProtectSystem=strict", "ProtectSystem=stricter", "verify"),
    ("NoNewPrivileges=yes\nCapabilityBoundingSet=\n", "", "exposure level"),
    ("TimeoutStopSec=45s", "TimeoutStopSec=30s", "killed during its drain"),
    ("RestartPreventExitStatus=2", "RestartPreventExitStatus=3", "no exit code 3"),
    ("StartLimitIntervalSec=10min", "StartLimitIntervalSec=40s", "for ever"),
    ("StateDirectory=twinsync", "StateDirectory=twin", "is not below"),
    ("LimitNOFILE=4096", "LimitNOFILE=1024", "requires 4096"),
]


def binary(name: str) -> str | None:
    """Path of an existing build. Does not build."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for candidate in [os.environ.get(f"{name.upper()}_BINARY"), target / "release" / name, target / "debug" / name]:
        if candidate and shutil.which(candidate):
            return str(candidate)
    return None


def main() -> int:
    unit, token = (HERE / "twinsync.service").read_text(), (HERE / "token.conf").read_text()
    if sys.argv[1:] == ["trace"]:
        problems = trace(unit, os.environ["DEVKIT_BINARY"], os.environ["TWINSYNC_BINARY"])
        # Tests the comparison itself with a unit that allows fewer system calls.
        if not problems and not allowed(unit.replace("SystemCallFilter=@system-service", "SystemCallFilter=@file-system")) < allowed(unit):
            problems.append("the check does not recognize a narrower SystemCallFilter")
        for problem in problems:
            print(f"strace: {problem}")
        return 1 if problems else 0
    problems = problems_of(unit, token)
    if not problems:
        for written, slip, expected in SLIPS:
            found = problems_of(unit.replace(written, slip), token) if written in unit else []
            if not any(expected in one for one in found):
                problems.append(f"planted mistakes: the check does not report {slip!r} (expected: {expected}); it reports: {found}")
        if not any("has no http.tokenfile" in one for one in problems_of(unit, token.replace("TOKEN_FILE", "TOKENFILE"))):
            problems.append("planted mistakes: the check does not report an unknown setting")
    for problem in problems:
        print(f"twinsync.service: {problem}")
    if problems:
        return 1
    print(f"twinsync.service: ok by systemd-analyze verify and security (at most {EXPOSURE / 10}); {len(SLIPS) + 1} planted mistakes found")
    devkit, twinsync = binary("devkit"), binary("twinsync")
    if not devkit or not twinsync:
        print("SKIP: the trace of system calls needs devkit and twinsync: build them, or set DEVKIT_BINARY and TWINSYNC_BINARY")
        return 0
    # In a separate network namespace, so that the ports are free.
    alone = ["unshare", "--net", "--map-root-user", "bash", "-c", 'ip link set lo up && exec "$@"', "alone"]
    if not shutil.which("strace") or subprocess.run([*alone, "strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        print("SKIP: the trace of system calls needs strace and a separate network namespace (unshare, ip)")
        return 0
    environment = os.environ | {"DEVKIT_BINARY": devkit, "TWINSYNC_BINARY": twinsync}
    return subprocess.run([*alone, sys.executable, __file__, "trace"], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
