// From the engine to the function's handler and back. See NATIVES.md for who
// calls what.
let target; // the module's default export
let fetchHandler, scheduledHandler, queueHandler;
let env;
let kept; // see shapes, which would be freed otherwise

function install(value) {
  const isClass = typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));
  if (isClass) throw new TypeError("the module's default export is a class; export an instance of it, or an object with a fetch function");
  if (typeof value === "function") {
    target = undefined;
    fetchHandler = value;
  } else if (typeof value === "object" && value !== null) {
    target = value;
    fetchHandler = handlerOf(value, "fetch");
    scheduledHandler = handlerOf(value, "scheduled");
    queueHandler = handlerOf(value, "queue");
  }
  if (fetchHandler === undefined && scheduledHandler === undefined && queueHandler === undefined) {
    throw new TypeError("the module must have a default export with a fetch, scheduled or queue function: export default { async fetch(request, env, ctx) { … } }");
  }
  env = {};
  for (const pair of __native.environ()) {
    const at = pair.indexOf("=");
    // Defined, not assigned: a variable may be called __proto__.
    defineProperty(env, pair.slice(0, at), { value: pair.slice(at + 1), enumerable: true });
  }
  freeze(env);
  kept = shapes;
  // What each invocation needs is made here, before the snapshot: an invocation
  // finds it ready. One that follows another without a restore makes its own.
  live = newLive(new Request(INVOCATION), new ExecutionContext());
}

function nextContext() {
  const ctx = live.context ?? new ExecutionContext();
  live.context = null;
  return ctx;
}

function handlerOf(value, name) {
  const f = value[name];
  if (f === undefined || f === null) return undefined;
  if (typeof f !== "function") throw new TypeError(`${name} of the module's default export is not a function`);
  return f;
}

class ExecutionContext {
  waitUntil(promise) {
    needArguments(arguments.length, 1, "ctx.waitUntil");
    (live.waiting ??= []).push(promise);
  }

  passThroughOnException() {
    throw new Error("ctx.passThroughOnException is not supported: there is nothing behind the function to pass to");
  }
}
tag(ExecutionContext.prototype, "ExecutionContext");

// dispatch begins the invocation. Errors that it throws fail the invocation.
function dispatch(trigger, method, path, query, bodyLength) {
  live.serving = true;
  live.waiting = null;
  live.head = null;
  if (trigger === "schedule") return settle(dispatchSchedule(), answerEmpty);
  if (trigger === "queue") return dispatchQueue();
  if (fetchHandler === undefined) throw missingHandler("fetch", trigger);
  const value = fetchHandler.call(target, nextRequest(method, bodyLength), env, nextContext());
  return isResponse(value) ? answerResponse(value) : settle(value, answerResponse);
}

// settle calls then(value) now when the value is there already, else later.
function settle(value, then) {
  switch (settled(value)) {
    case -1:
      if (!isObject(value) || typeof value.then !== "function") return then(value);
      value = Promise.resolve(value);
      break;
    case 1: return then(result(value));
  }
  whenSettled(value, (v) => {
    try {
      const more = then(v);
      if (more !== undefined) more.catch(__native.fail);
    } catch (e) {
      __native.fail(e);
    }
  }, __native.fail);
  return undefined;
}

function answerResponse(response) {
  if (!isResponse(response)) throw new TypeError(`the fetch handler must return a Response, not ${describeValue(response)}`);
  const sent = sendResponse(response);
  if (sent === undefined) return end();
  return sent.then(end).catch(__native.fail);
}

function answerEmpty() {
  answer(204, [], null);
  return end();
}

// end tells the engine that nothing more is to come, once waitUntil's promises
// have settled. What they reject with is logged; the answer stands.
function end() {
  const list = live.waiting;
  if (list === null) return finish();
  live.waiting = null;
  return Promise.allSettled(list).then((results) => {
    for (const r of results) if (r.status === "rejected") reportError(r.reason);
    end();
  });
}

function describeValue(v) {
  if (v === null) return "null";
  if (typeof v === "object") return `an object of type ${v.constructor?.name || "Object"}`;
  return v === undefined ? "undefined" : `a ${typeof v}`;
}

function missingHandler(name, trigger) {
  return new TypeError(`the function was called by trigger "${trigger}", but its default export has no ${name} function`);
}

// invocation is request.casemate.
function invocation() {
  if (live.head === null) {
    const head = __native.head();
    live.head = freeze({
      id: head.id, caller: head.caller, params: freeze(head.params ?? {}), trigger: head.trigger, deadline: head.deadline,
    });
  }
  return live.head;
}

function dispatchSchedule() {
  if (scheduledHandler === undefined) throw missingHandler("scheduled", "schedule");
  const given = jsonBody("schedule");
  const controller = {
    scheduledTime: typeof given.scheduledTime === "string" ? Date.parse(given.scheduledTime) : given.scheduledTime ?? Date.now(),
    cron: given.cron ?? "",
    type: "scheduled",
    noRetry() {},
  };
  return apply(scheduledHandler, target, [controller, env, nextContext()]);
}

function jsonBody(what) {
  const text = __native.bodyText();
  if (text === "") return {};
  try {
    return JSON.parse(text);
  } catch (e) {
    throw new TypeError(`the body of a ${what} invocation must be JSON: ${e.message}`);
  }
}

class Message {
  #retry;
  #explicit = false; // whether ack or retry was called on this message

  constructor(m) {
    this.id = m.id;
    this.timestamp = new Date(m.timestamp ?? Date.now());
    this.body = m.body;
    this.attempts = m.attempts ?? 1;
    this.#retry = false;
    freeze(this);
  }

  static retryWanted(m) { return m.#retry; }
  static decideAll(m, retry) { if (!m.#explicit) m.#retry = retry; }

  ack() { this.#decide(false); }
  retry() { this.#decide(true); }

  // The first word counts.
  #decide(retry) {
    if (this.#explicit) return;
    this.#explicit = true;
    this.#retry = retry;
  }
}
const { retryWanted, decideAll } = Message;
delete Message.retryWanted;
delete Message.decideAll;

function dispatchQueue() {
  if (queueHandler === undefined) throw missingHandler("queue", "queue");
  const given = jsonBody("queue");
  if (!isArray(given.messages)) throw new TypeError("the body of a queue invocation must hold a list of messages");
  const messages = given.messages.map((m) => new Message(m));
  const batch = freeze({
    queue: given.queue ?? "",
    messages: freeze(messages.slice()),
    ackAll() { for (const m of messages) decideAll(m, false); },
    retryAll() { for (const m of messages) decideAll(m, true); },
  });
  return settle(apply(queueHandler, target, [batch, env, nextContext()]), () => {
    const retry = messages.filter(retryWanted).map((m) => m.id);
    answer(200, ["content-type", "application/json"], JSON.stringify({ retry }));
    return end();
  });
}

// The shapes of what many invocations make; see keepShape in NATIVES.md.
const shapes = [
  new Response(""), new Headers(), new Request("http://localhost/"), new URL("http://localhost/"), new URLSearchParams(""),
  new ReadableStream(STREAM_TOKEN, CONSUMED_STATE), { value: undefined, done: true },
].map((v) => __native.keepShape(v));

delete globalThis.gc;
return { install, dispatch, tick, explain };
