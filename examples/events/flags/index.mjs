// Follows feature flags in a bucket of keys and values. An AWS Lambda handler with the
// records of a DynamoDB stream.
export const handler = async (event) => {
  for (const { eventName, dynamodb } of event.Records) {
    const key = dynamodb.Keys.key.S;
    const value = dynamodb.NewImage?.value?.B;
    console.log(eventName === "REMOVE" ? `${key} is gone` : `${key} is ${Buffer.from(value, "base64")}`);
  }
};
