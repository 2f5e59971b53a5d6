// As in "Response streaming for Lambda functions".
export const handler = awslambda.streamifyResponse(async (event, responseStream, _context) => {
  const httpResponseMetadata = {
    statusCode: 201,
    headers: { "Content-Type": "text/html", "X-Custom-Header": "Example-Custom-Header" },
  };
  responseStream = awslambda.HttpResponseStream.from(responseStream, httpResponseMetadata);
  responseStream.write("<html>");
  await new Promise((r) => setTimeout(r, 20));
  responseStream.write("<p>Hello!</p>");
  responseStream.write("<p>" + "x".repeat(100_000) + "</p>");
  responseStream.end("</html>");
});
