// ReadableStream (https://streams.spec.whatwg.org/#rs-class) with the default
// controller and reader. A source of type "bytes" is accepted and checked, but
// read through the default reader only: bodies are whole in memory here, so
// reading into the caller's buffer would save nothing.
const STREAM_TOKEN = {};
let isReadableStream, isDisturbed, streamState, readerFor, bodyStream, takeBody;

// deferred is a promise with its ends; its rejection never counts as unhandled.
function deferred() {
  const d = Promise.withResolvers();
  d.promise.catch(() => {});
  return d;
}

function strategyOf(strategy, highWaterMark) {
  strategy = dictionary(strategy, "The queuing strategy");
  const size = strategy?.size;
  if (size !== undefined && typeof size !== "function") throw new TypeError("size of the queuing strategy is not a function");
  const mark = strategy?.highWaterMark;
  if (mark !== undefined) {
    highWaterMark = Number(mark);
    if (Number.isNaN(highWaterMark) || highWaterMark < 0) throw new RangeError("The highWaterMark must be a non-negative number");
  }
  return { size, highWaterMark };
}

function chunkSize(size, chunk) {
  if (size === undefined) return 1;
  const n = Number(size(chunk));
  if (Number.isNaN(n) || n < 0 || n === Infinity) throw new RangeError("The size of a chunk must be a finite, non-negative number");
  return n;
}

function methodOf(object, name, what) {
  const f = object[name];
  if (f === undefined) return undefined;
  if (typeof f !== "function") throw new TypeError(`${name} of the ${what} is not a function`);
  return (...args) => apply(f, object, args);
}

// A stream's state: {state, error, reader, disturbed, controller} and, for the
// queue of its controller, {queue, total, size, mark, pull, cancel, started,
// pulling, again, closing}. Functions below take it as s.
function readableState() {
  return {
    state: "readable", error: undefined, reader: null, disturbed: false, controller: null,
    queue: [], total: 0, size: undefined, mark: 1, pull: undefined, cancel: undefined,
    started: false, pulling: false, again: false, closing: false, bytes: false,
  };
}

function startReadable(s, start) {
  const started = start?.();
  Promise.resolve(started).then(() => {
    s.started = true;
    pullIfNeeded(s);
  }, (e) => readableError(s, e));
}

function pullIfNeeded(s) {
  if (s.state !== "readable" || s.closing || !s.started) return;
  const wanted = (s.reader !== null && s.reader.requests.length > 0) || s.mark - s.total > 0;
  if (!wanted) return;
  if (s.pulling) {
    s.again = true;
    return;
  }
  s.pulling = true;
  let result;
  try {
    result = Promise.resolve(s.pull?.(s.controller));
  } catch (e) {
    result = Promise.reject(e);
  }
  result.then(() => {
    s.pulling = false;
    if (!s.again) return;
    s.again = false;
    pullIfNeeded(s);
  }, (e) => readableError(s, e));
}

function readableEnqueue(s, chunk) {
  if (s.closing || s.state !== "readable") throw new TypeError("Invalid state: the stream is closed or has failed, nothing can be enqueued");
  if (s.reader !== null && s.reader.requests.length > 0) {
    s.reader.requests.shift().resolve({ value: chunk, done: false });
  } else {
    let size;
    try {
      size = chunkSize(s.size, chunk);
    } catch (e) {
      readableError(s, e);
      throw e;
    }
    s.queue.push({ chunk, size });
    s.total += size;
  }
  pullIfNeeded(s);
}

function readableClose(s) {
  if (s.closing || s.state !== "readable") throw new TypeError("Invalid state: the stream is already closed or has failed");
  s.closing = true;
  if (s.queue.length === 0) readableClosed(s);
}

function readableClosed(s) {
  s.state = "closed";
  if (s.reader === null) return;
  s.reader.closed.resolve(undefined);
  for (const r of s.reader.requests.splice(0)) r.resolve({ value: undefined, done: true });
}

function readableError(s, e) {
  if (s.state !== "readable") return;
  s.state = "errored";
  s.error = e;
  s.queue = [];
  s.total = 0;
  if (s.reader === null) return;
  s.reader.closed.reject(e);
  for (const r of s.reader.requests.splice(0)) r.reject(e);
}

