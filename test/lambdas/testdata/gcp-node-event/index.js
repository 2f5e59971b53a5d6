const functions = require("@google-cloud/functions-framework");

// Register a CloudEvent callback that is triggered by Cloud Storage (functions-helloworld-storage).
functions.cloudEvent("helloGCS", (cloudEvent) => {
  const file = cloudEvent.data;
  if (!file.bucket) {
    throw new Error("no bucket");
  }
  console.log(`Event ID: ${cloudEvent.id}`);
  console.log(`Event Type: ${cloudEvent.type}`);
  console.log(`File: ${file.name} in ${file.bucket}`);
});
