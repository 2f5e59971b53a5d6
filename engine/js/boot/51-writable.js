// WritableStream (https://streams.spec.whatwg.org/#ws-class) and piping.
let isWritableStream, writableStateOf;

// A stream's state: {state: writable|erroring|errored|closed, error, writer,
// queue of {chunk, size, done} where chunk CLOSE ends it, inFlight, abort}.
const CLOSE = { close: true };

function writableNew(s, sink, strategy, mark) {
  const { size, highWaterMark } = strategyOf(strategy, mark);
  Object.assign(s, {
    state: "writable", error: undefined, writer: null, queue: [], total: 0, size, mark: highWaterMark,
    inFlight: null, closing: null, pendingAbort: null, started: false, backpressure: false, abortController: new AbortController(), ...sink,
  });
  s.backpressure = writableWanted(s) <= 0;
}

function writableStart(s, start) {
  const result = start?.();
  Promise.resolve(result).then(() => {
    s.started = true;
    writableAdvance(s);
  }, (e) => {
    s.started = true;
    writableFail(s, e);
  });
}

function writableWanted(s) {
  return s.mark - s.total;
}

function writableWrite(s, chunk) {
  let size;
  try {
    size = chunkSize(s.size, chunk);
  } catch (e) {
    writableFail(s, e);
    return Promise.reject(e);
  }
  if (s.state === "errored" || s.state === "erroring") return Promise.reject(s.error);
  if (s.closing !== null || s.state === "closed") return Promise.reject(new TypeError("Invalid state: the stream is closing or closed"));
  const done = deferred();
  s.queue.push({ chunk, size, done });
  s.total += size;
  writableBackpressure(s);
  writableAdvance(s);
  return done.promise;
}

function writableClose(s) {
  if (s.state === "closed" || s.state === "errored" || s.closing !== null) {
    return Promise.reject(new TypeError("Invalid state: the stream is closing, closed or has failed"));
  }
  const done = s.closing = deferred();
  s.queue.push({ chunk: CLOSE, size: 0, done });
  if (s.writer !== null && s.backpressure && s.state === "writable") s.writer.ready.resolve(undefined);
  writableAdvance(s);
  return done.promise;
}

function writableBackpressure(s) {
  if (s.state !== "writable" || s.closing !== null) return;
  const now = writableWanted(s) <= 0;
  if (now !== s.backpressure && s.writer !== null) {
    if (now) s.writer.ready = deferred();
    else s.writer.ready.resolve(undefined);
  }
  s.backpressure = now;
}

function writableAdvance(s) {
  if (!s.started || s.inFlight !== null) return;
  if (s.state === "erroring") {
    writableFinishErroring(s);
    return;
  }
  if (s.state !== "writable" || s.queue.length === 0) return;
  const item = s.inFlight = s.queue[0];
  const closing = item.chunk === CLOSE;
  if (closing) s.queue.shift();
  let result;
  try {
    result = Promise.resolve(closing ? s.close?.() : s.write?.(item.chunk, s.controller));
  } catch (e) {
    result = Promise.reject(e);
  }
  result.then(() => {
    s.inFlight = null;
    item.done.resolve(undefined);
    if (closing) {
      if (s.state === "erroring") {
        s.pendingAbort?.done.resolve(undefined);
        s.pendingAbort = null;
      }
      s.state = "closed";
      s.writer?.closed.resolve(undefined);
      return;
    }
    s.queue.shift();
    s.total = Math.max(0, s.total - item.size);
    writableBackpressure(s);
    writableAdvance(s);
  }, (e) => {
    s.inFlight = null;
    if (!closing) s.queue.shift();
    item.done.reject(e);
    if (closing && s.pendingAbort !== null) {
      s.pendingAbort.done.reject(e);
      s.pendingAbort = null;
    }
    writableFail(s, e);
    if (s.state === "erroring") writableFinishErroring(s);
  });
}

