// A custom handler as the documentation teaches it: one server, one path a function.
const http = require('http');

const server = http.createServer((request, response) => {
  let text = '';
  request.on('data', (chunk) => { text += chunk; });
  request.on('end', () => {
    if (request.url !== '/products' || request.method !== 'POST') {
      response.writeHead(404).end();
      return;
    }
    const { Data, Metadata } = JSON.parse(text);
    const { Method, Url, Query, Headers, Params, Body } = Data.req;
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({
      Outputs: {
        res: {
          statusCode: 201,
          headers: { 'X-Method': Method, 'Set-Cookie': ['a=1', 'b=2'] },
          body: { url: Url, colour: JSON.parse(Query).colour, agent: Headers['User-Agent'], params: Params, body: Body },
        },
        audit: ['looked at ' + Params.category],
      },
      Logs: ['asked for ' + Metadata.category, 'by ' + Metadata.sys.MethodName],
      ReturnValue: null,
    }));
  });
});
server.listen(process.env.FUNCTIONS_CUSTOMHANDLER_PORT, '127.0.0.1');
