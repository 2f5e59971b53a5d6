// Takes note of files that were uploaded: a CloudEvent function on Google's Functions
// Framework. Nothing in it knows of Casemate.
const functions = require("@google-cloud/functions-framework");

functions.cloudEvent("uploaded", (event) => {
  const { bucket, name, size } = event.data ?? {};
  if (!bucket || !name) {
    throw new Error(`event ${event.id} names no file`);
  }
  console.log(JSON.stringify({ severity: "INFO", message: "uploaded", event: event.id, bucket, name, bytes: Number(size) }));
});
