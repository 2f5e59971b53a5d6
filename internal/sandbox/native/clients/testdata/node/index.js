'use strict';
let calls = 0;
exports.echo = async (event, context) => ({ event, calls: ++calls, id: context.awsRequestId });
exports.context = async (event, c) => ({
  ...c, callbackWaits: c.callbackWaitsForEmptyEventLoop, remaining: c.getRemainingTimeInMillis() > 1000, trace: process.env._X_AMZN_TRACE_ID,
  functions: [c.done, c.succeed, c.fail].map((f) => typeof f),
});
exports.trace = async () => process.env._X_AMZN_TRACE_ID ?? 'none';
exports.callback = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = event.waits;
  setTimeout(() => { exports.late = (exports.late || 0) + 1; }, 50);
  callback(null, { late: exports.late || 0 });
};
exports.after = (event, context, callback) => {
  setTimeout(() => { exports.late = (exports.late || 0) + 1; }, 20);
  callback(null, event);
};
exports.lateCount = async () => exports.late || 0;
exports.never = () => {};
exports.neverSettles = () => new Promise(() => {});
exports.undefinedResult = async () => {};
exports.succeed = (event, context) => context.succeed({ by: 'succeed' });
exports.fail = (event, context) => context.fail(new TypeError('by fail'));
exports.done = (event, context) => context.done(null, 'by done');
exports.throws = () => { throw new RangeError('out of range'); };
exports.rejects = async () => { throw new RangeError('later'); };
exports.throwsText = async () => { throw 'just text'; };
exports.callbackError = (event, context, callback) => callback(new Error('by callback'));
exports.circular = async () => { const a = {}; a.a = a; return a; };
exports.uncaught = () => { setTimeout(() => { throw new Error('outside'); }, 1); };
exports.rejection = () => { Promise.reject(new Error('nobody looked')); return new Promise(() => {}); };
exports.exits = () => process.exit(7);
exports.logs = async () => { console.log('to stdout'); console.error('to stderr'); return 1; };
exports.big = async (event) => 'x'.repeat(event.size);
exports.nested = { deep: { handler: async () => 'deep' } };
exports.notFunction = 7;
exports.stream = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType('text/plain');
  for (let i = 0; i < event.n; i++) stream.write('part ' + i + '\n');
  stream.end();
});
exports.streamHTTP = awslambda.streamifyResponse(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 418, headers: { 'x-a': 'b' }, cookies: ['c=d'] });
  stream.write('teapot');
  stream.end();
});
exports.streamBreaks = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('half');
  await new Promise(setImmediate);
  throw new RangeError('half way');
});
exports.streamFails = awslambda.streamifyResponse(async () => { throw new RangeError('at once'); });
exports.streamOpen = awslambda.streamifyResponse(async (event, stream) => { stream.write('left open'); });
