// Runs a Lambda handler for Node.js: speaks the AWS Lambda Runtime API over one socket.
// It loads nothing but `net`, because every module costs each sandbox memory and time.
'use strict';
const net = require('net');
const path = require('path');
const { Writable } = require('stream');

const env = process.env;
const colon = env.AWS_LAMBDA_RUNTIME_API.lastIndexOf(':');
const host = env.AWS_LAMBDA_RUNTIME_API.slice(0, colon);
const port = Number(env.AWS_LAMBDA_RUNTIME_API.slice(colon + 1));
const base = ' /2018-06-01/runtime/';
const streaming = Symbol.for('aws.lambda.runtime.handler.streaming');
const preludeType = 'application/vnd.awslambda.http-integration-response';
const exitRejection = 128; // as AWS's client ends
const exitException = 129;

// ---- The Runtime API. One request at a time; answers always have a Content-Length.

let socket = null;
let pending = null; // whom the answer is for
let parts = []; // of the answer, as they came
let have = 0; // bytes in parts
let head = null; // the answer's, once it is complete

function connection() {
  if (socket) return socket;
  const s = net.connect({ host, port, autoSelectFamily: false });
  s.setNoDelay(true);
  s.on('data', (data) => {
    parts.push(data);
    have += data.length;
    receive();
  });
  const lost = () => {
    if (socket !== s) return;
    socket = null;
    if (pending) process.exit(1); // the platform is gone, and so is the reason to be
  };
  s.on('error', lost);
  s.on('close', lost);
  return (socket = s);
}

function receive() {
  if (!head) {
    const all = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    parts = [all];
    const end = all.indexOf('\r\n\r\n');
    if (end < 0) return;
    const lines = all.utf8Slice(0, end).split('\r\n'); // the client context is a caller's text
    head = { status: Number(lines[0].slice(9, 12)), start: end + 4 };
    for (let i = 1; i < lines.length; i++) {
      const at = lines[i].indexOf(':');
      head[lines[i].slice(0, at).toLowerCase()] = lines[i].slice(at + 1).trim();
    }
    head.end = head.start + Number(head['content-length'] || 0);
  }
  if (have < head.end) return;
  const all = parts.length === 1 ? parts[0] : Buffer.concat(parts);
  const answer = head;
  answer.body = all.utf8Slice(answer.start, answer.end);
  parts = [];
  have = 0;
  head = null;
  if (answer.connection === 'close') {
    const s = socket;
    socket = null;
    s.destroy();
  }
  const resolve = pending;
  pending = null;
  resolve(answer);
}

// request sends one request; body is a string, or undefined for a stream that begins.
function request(method, where, headers, body) {
  const s = connection();
  let text = method + base + where + ' HTTP/1.1\r\nHost: ' + host + '\r\n';
  for (const name in headers) text += name + ': ' + headers[name] + '\r\n';
  if (body === undefined) text += 'Transfer-Encoding: chunked\r\n\r\n';
  else text += 'Content-Length: ' + Buffer.byteLength(body) + '\r\n\r\n' + body;
  s.ref();
  s.write(text);
}

const answer = () => new Promise((resolve) => { pending = resolve; });

function call(method, where, headers, body) {
  const a = answer();
  request(method, where, headers, body);
  return a;
}

// ---- Failures, in the form that AWS documents.

class RuntimeFailure extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

function describe(e) {
  if (e instanceof Error || (e && typeof e === 'object' && typeof e.stack === 'string')) {
    return {
      errorType: String(e.name), errorMessage: String(e.message),
      trace: String(e.stack || '').split('\n'),
    };
  }
  let text;
  try {
    text = String(e);
  } catch {
    text = 'a value that has no text';
  }
  return { errorType: typeof e, errorMessage: text, trace: [] };
}

// report describes what the function threw; reading that may throw in turn.
function report(e) {
  try {
    return describe(e);
  } catch {
    return { errorType: 'Error', errorMessage: 'an error that cannot be read', trace: [] };
  }
}

const token = (s) => (/^[\x21-\x7e]{1,200}$/.test(s) ? s : 'Error');

function log(what, r) {
  process.stderr.write(what + '\t' + JSON.stringify({ errorType: r.errorType, errorMessage: r.errorMessage, stack: r.trace }) + '\n');
}

function postError(where, r) {
  return call('POST', where, {
    'Content-Type': 'application/vnd.aws.lambda.error+json', 'Lambda-Runtime-Function-Error-Type': token(r.errorType),
  }, JSON.stringify(r));
}

// ---- Streaming: what AWS offers as the global `awslambda`.

class ResponseStream extends Writable {
  constructor(id) {
    super({ highWaterMark: 64 * 1024 });
    this.id = id;
    this.type = 'application/octet-stream';
    this.begun = false;
    this.prelude = null;
    this.done = null; // the platform's answer, once the stream began
  }

