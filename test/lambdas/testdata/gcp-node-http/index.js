const functions = require("@google-cloud/functions-framework");
const escapeHtml = require("escape-html");

// Register an HTTP function with the Functions Framework (functions-helloworld-http).
functions.http("helloHttp", (req, res) => {
  res.send(`Hello ${escapeHtml(req.query.name || req.body.name || "World")}!`);
});
