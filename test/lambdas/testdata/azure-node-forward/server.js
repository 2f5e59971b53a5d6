// "HTTP-only function" of the page "Azure Functions custom handlers": the request is
// forwarded as it came.
const http = require("http");

const server = http.createServer((req, res) => {
  const chunks = [];
  req.on("data", (c) => chunks.push(c));
  req.on("end", () => {
    res.writeHead(req.method === "GET" ? 200 : 202, { "content-type": "application/json", "x-seen": req.headers["x-ask"] || "none" });
    res.end(JSON.stringify({ method: req.method, url: req.url, bytes: Buffer.concat(chunks).length }));
  });
});

server.listen(process.env.FUNCTIONS_CUSTOMHANDLER_PORT);
