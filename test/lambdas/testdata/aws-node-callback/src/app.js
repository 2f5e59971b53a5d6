"use strict";
// A handler with a callback, as in "Define Lambda function handler in Node.js".
const { greet } = require("./greet");

exports.lambdaHandler = function (event, context, callback) {
  context.callbackWaitsForEmptyEventLoop = false;
  const body = event.isBase64Encoded ? Buffer.from(event.body, "base64").toString("utf8") : event.body;
  setTimeout(() => {
    if (body === "fail") {
      callback(new Error("asked to fail"));
      return;
    }
    // Not in the shape of a response: plain JSON, which becomes a body.
    callback(null, { greeting: greet(body), handler: process.env._HANDLER });
  }, 5);
};