// writableFail begins to fail the stream: the write under way is waited for.
function writableFail(s, e) {
  if (s.state !== "writable") return;
  s.state = "erroring";
  s.error = e;
  if (s.writer !== null) writerNotReady(s.writer, e);
  if (s.inFlight === null && s.started) writableFinishErroring(s);
}

function writerNotReady(w, e) {
  w.ready.reject(e);
  if (__native.settled(w.ready.promise) === 1) w.ready = deferred();
  w.ready.reject(e);
}

function writableFinishErroring(s) {
  if (s.inFlight !== null || !s.started || s.state !== "erroring") return;
  s.state = "errored";
  for (const item of s.queue.splice(0)) item.done.reject(s.error);
  s.total = 0;
  const abort = s.pendingAbort;
  s.pendingAbort = null;
  const closed = () => s.writer?.closed.reject(s.error);
  if (abort === null || abort.wasErroring) {
    abort?.done.reject(s.error);
    closed();
    return;
  }
  let result;
  try {
    result = Promise.resolve(s.abort?.(abort.reason));
  } catch (e) {
    result = Promise.reject(e);
  }
  result.then(() => {
    abort.done.resolve(undefined);
    closed();
  }, (e) => {
    abort.done.reject(e);
    closed();
  });
}

function writableAbort(s, reason) {
  if (s.state === "closed" || s.state === "errored") return Promise.resolve(undefined);
  signalAbort(s.abortController.signal, reason);
  if (s.state === "closed" || s.state === "errored") return Promise.resolve(undefined);
  if (s.pendingAbort !== null) return s.pendingAbort.done.promise;
  const wasErroring = s.state === "erroring";
  const done = deferred();
  s.pendingAbort = { done, reason: wasErroring ? undefined : reason, wasErroring };
  if (!wasErroring) writableFail(s, reason);
  return done.promise;
}

class WritableStreamDefaultController {
  #s;

  constructor(token = undefined, s = undefined) {
    if (token !== STREAM_TOKEN) throw new TypeError("Illegal constructor");
    this.#s = s;
  }

