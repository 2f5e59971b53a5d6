// Says hello, on Google's Functions Framework.
const functions = require("@google-cloud/functions-framework");

functions.http("hello", (req, res) => res.json({ hello: req.body.name }));
