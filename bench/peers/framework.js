// functions-framework behind TLS, which it does not speak by itself.
const https = require("https");
const fs = require("fs");
const framework = require("@google-cloud/functions-framework");
const { getTestServer } = require("@google-cloud/functions-framework/testing");
framework.http("hello", (req, res) => res.json({ hello: req.body.name }));
const inner = getTestServer("hello");
const [key, cert, port] = process.argv.slice(2);
https
  .createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, inner.listeners("request")[0])
  .listen(Number(port), "127.0.0.1");
