// Request (https://fetch.spec.whatwg.org/#request-class).
//
// The request of an invocation is made with nothing but its method: its URL,
// headers and body stay with the engine until somebody reads them.
const INVOCATION = {};
const DEFAULT_REQUEST = freeze({
  mode: "cors", credentials: "same-origin", cache: "default", redirect: "follow", referrer: "about:client",
  referrerPolicy: "", integrity: "", keepalive: false, duplex: "half",
});
const REQUEST_CHOICES = {
  mode: ["same-origin", "no-cors", "cors", "navigate"],
  credentials: ["omit", "same-origin", "include"],
  cache: ["default", "no-store", "reload", "no-cache", "force-cache", "only-if-cached"],
  redirect: ["follow", "error", "manual"],
  referrerPolicy: ["", "no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin",
    "origin-when-cross-origin", "strict-origin-when-cross-origin", "unsafe-url"],
  duplex: ["half"],
};
const NORMAL_METHODS = { GET: "GET", HEAD: "HEAD", POST: "POST", PUT: "PUT", DELETE: "DELETE", OPTIONS: "OPTIONS", PATCH: "PATCH" };

function normalMethod(method) {
  const known = NORMAL_METHODS[method];
  if (known !== undefined) return known;
  method = `${method}`;
  if (headerName(method) === null) throw new TypeError(`'${method}' is not a valid HTTP method`);
  const upper = method.toUpperCase();
  if (upper === "CONNECT" || upper === "TRACE" || upper === "TRACK") throw new TypeError(`The HTTP method '${method}' is not allowed`);
  return NORMAL_METHODS[upper] !== undefined && upper !== "PATCH" ? upper : method;
}

let nextRequest;

class Request {
  #method = "GET";
  #url = null; // null while it is still with the engine
  #list = null; // of its headers, null while still with the engine
  #headers = null; // the Headers object of the list, once somebody has asked
  #body = null;
  #signal = null;
  #more = DEFAULT_REQUEST;
  #incoming = false; // whether it is, or copies, the invocation's request