function readableRead(s) {
  s.disturbed = true;
  if (s.state === "closed") return Promise.resolve({ value: undefined, done: true });
  if (s.state === "errored") return Promise.reject(s.error);
  if (s.queue.length > 0) {
    const { chunk, size } = s.queue.shift();
    s.total = Math.max(0, s.total - size);
    if (s.closing && s.queue.length === 0) readableClosed(s);
    else pullIfNeeded(s);
    return Promise.resolve({ value: chunk, done: false });
  }
  const request = Promise.withResolvers();
  s.reader.requests.push(request);
  pullIfNeeded(s);
  return request.promise;
}

function readableCancel(s, reason) {
  s.disturbed = true;
  if (s.state === "closed") return Promise.resolve(undefined);
  if (s.state === "errored") return Promise.reject(s.error);
  readableClosed(s);
  s.queue = [];
  s.total = 0;
  try {
    return Promise.resolve(s.cancel?.(reason)).then(() => undefined);
  } catch (e) {
    return Promise.reject(e);
  }
}

class ReadableStreamDefaultController {
  #s;

  constructor(token = undefined, s = undefined) {
    if (token !== STREAM_TOKEN) throw new TypeError("Illegal constructor");
    this.#s = s;
  }

  get desiredSize() {
    if (this.#s.state === "errored") return null;
    return this.#s.state === "closed" ? 0 : this.#s.mark - this.#s.total;
  }

  enqueue(chunk = undefined) {
    const s = this.#s;
    if (s.bytes) {
      if (!ArrayBuffer.isView(chunk)) throw new TypeError("A byte stream takes ArrayBuffer views only");
      if (chunk.byteLength === 0) throw new TypeError("A byte stream takes no empty chunks");
      chunk = new Uint8Array(bytesOf(chunk));
    }
    readableEnqueue(s, chunk);
  }

  close() { readableClose(this.#s); }
  error(e = undefined) { readableError(this.#s, e); }
}

class ReadableStreamDefaultReader {
  #s; // null once released
  #state;

  constructor(stream) {
    needArguments(arguments.length, 1, "ReadableStreamDefaultReader");
    if (!isObject(stream) || !isReadableStream(stream)) throw new TypeError("ReadableStreamDefaultReader: the argument must be a ReadableStream");
    const s = streamState(stream);
    if (s.reader !== null) throw new TypeError("Invalid state: ReadableStream is locked");
    const closed = deferred();
    this.#s = s;
    this.#state = s.reader = { requests: [], closed };
    if (s.state === "closed") closed.resolve(undefined);
    else if (s.state === "errored") closed.reject(s.error);
  }

  get closed() { return this.#state.closed.promise; }

  read() {
    if (this.#s === null) return Promise.reject(new TypeError("Invalid state: the reader has been released"));
    return readableRead(this.#s);
  }

  cancel(reason = undefined) {
    if (this.#s === null) return Promise.reject(new TypeError("Invalid state: the reader has been released"));
    return readableCancel(this.#s, reason);
  }

  releaseLock() {
    const s = this.#s;
    if (s === null) return;
    const e = new TypeError("Invalid state: the reader has been released");
    if (s.state !== "readable") this.#state.closed = deferred();
    this.#state.closed.reject(e);
    for (const r of this.#state.requests.splice(0)) r.reject(e);
    s.reader = null;
    this.#s = null;
  }
}

class ReadableStream {
  #s = null; // null while it is a body's stream that nobody has touched
  #slot; // and then that body, see 62-body.js

  constructor(source = undefined, strategy = undefined, slot = undefined) {
    if (source === STREAM_TOKEN) {
      this.#s = strategy;
      this.#slot = slot;
      return;
    }
    if (source === undefined) source = {};
    if (!isObject(source)) throw new TypeError("ReadableStream: the underlying source must be an object");
    const type = source.type;
    if (type !== undefined && `${type}` !== "bytes") throw new TypeError(`ReadableStream: '${type}' is not a valid type of source`);
    const s = this.#s = readableState();
    s.bytes = type !== undefined;
    const { size, highWaterMark } = strategyOf(strategy, s.bytes ? 0 : 1);
    if (s.bytes && size !== undefined) throw new RangeError("A byte stream's strategy cannot have a size function");
    s.size = size;
    s.mark = highWaterMark;
    s.pull = methodOf(source, "pull", "underlying source");
    s.cancel = methodOf(source, "cancel", "underlying source");
    const start = methodOf(source, "start", "underlying source");
    s.controller = new ReadableStreamDefaultController(STREAM_TOKEN, s);
    startReadable(s, start && (() => start(s.controller)));
  }

  static {
    isReadableStream = (v) => #s in v;
    isDisturbed = (v) => v.#s !== null && v.#s.disturbed;
    streamState = (v) => v.#s ?? v.#open();
    bodyStream = (slot) => new ReadableStream(STREAM_TOKEN, null, slot);
    // takeBody gives the body of a stream that nobody has touched, as if it had been
    // read by a reader that was never released; undefined for any other stream.
    takeBody = (v) => {
      if (v.#s !== null) return undefined;
      const slot = v.#slot;
      v.#slot = undefined;
      v.#s = CONSUMED_STATE;
      return slot;
    };
    readerFor = (v) => new ReadableStreamDefaultReader(v);
  }

  static from(iterable) {
    needArguments(arguments.length, 1, "ReadableStream.from");
    const make = iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator];
    if (typeof make !== "function") throw new TypeError("ReadableStream.from: the argument is not iterable");
    const iterator = apply(make, iterable, []);
    if (!isObject(iterator)) throw new TypeError("ReadableStream.from: the iterator is not an object");
    return new ReadableStream({
      async pull(controller) {
        const r = await iterator.next();
        if (!isObject(r)) throw new TypeError("ReadableStream.from: the iterator's result is not an object");
        if (r.done) controller.close();
        else controller.enqueue(await r.value);
      },
      async cancel(reason) {
        if (iterator.return === undefined) return;
        const r = await iterator.return(reason);
        if (!isObject(r)) throw new TypeError("ReadableStream.from: the iterator's result is not an object");
      },
    }, { highWaterMark: 0 });
  }

  get locked() { return this.#s !== null && this.#s.reader !== null; }

  cancel(reason = undefined) {
    if (this.locked) return Promise.reject(new TypeError("Invalid state: ReadableStream is locked"));
    return readableCancel(streamState(this), reason);
  }

  getReader(options = undefined) {
    const mode = dictionary(options, "ReadableStream.getReader options")?.mode;
    if (mode !== undefined) {
      if (`${mode}` !== "byob") throw new TypeError(`ReadableStream.getReader: '${mode}' is not a valid mode`);
      throw new TypeError("ReadableStream.getReader: mode byob is not supported; use the default reader");
    }
    return new ReadableStreamDefaultReader(this);
  }

  pipeThrough(pair, options = undefined) {
    needArguments(arguments.length, 1, "ReadableStream.pipeThrough");
    const { readable, writable } = dictionary(pair, "The transform") ?? {};
    if (!isObject(readable) || !isReadableStream(readable)) throw new TypeError("pipeThrough: readable must be a ReadableStream");
    if (!isObject(writable) || !isWritableStream(writable)) throw new TypeError("pipeThrough: writable must be a WritableStream");
    if (this.locked || writable.locked) throw new TypeError("Invalid state: a stream to pipe is locked");
    pipe(this, writable, pipeOptions(options)).catch(() => {});
    return readable;
  }

  pipeTo(destination, options = undefined) {
    if (!isObject(destination) || !isWritableStream(destination)) return Promise.reject(new TypeError("pipeTo: the destination must be a WritableStream"));
    if (this.locked || destination.locked) return Promise.reject(new TypeError("Invalid state: a stream to pipe is locked"));
    try {
      return pipe(this, destination, pipeOptions(options));
    } catch (e) {
      return Promise.reject(e);
    }
  }

  tee() { return teeStream(this); }

  values(options = undefined) {
    const preventCancel = Boolean(dictionary(options, "ReadableStream.values options")?.preventCancel);
    const reader = new ReadableStreamDefaultReader(this);
    let tail = RESOLVED; // calls are answered in turn
    let done = false;
    const step = async () => {
      if (done) return { value: undefined, done: true };
      let r;
      try {
        r = await reader.read();
      } catch (e) {
        done = true;
        reader.releaseLock();
        throw e;
      }
      if (r.done) {
        done = true;
        reader.releaseLock();
      }
      return r;
    };
    const finish = async (value) => {
      if (!done) {
        done = true;
        const canceled = preventCancel ? undefined : reader.cancel(value);
        reader.releaseLock();
        await canceled;
      }
      return { value, done: true };
    };
    const iterator = Object.create(streamIteratorPrototype);
    defineProperty(iterator, STREAM_STEP, { value: () => tail = tail.then(step, step) });
    defineProperty(iterator, STREAM_FINISH, { value: (v) => tail = tail.then(() => finish(v), () => finish(v)) });
    return iterator;
  }

  // #open makes a body's stream one that can be read.
  #open() {
    const slot = this.#slot;
    this.#slot = undefined;
    return this.#s = bytesState(() => slotBytes(slot));
  }
}

const STREAM_STEP = Symbol("next");
const STREAM_FINISH = Symbol("return");
const AsyncIteratorPrototype = Object.getPrototypeOf(Object.getPrototypeOf((async function* () {}).prototype));
const streamIteratorPrototype = Object.create(AsyncIteratorPrototype, {
  next: { value() { return this[STREAM_STEP](); }, writable: true, enumerable: true, configurable: true },
  return: { value(v) { return this[STREAM_FINISH](v); }, writable: true, enumerable: true, configurable: true },
});
tag(streamIteratorPrototype, "ReadableStream AsyncIterator");
defineProperty(ReadableStream.prototype, Symbol.asyncIterator, { value: ReadableStream.prototype.values, writable: true, configurable: true });

function teeStream(stream) {
  const reader = new ReadableStreamDefaultReader(stream);
  const canceled = [false, false];
  const reasons = [undefined, undefined];
  const cancelDone = deferred();
  let reading = false;
  let again = false;
  const branches = [];
  const pull = () => {
    if (reading) {
      again = true;
      return;
    }
    reading = true;
    reader.read().then(({ value, done }) => {
      reading = false;
      branches.forEach((b, i) => {
        if (canceled[i]) return;
        if (done) readableClose(b);
        else readableEnqueue(b, b.bytes && i === 1 ? value.slice() : value);
      });
      if (done && !(canceled[0] && canceled[1])) cancelDone.resolve(undefined);
      if (again && !done) {
        again = false;
        pull();
      }
    }, () => { reading = false; });
  };
  const streams = [0, 1].map((i) => {
    const branch = new ReadableStream({
      pull,
      cancel(reason) {
        canceled[i] = true;
        reasons[i] = reason;
        if (canceled[1 - i]) cancelDone.resolve(reader.cancel(reasons));
        return cancelDone.promise;
      },
    });
    branches.push(streamState(branch));
    branches[i].bytes = streamState(stream).bytes;
    return branch;
  });
  reader.closed.catch((e) => {
    for (const b of branches) readableError(b, e);
    if (!(canceled[0] && canceled[1])) cancelDone.resolve(undefined);
  });
  return streams;
}

// bytesState is the state of the stream of a body whose bytes make gives when asked.
function bytesState(make) {
  return streamState(new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const bytes = await make();
      if (bytes.byteLength > 0) controller.enqueue(bytes);
      controller.close();
    },
  }, { highWaterMark: 0 }));
}

// CONSUMED_STATE is that of a body which has been read without its stream: as if by a
// reader that was never released. Nothing changes it, so all such bodies share it.
const CONSUMED_STATE = { ...readableState(), state: "closed", reader: { requests: [], closed: null }, disturbed: true, bytes: true };

// collectStream reads a stream of bytes to its end.
async function collectStream(stream) {
  const reader = readerFor(stream);
  const parts = [];
  let total = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return concatBytes(parts, total);
    if (typedArrayName(value) !== "Uint8Array") {
      const e = new TypeError("A body's stream must give Uint8Array chunks");
      await reader.cancel(e);
      throw e;
    }
    parts.push(value);
    total += value.byteLength;
  }
}

publish(ReadableStream, ReadableStreamDefaultReader, ReadableStreamDefaultController);
