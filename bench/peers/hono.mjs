// The Hono app of functions/hono on Node, by Hono's own server, with TLS.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { serve } from "@hono/node-server";
import app from "../functions/hono/src/app.js";

const [key, cert, port] = process.argv.slice(2);
serve({
  fetch: app.fetch,
  hostname: "127.0.0.1",
  port: Number(port),
  createServer,
  serverOptions: { key: readFileSync(key), cert: readFileSync(cert) },
});