  setContentType(type) {
    this.type = String(type).replace(/[^\t\x20-\x7e]/g, '');
  }

  begin() {
    if (this.begun) return;
    this.begun = true;
    this.done = answer();
    request('POST', 'invocation/' + this.id + '/response', {
      'Content-Type': this.type, 'Lambda-Runtime-Function-Response-Mode': 'streaming',
      Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
    });
    connection().unref(); // a stream left open must not keep itself alive
    if (this.prelude) {
      this.chunk(Buffer.concat([Buffer.from(JSON.stringify(this.prelude)), Buffer.alloc(8)]));
    }
  }

  chunk(data, sent) {
    const s = connection();
    if (data.length === 0) return sent && sent();
    s.cork();
    s.write(data.length.toString(16) + '\r\n');
    s.write(data);
    s.write('\r\n', sent);
    s.uncork();
  }

  _write(data, encoding, sent) {
    this.begin();
    this.chunk(data, sent);
  }

  _final(sent) {
    this.begin();
    connection().ref();
    connection().write('0\r\n\r\n');
    this.done.then(() => sent());
  }

  // abort ends a stream that began with the reason why it has no good end.
  abort(r) {
    let text = '0\r\nLambda-Runtime-Function-Error-Type: ' + token(r.errorType) + '\r\n';
    // Trailers have a limit of 4 KiB, and what exceeds it is lost altogether.
    r = { errorType: r.errorType.slice(0, 200), errorMessage: r.errorMessage.slice(0, 500), trace: r.trace.slice(0, 10).map((l) => l.slice(0, 120)) };
    const body = Buffer.from(JSON.stringify(r));
    if (body.length <= 2400) text += 'Lambda-Runtime-Function-Error-Body: ' + body.toString('base64') + '\r\n';
    connection().ref();
    connection().write(text + '\r\n');
    return this.done;
  }
}

globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[streaming] = 'response';
    if (options && options.highWaterMark !== undefined) handler.highWaterMark = options.highWaterMark;
    return handler;
  },
  HttpResponseStream: {
    from(stream, metadata) {
      stream.setContentType(preludeType);
      stream.prelude = metadata || {};
      return stream;
    },
  },
};

// ---- The function.

async function load(root, name) {
  const dir = path.dirname(name);
  const [, file, names] = /^([^.]*)\.(.+)$/.exec(path.basename(name)) || [];
  if (!file || name.includes('..')) throw new RuntimeFailure('Runtime.MalformedHandlerName', 'Bad handler');
  const at = path.resolve(root, dir, file);
  const module = await open(root, at, (dir === '.' ? '' : dir + '/') + file);
  let found = module;
  for (const key of names.split('.')) found = found == null ? undefined : found[key];
  if (found === undefined && module.default) {
    found = module.default;
    for (const key of names.split('.')) found = found == null ? undefined : found[key];
  }
  if (found === undefined) throw new RuntimeFailure('Runtime.HandlerNotFound', name + ' is undefined or not exported');
  if (typeof found !== 'function') throw new RuntimeFailure('Runtime.HandlerNotFound', name + ' is not a function');
  return found;
}

// open loads the module: by its path with the endings in AWS's order, then as a package.
async function open(root, at, name) {
  const fs = require('fs');
  const isFile = (f) => {
    const s = fs.statSync(f, { throwIfNoEntry: false });
    return s !== undefined && s.isFile();
  };
  let target = ['', '.js', '.mjs', '.cjs'].map((ending) => at + ending).find(isFile);
  try {
    if (!target) target = require.resolve(name, { paths: [root, path.dirname(at)] });
    if (target.endsWith('.mjs')) return await import(require('url').pathToFileURL(target).href);
    try {
      return require(target);
    } catch (e) {
      if (e && e.code === 'ERR_REQUIRE_ESM') return await import(require('url').pathToFileURL(target).href);
      throw e;
    }
  } catch (e) {
    if (e instanceof SyntaxError) throw renamed(e, 'Runtime.UserCodeSyntaxError');
    if (e && (e.code === 'MODULE_NOT_FOUND' || e.code === 'ERR_MODULE_NOT_FOUND')) throw renamed(e, 'Runtime.ImportModuleError');
    throw e;
  }
}

function renamed(e, name) {
  const r = new RuntimeFailure(name, 'Error: ' + e.message);
  r.stack = name + ': ' + e.stack;
  return r;
}

