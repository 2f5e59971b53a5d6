// AbortController and AbortSignal (https://dom.spec.whatwg.org/#aborting-ongoing-activities).
const SIGNAL_TOKEN = {};
let signalAbort, addAbortAlgorithm, removeAbortAlgorithm;

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  #algorithms = null;
  #dependents = null; // signals made by any() that follow this one
  #sources = null; // for a signal made by any(): what it follows

  constructor(token = undefined) {
    if (token !== SIGNAL_TOKEN) throw new TypeError("Illegal constructor");
    super();
  }

  static {
    signalAbort = (s, reason) => s.#abort(reason);
    addAbortAlgorithm = (s, f) => {
      if (!s.#aborted) (s.#algorithms ??= []).push(f);
    };
    removeAbortAlgorithm = (s, f) => {
      const at = s.#algorithms === null ? -1 : s.#algorithms.indexOf(f);
      if (at >= 0) s.#algorithms.splice(at, 1);
    };
  }

  static abort(reason = undefined) {
    const s = new AbortSignal(SIGNAL_TOKEN);
    s.#aborted = true;
    s.#reason = reason === undefined ? abortError() : reason;
    return s;
  }

  static timeout(milliseconds) {
    needArguments(arguments.length, 1, "AbortSignal.timeout");
    const ms = Number(milliseconds);
    if (!(ms >= 0 && ms <= Number.MAX_SAFE_INTEGER)) throw new RangeError("AbortSignal.timeout: the time is out of range");
    const s = new AbortSignal(SIGNAL_TOKEN);
    setTimeout(() => s.#abort(new DOMException("The operation was aborted due to timeout", "TimeoutError")), ms);
    return s;
  }

  static any(signals) {
    needArguments(arguments.length, 1, "AbortSignal.any");
    const list = [...signals];
    for (const s of list) if (!isObject(s) || !(#aborted in s)) throw new TypeError("AbortSignal.any: every element must be an AbortSignal");
    const result = new AbortSignal(SIGNAL_TOKEN);
    for (const s of list) {
      if (s.#aborted) {
        result.#aborted = true;
        result.#reason = s.#reason;
        return result;
      }
    }
    result.#sources = [];
    for (const s of list) {
      for (const source of s.#sources ?? [s]) {
        if (result.#sources.includes(source)) continue;
        result.#sources.push(source);
        (source.#dependents ??= []).push(result);
      }
    }
    return result;
  }

  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }

  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }

  #abort(reason) {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason === undefined ? abortError() : reason;
    const followers = [];
    for (const d of this.#dependents ?? []) {
      if (d.#aborted) continue;
      d.#aborted = true;
      d.#reason = this.#reason;
      followers.push(d);
    }
    this.#run();
    for (const d of followers) d.#run();
  }

  #run() {
    const algorithms = this.#algorithms;
    this.#algorithms = null;
    for (const f of algorithms ?? []) f(this.#reason);
    this.dispatchEvent(new Event("abort"));
  }
}
defineEventHandler(AbortSignal, "abort");

class AbortController {
  #signal = new AbortSignal(SIGNAL_TOKEN);

  get signal() { return this.#signal; }

  abort(reason = undefined) {
    signalAbort(this.#signal, reason);
  }
}

function abortError() {
  return new DOMException("This operation was aborted", "AbortError");
}

publish(AbortSignal, AbortController);
