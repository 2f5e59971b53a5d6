// Event, CustomEvent, EventTarget (https://dom.spec.whatwg.org): no tree, so an
// event has one target and no phases but AT_TARGET.
let setEventState;

class Event {
  #type;
  #bubbles;
  #cancelable;
  #composed;
  #time;
  #target = null;
  #current = null;
  #phase = 0;
  #dispatching = false;
  #canceled = false;
  #stopped = false;
  #stoppedNow = false;
  #passive = false;

  constructor(type, init = undefined) {
    needArguments(arguments.length, 1, "Event");
    this.#type = `${type}`;
    init = dictionary(init, "Event options");
    this.#bubbles = Boolean(init?.bubbles);
    this.#cancelable = Boolean(init?.cancelable);
    this.#composed = Boolean(init?.composed);
    this.#time = __native.monotonic();
  }

  static {
    // The one way in for EventTarget.dispatchEvent.
    setEventState = (e, target) => {
      if (e.#dispatching) throw new DOMException("The event is already being dispatched.", "InvalidStateError");
      e.#dispatching = true;
      e.#target = target;
      e.#current = target;
      e.#phase = 2;
      return {
        stopped: () => e.#stoppedNow,
        passive: (on) => { e.#passive = on; },
        end: () => {
          e.#dispatching = false;
          e.#current = null;
          e.#phase = 0;
          e.#stopped = false;
          e.#stoppedNow = false;
          return !e.#canceled;
        },
      };
    };
  }

  get type() { return this.#type; }
  get target() { return this.#target; }
  get srcElement() { return this.#target; }
  get currentTarget() { return this.#current; }
  get eventPhase() { return this.#phase; }
  get bubbles() { return this.#bubbles; }
  get cancelable() { return this.#cancelable; }
  get composed() { return this.#composed; }
  get defaultPrevented() { return this.#canceled; }
  get returnValue() { return !this.#canceled; }
  get timeStamp() { return this.#time; }
  get isTrusted() { return false; }
  get cancelBubble() { return this.#stopped; }
  set cancelBubble(v) { if (v) this.#stopped = true; }

  composedPath() { return this.#current === null ? [] : [this.#current]; }
  stopPropagation() { this.#stopped = true; }

  stopImmediatePropagation() {
    this.#stopped = true;
    this.#stoppedNow = true;
  }

  preventDefault() {
    if (this.#cancelable && !this.#passive) this.#canceled = true;
  }
}
for (const [name, value] of [["NONE", 0], ["CAPTURING_PHASE", 1], ["AT_TARGET", 2], ["BUBBLING_PHASE", 3]]) {
  defineProperty(Event, name, { value, enumerable: true });
  defineProperty(Event.prototype, name, { value, enumerable: true });
}

class CustomEvent extends Event {
  #detail;

  constructor(type, init = undefined) {
    needArguments(arguments.length, 1, "CustomEvent");
    super(type, init);
    this.#detail = init?.detail ?? null;
  }

  get detail() { return this.#detail; }
}

class EventTarget {
  #listeners = null; // list of {type, callback, capture, once, passive, removed}

  addEventListener(type, callback, options = undefined) {
    needArguments(arguments.length, 2, "EventTarget.addEventListener");
    type = `${type}`;
    const flags = isObject(options) ? options : { capture: options };
    const signal = flags.signal;
    if (signal !== undefined && !(signal instanceof AbortSignal)) throw new TypeError("EventTarget.addEventListener: signal must be an AbortSignal");
    if (callback === null || callback === undefined) return;
    if (!isObject(callback)) throw new TypeError("EventTarget.addEventListener: the listener must be a function or an object");
    if (signal !== undefined && signal.aborted) return;
    const capture = Boolean(flags.capture);
    this.#listeners ??= [];
    if (this.#listeners.some((l) => l.type === type && l.callback === callback && l.capture === capture)) return;
    this.#listeners.push({ type, callback, capture, once: Boolean(flags.once), passive: Boolean(flags.passive), removed: false });
    if (signal !== undefined) addAbortAlgorithm(signal, () => this.removeEventListener(type, callback, capture));
  }

  removeEventListener(type, callback, options = undefined) {
    needArguments(arguments.length, 2, "EventTarget.removeEventListener");
    if (this.#listeners === null) return;
    type = `${type}`;
    const capture = Boolean(isObject(options) ? options.capture : options);
    const at = this.#listeners.findIndex((l) => l.type === type && l.callback === callback && l.capture === capture);
    if (at >= 0) this.#listeners.splice(at, 1)[0].removed = true;
  }

  dispatchEvent(event) {
    needArguments(arguments.length, 1, "EventTarget.dispatchEvent");
    if (!(event instanceof Event)) throw new TypeError("EventTarget.dispatchEvent: the argument must be an Event");
    const state = setEventState(event, this);
    const type = event.type;
    const run = this.#listeners === null ? [] : this.#listeners.filter((l) => l.type === type);
    for (const l of run) {
      if (l.removed) continue;
      if (l.once) this.removeEventListener(type, l.callback, l.capture);
      state.passive(l.passive);
      try {
        if (typeof l.callback === "function") l.callback.call(this, event);
        else l.callback.handleEvent(event);
      } catch (e) {
        reportError(e);
      }
      state.passive(false);
      if (state.stopped()) break;
    }
    return state.end();
  }
}

// defineEventHandler adds an on… attribute: one listener that can be replaced.
// It takes its place in the order when it is first set.
function defineEventHandler(cls, type) {
  const slot = Symbol(`on${type}`);
  defineProperty(cls.prototype, `on${type}`, {
    get() { return this[slot]?.handler ?? null; },
    set(v) {
      const handler = isObject(v) ? v : null;
      if (this[slot] === undefined) {
        const state = { handler };
        defineProperty(this, slot, { value: state });
        this.addEventListener(type, function (event) {
          if (typeof state.handler === "function" && state.handler.call(this, event) === false) event.preventDefault();
        });
        return;
      }
      this[slot].handler = handler;
    },
    enumerable: true,
    configurable: true,
  });
}

// reportError logs an exception that has nobody to go to: thrown by a listener
// or a timer. The invocation goes on.
function reportError(e) {
  needArguments(arguments.length, 1, "reportError");
  __native.print("error", `Uncaught ${inspectError(e)}`);
}

function inspectError(e) {
  return isObject(e) ? inspect(e) : String(e);
}

publish(Event, CustomEvent, EventTarget);
globalFunction(reportError);
