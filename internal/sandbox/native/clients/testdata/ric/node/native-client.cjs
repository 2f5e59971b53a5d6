// Stands in for the addon in C++ that the package builds with curl and cmake: the same
// four functions over Node's own HTTP. What is tested is the package's code, all of it
// but that.
'use strict';
const http = require('node:http');
const { Module } = require('node:module');

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
let last = Promise.resolve();

function send(method, path, body) {
  return new Promise((resolve, reject) => {
    const r = http.request({ host, port, agent, method, path: '/2018-06-01/runtime/invocation/' + path, headers: { 'content-type': 'application/json' } }, (s) => {
      let text = '';
      s.setEncoding('utf8');
      s.on('data', (d) => { text += d; });
      s.on('end', () => resolve({ bodyJson: text, headers: s.headers }));
    });
    r.on('error', reject);
    r.end(body);
  });
}

Module._extensions['.node'] = (module) => {
  module.exports = {
    initializeClient() {},
    next: async () => {
      await last;
      return send('GET', 'next');
    },
    done(id, body) { last = send('POST', id + '/response', body); },
    error(id, body) { last = send('POST', id + '/error', body); },
  };
};