  get signal() { return this.#s.abortController.signal; }
  error(e = undefined) { if (this.#s.state === "writable") writableFail(this.#s, e); }
}

class WritableStreamDefaultWriter {
  #s; // null once released
  #state;

  constructor(stream) {
    needArguments(arguments.length, 1, "WritableStreamDefaultWriter");
    if (!isObject(stream) || !isWritableStream(stream)) throw new TypeError("WritableStreamDefaultWriter: the argument must be a WritableStream");
    const s = writableStateOf(stream);
    if (s.writer !== null) throw new TypeError("Invalid state: WritableStream is locked");
    const w = this.#state = s.writer = { ready: deferred(), closed: deferred() };
    this.#s = s;
    if (s.state === "closed") {
      w.ready.resolve(undefined);
      w.closed.resolve(undefined);
    } else if (s.state !== "writable") {
      w.ready.reject(s.error);
      if (s.state === "errored") w.closed.reject(s.error);
    } else if (!s.backpressure || s.closing !== null) {
      w.ready.resolve(undefined);
    }
  }

  get closed() { return this.#state.closed.promise; }
  get ready() { return this.#state.ready.promise; }

  get desiredSize() {
    const s = this.#held();
    if (s.state === "errored" || s.state === "erroring") return null;
    return s.state === "closed" ? 0 : writableWanted(s);
  }

  write(chunk = undefined) { return this.#s === null ? this.#gone() : writableWrite(this.#s, chunk); }
  close() { return this.#s === null ? this.#gone() : writableClose(this.#s); }
  abort(reason = undefined) { return this.#s === null ? this.#gone() : writableAbort(this.#s, reason); }

  releaseLock() {
    const s = this.#s;
    if (s === null) return;
    const e = new TypeError("Invalid state: the writer has been released");
    writerNotReady(this.#state, e);
    if (__native.settled(this.#state.closed.promise) !== 0) this.#state.closed = deferred();
    this.#state.closed.reject(e);
    s.writer = null;
    this.#s = null;
  }

  #held() {
    if (this.#s === null) throw new TypeError("Invalid state: the writer has been released");
    return this.#s;
  }

  #gone() { return Promise.reject(new TypeError("Invalid state: the writer has been released")); }
}

class WritableStream {
  #s = {};

  constructor(sink = undefined, strategy = undefined) {
    if (sink === STREAM_TOKEN) return;
    if (sink === undefined) sink = {};
    if (!isObject(sink)) throw new TypeError("WritableStream: the underlying sink must be an object");
    if (sink.type !== undefined) throw new RangeError("WritableStream: the sink's type must be undefined");
    const s = this.#s;
    const start = methodOf(sink, "start", "underlying sink");
    writableNew(s, {
      write: methodOf(sink, "write", "underlying sink"),
      close: methodOf(sink, "close", "underlying sink"),
      abort: methodOf(sink, "abort", "underlying sink"),
      controller: new WritableStreamDefaultController(STREAM_TOKEN, s),
    }, strategy, 1);
    writableStart(s, start && (() => start(s.controller)));
  }

  static {
    isWritableStream = (v) => #s in v;
    writableStateOf = (v) => v.#s;
  }

  get locked() { return this.#s.writer !== null; }

  abort(reason = undefined) {
    if (this.locked) return Promise.reject(new TypeError("Invalid state: WritableStream is locked"));
    return writableAbort(this.#s, reason);
  }

  close() {
    if (this.locked) return Promise.reject(new TypeError("Invalid state: WritableStream is locked"));
    return writableClose(this.#s);
  }

  getWriter() { return new WritableStreamDefaultWriter(this); }
}

function pipeOptions(options) {
  options = dictionary(options, "The options for piping") ?? {};
  const signal = options.signal;
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw new TypeError("The signal for piping must be an AbortSignal");
  return { preventClose: Boolean(options.preventClose), preventAbort: Boolean(options.preventAbort), preventCancel: Boolean(options.preventCancel), signal };
}

// pipe moves everything from one stream to another; both are locked meanwhile.
async function pipe(from, to, { preventClose, preventAbort, preventCancel, signal }) {
  const source = streamState(from);
  const sink = writableStateOf(to);
  const reader = from.getReader();
  const writer = to.getWriter();
  source.disturbed = true;
  let lastWrite = RESOLVED;
  const stop = deferred(); // rejects with what ends the pipe early
  const onAbort = () => stop.reject(signal.reason);
  if (signal?.aborted) onAbort();
  else if (signal !== undefined) addAbortAlgorithm(signal, onAbort);
  const release = () => {
    if (signal !== undefined) removeAbortAlgorithm(signal, onAbort);
    writer.releaseLock();
    reader.releaseLock();
  };
  const sinkEnded = () => sink.state !== "writable" || sink.closing !== null;
  try {
    if (source.state !== "errored" && sinkEnded()) throw sink.error ?? new TypeError("Invalid state: the destination of the pipe is closed");
    const moved = (async () => {
      for (;;) {
        await Promise.race([writer.ready, writer.closed]);
        if (sinkEnded()) throw sink.error ?? new TypeError("Invalid state: the destination of the pipe is closed");
        const { value, done } = await reader.read();
        if (done) return;
        lastWrite = writer.write(value);
      }
    })();
    moved.catch(() => {});
    await Promise.race([moved, stop.promise, writer.closed.then(() => moved)]);
    await lastWrite;
    if (!preventClose && sink.closing === null) await writer.close();
    release();
  } catch (e) {
    await lastWrite.catch(() => {});
    const aborted = signal?.aborted && e === signal.reason;
    const ends = [];
    if ((aborted || source.state === "errored") && !preventAbort && sink.state === "writable") ends.push(writer.abort(e));
    if ((aborted || source.state !== "errored") && !preventCancel && source.state === "readable") ends.push(reader.cancel(e));
    const results = await Promise.allSettled(ends);
    release();
    const failed = results.find((r) => r.status === "rejected");
    throw failed !== undefined && !aborted ? failed.reason : e;
  }
  return undefined;
}

publish(WritableStream, WritableStreamDefaultWriter, WritableStreamDefaultController);
