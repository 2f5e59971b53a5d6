// TransformStream (https://streams.spec.whatwg.org/#ts-class), the queuing
// strategies, and the text streams of the Encoding standard.
class TransformStreamDefaultController {
  #t;

  constructor(token = undefined, t = undefined) {
    if (token !== STREAM_TOKEN) throw new TypeError("Illegal constructor");
    this.#t = t;
  }

  get desiredSize() {
    const r = this.#t.readable;
    if (r.state === "errored") return null;
    return r.state === "closed" ? 0 : r.mark - r.total;
  }

  enqueue(chunk = undefined) { transformEnqueue(this.#t, chunk); }
  error(reason = undefined) { transformFail(this.#t, reason); }

  terminate() {
    const t = this.#t;
    if (t.readable.state === "readable" && !t.readable.closing) readableClose(t.readable);
    writableFail(t.writable, new TypeError("Invalid state: the transform has been terminated"));
    transformRelease(t);
  }
}

// t is {readable, writable: states; wanted: promise settled when the readable side
// wants data; transform, flush, cancel}.
function transformEnqueue(t, chunk) {
  try {
    readableEnqueue(t.readable, chunk);
  } catch (e) {
    if (t.readable.state === "errored") {
      transformFailWritable(t, t.readable.error);
      throw t.readable.error;
    }
    throw e;
  }
  if (t.readable.mark - t.readable.total <= 0 && !(t.readable.reader?.requests.length > 0)) transformHold(t);
}

function transformHold(t) {
  if (__native.settled(t.wanted.promise) !== 0) t.wanted = deferred();
}

function transformRelease(t) {
  t.wanted.resolve(undefined);
}

function transformFail(t, e) {
  readableError(t.readable, e);
  transformFailWritable(t, e);
}

function transformFailWritable(t, e) {
  writableFail(t.writable, e);
  transformRelease(t);
}

class TransformStream {
  #readable;
  #writable;

  constructor(transformer = undefined, writableStrategy = undefined, readableStrategy = undefined) {
    if (transformer === undefined) transformer = {};
    if (!isObject(transformer)) throw new TypeError("TransformStream: the transformer must be an object");
    if (transformer.readableType !== undefined) throw new RangeError("TransformStream: readableType must be undefined");
    if (transformer.writableType !== undefined) throw new RangeError("TransformStream: writableType must be undefined");
    const start = methodOf(transformer, "start", "transformer");
    const transform = methodOf(transformer, "transform", "transformer");
    const flush = methodOf(transformer, "flush", "transformer");
    const cancel = methodOf(transformer, "cancel", "transformer");
    const begun = Promise.withResolvers();
    begun.promise.catch(() => {});
    const t = { readable: null, writable: null, wanted: deferred(), ended: null };
    const controller = new TransformStreamDefaultController(STREAM_TOKEN, t);

    this.#writable = new WritableStream({
      start: () => begun.promise,
      async write(chunk) {
        await t.wanted.promise;
        if (t.writable.state === "erroring") throw t.writable.error;
        try {
          if (transform === undefined) transformEnqueue(t, chunk);
          else await transform(chunk, controller);
        } catch (e) {
          transformFail(t, e);
          throw e;
        }
      },
      async close() {
        try {
          await flush?.(controller);
        } catch (e) {
          transformFail(t, e);
          throw e;
        }
        if (t.readable.state === "errored") throw t.readable.error;
        if (t.readable.state === "readable" && !t.readable.closing) readableClose(t.readable);
      },
      async abort(reason) {
        try {
          await cancel?.(reason);
        } catch (e) {
          readableError(t.readable, e);
          throw e;
        }
        readableError(t.readable, reason);
      },
    }, writableStrategy ?? { highWaterMark: 1 });

    this.#readable = new ReadableStream({
      start: () => begun.promise,
      pull() {
        transformRelease(t);
        // As long as the writable side writes nothing, there is nothing to pull again.
        return undefined;
      },
      async cancel(reason) {
        try {
          await cancel?.(reason);
        } finally {
          transformFailWritable(t, reason);
        }
      },
    }, readableStrategy ?? { highWaterMark: 0 });

    t.readable = streamState(this.#readable);
    t.writable = writableStateOf(this.#writable);
    if (start === undefined) begun.resolve(undefined);
    else begun.resolve(start(controller));
  }

  get readable() { return this.#readable; }
  get writable() { return this.#writable; }
}

class ByteLengthQueuingStrategy {
  #mark;

  constructor(init) {
    needArguments(arguments.length, 1, "ByteLengthQueuingStrategy");
    this.#mark = strategyMark(init);
  }

  get highWaterMark() { return this.#mark; }
  get size() { return byteLengthSize; }
}

class CountQueuingStrategy {
  #mark;

  constructor(init) {
    needArguments(arguments.length, 1, "CountQueuingStrategy");
    this.#mark = strategyMark(init);
  }

  get highWaterMark() { return this.#mark; }
  get size() { return countSize; }
}

const { byteLengthSize, countSize } = {
  byteLengthSize: { size(chunk) { return chunk.byteLength; } }.size,
  countSize: { size() { return 1; } }.size,
};

function strategyMark(init) {
  const mark = dictionary(init, "The queuing strategy")?.highWaterMark;
  if (mark === undefined) throw new TypeError("A queuing strategy needs a highWaterMark");
  return Number(mark);
}

class TextEncoderStream {
  #transform;

  constructor() {
    let high = ""; // a high surrogate whose other half may come with the next chunk
    this.#transform = new TransformStream({
      transform(chunk, controller) {
        let text = high + `${chunk}`;
        high = "";
        if (/[\ud800-\udbff]$/.test(text)) {
          high = text.slice(-1);
          text = text.slice(0, -1);
        }
        if (text !== "") controller.enqueue(utf8Encode(text));
      },
      flush(controller) {
        if (high !== "") controller.enqueue(utf8Encode(high));
      },
    });
  }

  get encoding() { return "utf-8"; }
  get readable() { return this.#transform.readable; }
  get writable() { return this.#transform.writable; }
}

class TextDecoderStream {
  #decoder;
  #transform;

  constructor(label = "utf-8", options = undefined) {
    const decoder = this.#decoder = new TextDecoder(label, options);
    this.#transform = new TransformStream({
      transform(chunk, controller) {
        const text = decoder.decode(chunk, { stream: true });
        if (text !== "") controller.enqueue(text);
      },
      flush(controller) {
        const text = decoder.decode();
        if (text !== "") controller.enqueue(text);
      },
    });
  }

  get encoding() { return this.#decoder.encoding; }
  get fatal() { return this.#decoder.fatal; }
  get ignoreBOM() { return this.#decoder.ignoreBOM; }
  get readable() { return this.#transform.readable; }
  get writable() { return this.#transform.writable; }
}

publish(TransformStream, TransformStreamDefaultController, ByteLengthQueuingStrategy, CountQueuingStrategy, TextEncoderStream, TextDecoderStream);
