// "HTTP trigger with a response" of the page "Azure Functions custom handlers": the
// invocation as JSON, and Outputs, Logs and ReturnValue back.
const express = require("express");
const app = express();
app.use(express.json());

app.post("/hello", (req, res) => {
  const message = req.body.Data.req.Body || "nothing";
  const userAgent = req.body.Data.req.Headers["X-Client"];
  res.json({
    Outputs: {
      res: {
        statusCode: 200,
        headers: { "x-outcome": "done" },
        body: `got ${message} from ${userAgent ? userAgent[0] : "somebody"}, of ${req.body.Metadata.sys.MethodName}`,
      },
    },
    Logs: ["test log1", "test log2"],
    ReturnValue: null,
  });
});

app.listen(process.env.FUNCTIONS_CUSTOMHANDLER_PORT);