  constructor(input, init = undefined) {
    if (input === INVOCATION) {
      this.#incoming = true;
      return;
    }
    init = dictionary(init, "Request options");
    const from = isObject(input) && #method in input ? input : null;
    if (from === null) {
      this.#url = requestURL(input);
      this.#list = [];
    } else {
      this.#method = from.#method;
      this.#url = from.url;
      this.#more = from.#more;
      this.#incoming = from.#incoming;
      this.#list = init?.headers === undefined ? from.#copyHeaders() : [];
    }
    if (init !== undefined) this.#apply(init);
    const signal = init?.signal;
    if (signal !== undefined && signal !== null) {
      if (!(signal instanceof AbortSignal)) throw new TypeError("Request: signal must be an AbortSignal");
      this.#signal = AbortSignal.any([signal]);
    } else if (from !== null && signal === undefined && from.#signal !== null) {
      this.#signal = AbortSignal.any([from.#signal]);
    }
    const body = init?.body;
    const has = body !== undefined && body !== null;
    if ((has || (from !== null && from.#body !== null && body !== null)) && (this.#method === "GET" || this.#method === "HEAD")) {
      throw new TypeError("Request with GET/HEAD method cannot have body.");
    }
    if (has) {
      this.#body = bodySource(body);
      const type = bodyType(body, this.#body);
      if (type !== null && !listHas(this.#list, "content-type")) this.#list.push("content-type", type);
    } else if (from !== null && body !== null && from.#body !== null) {
      if (slotUnusable(from.#body)) throw new TypeError("Cannot construct a Request with a Request object that has already been used.");
      // The body moves: the request it came from counts as read.
      if (isStreamSlot(from.#body)) {
        this.#body = from.#body.pipeThrough(new TransformStream());
      } else {
        this.#body = from.#body;
        from.#body = CONSUMED;
      }
    }
  }

  // #apply takes over what init holds, but for the signal and the body.
  #apply(init) {
    if (init.window !== undefined && init.window !== null) throw new TypeError("Request: window must be null");
    let more = null;
    for (const key in DEFAULT_REQUEST) {
      let v = init[key];
      if (v === undefined) continue;
      if (key === "keepalive") v = Boolean(v);
      else v = `${v}`;
      const choices = REQUEST_CHOICES[key];
      if (choices !== undefined && !choices.includes(v)) throw new TypeError(`Request: '${v}' is not a valid value for ${key}`);
      if (key === "mode" && v === "navigate") throw new TypeError("Request: mode cannot be navigate");
      if (key === "referrer") v = v === "" ? "" : referrerURL(v);
      more ??= { ...this.#more };
      more[key] = v;
    }
    if (more !== null) {
      if (more.cache === "only-if-cached" && more.mode !== "same-origin") throw new TypeError("Request: cache only-if-cached needs mode same-origin");
      this.#more = more;
    }
    if (init.method !== undefined) this.#method = normalMethod(init.method);
    if (init.headers !== undefined) fillList(this.#list, init.headers);
  }

  static {
    nextRequest = (method, bodyLength) => {
      const r = live.request ?? new Request(INVOCATION);
      live.request = null;
      if (method !== "GET") r.#method = method;
      if (bodyLength > 0) r.#body = INCOMING;
      return r;
    };
  }

  get method() { return this.#method; }
  get url() { return this.#url ??= __native.url(); }

  get headers() {
    const h = this.#headers;
    if (h !== null) return h;
    const incoming = this.#list === null;
    if (incoming) this.#list = __native.headers();
    return this.#headers = new Headers(HEADERS_TOKEN, this.#list, incoming);
  }

  get body() {
    if (this.#body === null) return null;
    return this.#body = slotStream(this.#body);
  }

  get bodyUsed() { return slotUsed(this.#body); }
  get signal() { return this.#signal ??= new AbortController().signal; }
  get destination() { return ""; }
  get referrer() { return this.#more.referrer; }
  get referrerPolicy() { return this.#more.referrerPolicy; }
  get mode() { return this.#more.mode; }
  get credentials() { return this.#more.credentials; }
  get cache() { return this.#more.cache; }
  get redirect() { return this.#more.redirect; }
  get integrity() { return this.#more.integrity; }
  get keepalive() { return this.#more.keepalive; }
  get duplex() { return "half"; }
  get isReloadNavigation() { return false; }
  get isHistoryNavigation() { return false; }

  // What the platform knows of the invocation; undefined for a request that the function made.
  get casemate() { return this.#incoming ? invocation() : undefined; }

  text() {
    const slot = this.#take();
    return slot === UNUSABLE ? unusable() : bodyText(slot);
  }

  json() {
    const slot = this.#take();
    return slot === UNUSABLE ? unusable() : bodyJSON(slot);
  }

  arrayBuffer() { return bodyBytes(this.#take(), exactBuffer); }
  bytes() { return bodyBytes(this.#take(), (b) => b); }
  blob() { return bodyBlob(this.#take(), this.headers.get("content-type")); }
  formData() { return bodyFormData(this.#take(), this.headers.get("content-type")); }

  clone() {
    if (slotUnusable(this.#body)) throw new TypeError("Request.clone: Body has already been consumed.");
    const r = new Request(INVOCATION);
    r.#method = this.#method;
    r.#url = this.#url;
    r.#list = this.#copyHeaders();
    r.#more = this.#more;
    r.#incoming = this.#incoming;
    if (r.#url === null) r.#url = this.url;
    if (this.#signal !== null) r.#signal = AbortSignal.any([this.#signal]);
    [this.#body, r.#body] = cloneSlot(this.#body);
    return r;
  }

  #copyHeaders() {
    return this.#list === null ? __native.headers() : this.#list.slice();
  }

  #take() {
    const slot = this.#body;
    if (slot === null) return null;
    if (typeof slot !== "string" && slot !== INCOMING) {
      if (slotUnusable(slot)) return UNUSABLE;
      if (isStreamSlot(slot)) return takeBody(slot) ?? slot;
    }
    this.#body = CONSUMED;
    return slot;
  }
}

function requestURL(input) {
  const text = usv(input);
  if (urlScan(text, live.offsets)) return text;
  const url = parseURL(text, null);
  if (url === null) throw new TypeError(`Failed to parse URL from ${text}`);
  if (url.username !== "" || url.password !== "") throw new TypeError(`Request cannot be constructed from a URL that includes credentials: ${text}`);
  return serialiseURL(url);
}

function referrerURL(text) {
  const url = parseURL(text, null);
  if (url === null) throw new TypeError(`Referrer "${text}" is not a valid URL.`);
  return serialiseURL(url) === "about:client" ? "about:client" : serialiseURL(url);
}

publish(Request);
