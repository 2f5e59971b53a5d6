// The rest of the global object, and what must not be on it.
class Navigator {
  get userAgent() { return "Casemate"; }
  get language() { return "en"; }
  get hardwareConcurrency() { return 1; }
}

let timeOrigin = null; // set when first asked: the module may have loaded long ago
let monotonicOrigin = 0;

function startClock() {
  monotonicOrigin = __native.monotonic();
  timeOrigin = Date.now();
}

class Performance extends EventTarget {
  get timeOrigin() {
    if (timeOrigin === null) startClock();
    return timeOrigin;
  }

  now() {
    if (timeOrigin === null) startClock();
    return __native.monotonic() - monotonicOrigin;
  }

  toJSON() { return { timeOrigin: this.timeOrigin }; }
}

publish(Navigator, Performance);
tag(DOMException.prototype, "DOMException");
globalValue("navigator", new Navigator(), true);
globalValue("performance", new Performance(), true);
globalValue("self", globalThis, true);
tag(globalThis, "global");
