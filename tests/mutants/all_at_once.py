#!/usr/bin/env python3
"""Tries the changes that cargo-mutants lists, with one build for most of them.

    all_at_once.py PACKAGE MUTANTS.json RESULTS.json [--daemon COPY] [--jobs N]   (called by tests/mutants/run)

cargo-mutants builds the package once for each change, which takes hours for some thousand changes. Each change lies within one function. So this
program gives every function one body per change, and the variable TWINSYNC_MUTANT chooses at run time. A change whose body does not compile
beside the others is removed, and left to cargo-mutants itself: RESULTS.json lists it under "apart". A change that needs a `Default` which its
type does not have compiles nowhere: it is "not Rust".

For each change, the tests of its own module run first. If none fails, all tests of the package run. A change that none of these notices is tried
with the daemon's own tests, in COPY (a copy of the repository): the simulation, then the unit tests. If these pass as well, it is "missed".
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import time

CHOICE = """
/// The number of the change under test; 0: none.
pub(crate) fn mutant() -> u32 {
    static NUMBER: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
        std::env::var("TWINSYNC_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    });
    *NUMBER
}
"""
MEMORY = 6 << 30


def offset(starts, place):
    """The index into the text of a place with line and column, both counted from 1."""
    return starts[place["line"] - 1] + place["column"] - 1


class Function:
    """A function with changes: where its body is, and the changes as replacements of a part of the text."""

    def __init__(self, text, start, end):
        self.start, self.end = start, end
        self.body = text.index("{", start)
        self.is_const = re.search(r"\bconst\s+(?:unsafe\s+)?fn\b", text[start : self.body])
        self.name = re.search(r"\bfn\s+(\w+)", text[start : self.body]).group(1)
        self.changes = []  # (number, start, end, replacement)


def functions(text, mutants):
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = {}
    for number, mutant in mutants:
        span = mutant["function"]["span"]
        place = (offset(starts, span["start"]), offset(starts, span["end"]))
        function = found.setdefault(place, Function(text, *place))
        change = mutant["span"]
        replacement = mutant["replacement"]
        start, end = offset(starts, change["start"]), offset(starts, change["end"])
        if mutant["genre"] == "StructField":  # the comma goes with its field
            end += re.match(r"\s*,?", text[end:]).end()
        function.changes.append((number, start, end, replacement))
    return sorted(found.values(), key=lambda function: function.start)


def rewritten(text, begin, end, inside):
    """The text from `begin` to `end`, with the bodies of the functions `inside` chosen at run time. Markers name each change."""
    parts, at, index = [], begin, 0
    while index < len(inside):
        function = inside[index]
        nested = [other for other in inside[index + 1 :] if other.end <= function.end]
        head = text[at : function.body]
        if function.is_const:
            place = head.rindex("const", 0, len(head))
            head = head[:place] + head[place + len("const") :]
        parts += [head, "{ match crate::mutant() {\n"]
        for number, start, stop, replacement in function.changes:
            body = text[function.body : start] + replacement + text[stop : function.end]
            parts.append(f"/*<{number}>*/ {number} => {body}\n/*</{number}>*/\n")
        parts += ["_ => ", rewritten(text, function.body, function.end, nested), "\n} }"]
        at = function.end
        index += 1 + len(nested)
    parts.append(text[at:end])
    return "".join(parts)


def build(package, target, suites):
    """Builds test suites, e.g. `--lib`. Returns their programs, by name, or the errors."""
    command = ["cargo", "test", *suites, "--no-run", "--message-format=json", "--target-dir", target]
    # One build, and thousands of runs of it.
    environment = dict(os.environ, RUSTFLAGS="--cap-lints=allow", CARGO_PROFILE_DEV_OPT_LEVEL="1")
    output = subprocess.run(command, cwd=package, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    programs, errors = {}, []
    for line in output.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            errors.append(message["message"])
        elif message["reason"] == "compiler-artifact" and message["executable"] and message["profile"]["test"]:
            programs[message["target"]["name"]] = message["executable"]
    if output.returncode and not errors:
        sys.exit(output.stderr)
    return programs, errors


def numbers_at(text, line):
    """The change whose body contains this line, if there is one."""
    before = "\n".join(text.split("\n")[:line])
    open_ = re.findall(r"/\*<(/?)(\d+)>\*/", before)
    return int(open_[-1][1]) if open_ and not open_[-1][0] else None


def prepare(package, mutants, target, suites):
    """Removes changes until the rest compiles. Returns the programs, the changes that are left, and those that compile nowhere."""
    left, not_rust = dict(mutants), set()
    sources = {mutant["file"]: (package / mutant["file"]).read_text() for mutant in mutants.values()}
    const = set()  # functions that have to stay `const`
    (package / "src/lib.rs").write_text((package / "src/lib.rs").read_text() + CHOICE)
    while True:
        files = collections.defaultdict(list)
        for number, mutant in left.items():
            files[mutant["file"]].append((number, mutant))
        texts = {}
        for file, text in sources.items():
            inside = [function for function in functions(text, files[file]) if (file, function.name) not in const]
            texts[file] = rewritten(text, 0, len(text), inside)
            (package / file).write_text(texts[file])
            for function in functions(text, files[file]):
                if (file, function.name) in const:
                    for change in function.changes:
                        left.pop(change[0], None)
        programs, errors = build(package, target, suites)
        if not errors:
            return programs, left, not_rust
        wrong = set()
        for error in errors:
            for span in error["spans"]:
                if span["file_name"] in texts:
                    number = numbers_at(texts[span["file_name"]], span["line_start"])
                    if number in left:
                        wrong.add(number)
                        if re.search(r"trait bound `.*Default` is not satisfied", error["message"]):
                            not_rust.add(number)
            name = re.search(r"non-const (?:associated function|method|fn|function) `(?:.*::)?(\w+)`", error["message"])
            if name:
                const |= {(file, name.group(1)) for file in sources}
                wrong.add(0)
        if not wrong:
            # Bodies of different types, as those of `impl Iterator`: the function is left out.
            for error in errors:
                for span in error["spans"]:
                    if span["file_name"] not in texts:
                        continue
                    rest = texts[span["file_name"]].split("\n")[span["line_start"] - 1 :]
                    number = re.search(r"/\*<(\d+)>\*/", "\n".join(rest))
                    if number and int(number.group(1)) in left:
                        place = left[int(number.group(1))]
                        same = [
                            other
                            for other, mutant in left.items()
                            if mutant["file"] == place["file"] and mutant["function"] == place["function"]
                        ]
                        wrong.update(same)
        if not wrong:
            sys.exit("\n".join(error["rendered"] for error in errors[:5]))
        print(f"{len(errors)} errors, {len(wrong)} changes are removed", flush=True)
        for number in wrong:
            left.pop(number, None)


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tests(program, package, number, arguments, limit, **variables):
    """Runs tests with a change. True: all pass. False: one fails. None: no end within the limit."""
    environment = dict(os.environ, TWINSYNC_MUTANT=str(number), RUST_BACKTRACE="0", CARGO_MANIFEST_DIR=str(package), **variables)
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd=package,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=limit,
            preexec_fn=limited,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode == 0


# The tests of the package run in one thread each, so that two changes at a time use two processors.
ONE_THREAD = "--test-threads=1"
SLOW = "the_pushdown_of_every_single_condition_is_correct"


def core(package, mutants, jobs):
    """Tries the changes with the tests of the core. Yields the outcome of each."""
    programs, left, not_rust = prepare(package, mutants, str(package.parent / "target"), ["--lib"])
    program = programs["twinsync"]
    began = time.monotonic()
    if not tests(program, package, 0, [ONE_THREAD, "--skip", SLOW], 600):
        sys.exit("the tests of the core fail without a change")
    took = time.monotonic() - began
    limit = max(30.0, 10 * took)
    print(f"{len(left)} changes in one build; all tests of the core take {took:.1f} s", flush=True)

    def try_out(number):
        module = left[number]["file"].removeprefix("src/").removesuffix(".rs").replace("/", "::")
        own = tests(program, package, number, [ONE_THREAD, module, "--skip", SLOW], limit)
        if own is not True:
            return number, "no end" if own is None else "caught by its module's tests"
        every = [] if "::query" in module else ["--skip", SLOW]
        everything = tests(program, package, number, [ONE_THREAD, *every], limit * 3)
        return number, {True: "missed", False: "caught by another test of the core", None: "no end"}[everything]

    yield from ((number, "not Rust") for number in not_rust)
    yield from ((number, "apart") for number in mutants if number not in left and number not in not_rust)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(try_out, left)


def daemon(copy, mutants, jobs):
    """Tries the changes with the simulation and the unit tests of the daemon. Yields the outcome of each."""
    programs, left, _ = prepare(copy, mutants, str(copy.parent / "daemon-target"), ["--package=twinsync", "--lib", "--test=sim"])
    suites = {
        "caught by the simulation": (programs["sim"], ["with_any_faults"], {"TWINSYNC_SEEDS": "1500"}),
        # They mostly wait for time to pass.
        "caught by a test of the daemon": (programs["twinsync"], ["--test-threads=8"], {}),
    }
    took = {}
    for name, (program, arguments, variables) in suites.items():
        began = time.monotonic()
        if not tests(program, copy, 0, arguments, 1200, **variables):
            sys.exit(f"without a change: {name}")
        took[name] = time.monotonic() - began
    print(f"{len(left)} changes in one build of the daemon; its tests take {sum(took.values()):.0f} s", flush=True)

    def try_out(number):
        for name, (program, arguments, variables) in suites.items():
            passed = tests(program, copy, number, arguments, max(60.0, 5 * took[name]), **variables)
            if not passed:
                return number, "no end" if passed is None else name
        return number, "missed"

    yield from ((number, "missed") for number in mutants if number not in left)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(try_out, left)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument("mutants", type=pathlib.Path)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--daemon", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    mutants = dict(enumerate(json.loads(arguments.mutants.read_text()), 1))
    inside = {number: mutant for number, mutant in mutants.items() if mutant["function"]}
    outcomes = {number: "apart" for number in mutants}

    def follow(outcome_of_each, expected):
        for done, (number, outcome) in enumerate(outcome_of_each, 1):
            outcomes[number] = outcome
            if outcome == "missed":
                print(f"missed: {mutants[number]['name']}", flush=True)
            if done % 100 == 0:
                print(f"{done} of {expected}", flush=True)

    follow(core(arguments.package.resolve(), inside, arguments.jobs), len(inside))
    missed = {number: mutants[number] for number, outcome in outcomes.items() if outcome == "missed"}
    if arguments.daemon and missed:
        print(f"=== the {len(missed)} that are left, with the tests of the daemon", flush=True)
        follow(daemon(arguments.daemon.resolve(), missed, arguments.jobs), len(missed))
    results = collections.defaultdict(list)
    for number, outcome in outcomes.items():
        results[outcome].append(mutants[number]["name"])
    arguments.results.write_text(json.dumps(results, indent=1) + "\n")
    for outcome, names in sorted(results.items()):
        print(f"{outcome}: {len(names)}")


main()
