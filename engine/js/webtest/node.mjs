// Runs the module of cases in Node.js: the answer's body on standard output, the
// log on standard error.
import { Console } from "node:console";
import { pathToFileURL } from "node:url";

globalThis.console = new Console({ stdout: process.stderr, stderr: process.stderr, colorMode: false });
const module = await import(pathToFileURL(process.argv[2]).href);
const response = await module.default.fetch(new Request("https://localhost/"), {}, {});
process.stdout.write(await response.text());