// run calls the handler once; end is called with its outcome, which is the first one.
function run(handler, event, headers, end) {
  let over = false;
  let waits = true; // callbackWaitsForEmptyEventLoop
  let kept = null; // what the callback gave, while the event loop is not empty
  const finish = (error, value) => {
    if (over) return;
    over = true;
    run.drained = run.broke = null;
    end(error, value);
  };
  const callback = (error, value) => {
    if (over || kept) return;
    const outcome = [error == null ? null : { error }, value];
    if (!waits) return finish(...outcome);
    kept = outcome;
  };
  const done = (error, value) => {
    waits = false;
    callback(error, value);
  };
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const parse = (text) => (text ? JSON.parse(text) : undefined);
  // Nothing is left to wait for: what there is has to do, or null.
  run.drained = () => finish(...(kept || [null, null]));
  run.broke = (error) => finish({ error });
  try {
    const context = {
      get callbackWaitsForEmptyEventLoop() { return waits; },
      set callbackWaitsForEmptyEventLoop(v) { waits = v; },
      done, succeed: (value) => done(null, value), fail: (error) => done(error === undefined || error === null ? 'handled' : error),
      functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION, functionName: env.AWS_LAMBDA_FUNCTION_NAME,
      memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE, logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME, logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
      clientContext: parse(headers['lambda-runtime-client-context']), identity: parse(headers['lambda-runtime-cognito-identity']),
      invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'], awsRequestId: headers['lambda-runtime-aws-request-id'],
      getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
    };
    if (handler[streaming] === 'response') return stream(handler, event(), context, finish);
    const result = handler(event(), context, callback);
    if (result != null && typeof result.then === 'function') {
      result.then((value) => finish(null, value), (error) => finish({ error }));
    }
  } catch (error) {
    finish({ error });
  }
}

// stream calls a handler that streams. Its outcome is the stream's.
function stream(handler, event, context, finish) {
  const s = new ResponseStream(context.awsRequestId);
  const fail = (error) => finish({ error, stream: s });
  s.on('error', fail);
  s.on('finish', () => finish(null, s));
  // A handler that came to its end and left its stream open has said all it will say.
  run.drained = () => s.end();
  run.broke = fail;
  Promise.resolve(handler(event, s, context)).catch(fail);
}

async function serve(handler) {
  for (;;) {
    const next = await call('GET', 'invocation/next', {}, '');
    if (next.status !== 200) throw new Error('the platform refused an event with ' + next.status + ': ' + next.body);
    const id = next['lambda-runtime-aws-request-id'];
    if (next['lambda-runtime-trace-id']) env._X_AMZN_TRACE_ID = next['lambda-runtime-trace-id'];
    else delete env._X_AMZN_TRACE_ID;
    if (socket) socket.unref(); // it must not count as something to wait for
    const [failure, value] = await new Promise((resolve) => {
      run(handler, () => JSON.parse(next.body), next, (...outcome) => resolve(outcome));
    });
    let body;
    let failed = failure;
    if (!failed && !(value instanceof ResponseStream)) {
      try {
        body = JSON.stringify(value === undefined ? null : value);
        if (body === undefined) body = 'null'; // a function, or a symbol
      } catch {
        failed = { error: new Error('Unable to stringify response body') };
      }
    }
    if (failed) {
      const r = report(failed.error);
      const ends = fatal.code !== 0 && failed.error === fatal.error;
      log(ends ? fatal.what : 'Invoke Error', r);
      if (failed.stream && failed.stream.begun) await failed.stream.abort(r);
      else await postError('invocation/' + id + '/error', r);
      if (ends) process.exit(fatal.code);
    } else if (body !== undefined) {
      await call('POST', 'invocation/' + id + '/response', { 'Content-Type': 'application/json' }, body);
    }
  }
}

// ---- What goes wrong outside of the handler.

const fatal = { error: undefined, code: 0, what: '' };

function die(error, code, what) {
  if (fatal.code) return;
  fatal.error = error;
  fatal.code = code;
  fatal.what = what;
  if (run.broke) return run.broke(error); // serve reports it and ends
  const r = report(error);
  log(what, r);
  if (serving) return process.exit(code);
  postError('init/error', r).then(() => process.exit(code));
}

let serving = false;
process.on('uncaughtException', (error) => die(error, exitException, 'Uncaught Exception'));
process.on('unhandledRejection', (reason) => {
  const r = report(reason);
  const e = new RuntimeFailure('Runtime.UnhandledPromiseRejection', r.trace.length > 0 ? r.errorType + ': ' + r.errorMessage : r.errorMessage);
  e.stack = r.trace.length > 0 ? r.trace.join('\n') : e.stack;
  die(e, exitRejection, 'Unhandled Promise Rejection');
});
process.on('beforeExit', () => {
  if (run.drained) run.drained();
});

load(env.LAMBDA_TASK_ROOT, env._HANDLER).then(
  (handler) => {
    serving = true;
    return serve(handler).catch((error) => {
      log('Runtime Error', report(error));
      process.exit(1);
    });
  },
  (error) => {
    const r = report(error);
    log('Init Error', r);
    fatal.code = 1;
    postError('init/error', r).then(() => process.exit(1));
  },
);
