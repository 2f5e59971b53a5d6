// What the Lambda console writes for a new Node.js function, extended as the guide
// "Building Lambda functions with Node.js" shows: the event of a function URL.
export const handler = async (event, context) => {
  console.log("EVENT: \n" + JSON.stringify(event, null, 2));
  return {
    statusCode: 200,
    headers: { "content-type": "application/json", "x-function": context.functionName },
    cookies: ["seen=1; Path=/", "theme=dark"],
    body: JSON.stringify({
      message: "Hello from Lambda!",
      version: event.version,
      method: event.requestContext.http.method,
      path: event.rawPath,
      query: event.queryStringParameters ?? {},
      remaining: context.getRemainingTimeInMillis() > 0,
      id: typeof context.awsRequestId,
    }),
  };
};
