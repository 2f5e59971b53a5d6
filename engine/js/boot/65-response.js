// Response (https://fetch.spec.whatwg.org/#response-class).
const JSON_TOKEN = {};
let sendResponse, isResponse;

class Response {
  // The order and the initial values spare the constructor of a usual answer most
  // of its work: each costs as much as a call.
  #status = 200; // 0 for Response.error()
  #statusText = "";
  #list; // of its headers
  #headers = null; // the Headers object of the list, once somebody has asked
  #body = null;

  constructor(body = null, init = undefined) {
    if (init === undefined) {
      if (typeof body === "string") {
        this.#list = ["content-type", TEXT_TYPE];
        this.#body = body;
        return;
      }
      if (body === JSON_TOKEN) return; // json() does the rest
    }
    let status = 200;
    const headers = this.#list = [];
    if (init !== undefined && init !== null) {
      if (!isObject(init)) throw new TypeError("Response options must be an object");
      const s = init.status;
      if (s !== undefined && s !== 200) {
        status = toStatus(s);
        if (status < 200 || status > 599) throw new RangeError(`The status provided (${status}) is outside the range [200, 599].`);
      }
      const text = init.statusText;
      if (text !== undefined && text !== "") this.#statusText = reasonPhrase(text);
      const h = init.headers;
      if (h !== undefined) fillList(headers, h);
    }
    if (status !== 200) this.#status = status;
    if (body !== null && body !== undefined) {
      if (isNullBodyStatus(status)) throw new TypeError(`Response with null body status cannot have body: ${status}`);
      const source = this.#body = typeof body === "string" ? body : bodySource(body);
      if (!listHas(headers, "content-type")) {
        const type = typeof body === "string" ? TEXT_TYPE : bodyType(body, source);
        if (type !== null) headers.push("content-type", type);
      }
    }
  }

  static {
    isResponse = (v) => typeof v === "object" && v !== null && #status in v;

    // sendResponse hands the answer to the engine: at once, or by the promise it
    // returns when the body is a stream.
    sendResponse = (r) => {
      const status = r.#status;
      if (status === 0) throw new TypeError("The handler returned Response.error(), which cannot be sent");
      let slot = r.#body;
      if (slot !== null && typeof slot !== "string") {
        if (slotUnusable(slot)) throw new TypeError("The handler returned a response whose body has already been read");
        slot = takeSlot(slot);
      }
      const list = r.#list;
      if (slot === null || typeof slot === "string") {
        answer(status, list, slot);
        return undefined;
      }
      const bytes = slotBytes(slot);
      if (bytes instanceof Promise) return bytes.then((b) => answer(status, list, b));
      answer(status, list, bytes);
      return undefined;
    };
  }

  static error() {
    const r = new Response();
    r.#status = 0;
    r.#list = [];
    r.#headers = new Headers(HEADERS_TOKEN, r.#list, true);
    return r;
  }

  static json(data, init = undefined) {
    const text = stringify(data);
    if (text === undefined) throw new TypeError("Response.json: the value is not JSON serializable");
    if (init === undefined) {
      const r = new Response(JSON_TOKEN);
      r.#list = ["content-type", "application/json"];
      r.#body = text;
      return r;
    }
    const r = new Response(null, init);
    if (isNullBodyStatus(r.#status)) throw new TypeError(`Response with null body status cannot have body: ${r.#status}`);
    r.#body = text;
    if (!listHas(r.#list, "content-type")) r.#list.push("content-type", "application/json");
    return r;
  }

  static redirect(url, status = 302) {
    needArguments(arguments.length, 1, "Response.redirect");
    const parsed = parseURL(usv(url), null);
    if (parsed === null) throw new TypeError(`Failed to parse URL from ${url}: a redirect needs an absolute URL`);
    status = toStatus(status);
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`Invalid redirect status code ${status}`);
    const r = new Response();
    r.#status = status;
    r.#list = ["location", serialiseURL(parsed)];
    r.#headers = new Headers(HEADERS_TOKEN, r.#list, true);
    return r;
  }

  get type() { return this.#status === 0 ? "error" : "default"; }
  get url() { this.#status; return ""; }
  get redirected() { this.#status; return false; }
  get status() { return this.#status; }
  get ok() { return this.#status >= 200 && this.#status <= 299; }
  get statusText() { return this.#statusText; }

  get headers() {
    return this.#headers ??= new Headers(HEADERS_TOKEN, this.#list, false);
  }

  get body() {
    if (this.#body === null) return null;
    return this.#body = slotStream(this.#body);
  }

  get bodyUsed() { return slotUsed(this.#body); }

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
    if (slotUnusable(this.#body)) throw new TypeError("Response.clone: Body has already been consumed.");
    const r = new Response();
    r.#status = this.#status;
    r.#statusText = this.#statusText;
    r.#list = this.#list.slice();
    [this.#body, r.#body] = cloneSlot(this.#body);
    return r;
  }

  #take() {
    const slot = this.#body;
    if (slot === null) return null;
    if (typeof slot !== "string") {
      if (slotUnusable(slot)) return UNUSABLE;
      if (isStreamSlot(slot)) return takeBody(slot) ?? slot;
    }
    this.#body = CONSUMED;
    return slot;
  }
}

function isNullBodyStatus(status) {
  return status === 204 || status === 205 || status === 304;
}

// toStatus is Web IDL's unsigned short.
function toStatus(v) {
  return Number(v) & 0xffff;
}

function reasonPhrase(text) {
  text = `${text}`;
  if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(text)) throw new TypeError("Invalid statusText");
  return text;
}

publish(Response);
