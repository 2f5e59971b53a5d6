// URL (https://url.spec.whatwg.org/#url-class).
//
// Most URLs a function sees are http URLs in their normal form already. For
// those urlScan says where the parts are, and a URL object is the string alone;
// a record is made when a setter or a base needs one.

function offsetsOf(href) {
  const s = live;
  if (s.scanned !== href) {
    urlScan(href, s.offsets);
    s.scanned = href;
  }
  return s.offsets;
}

// recordOf parses text that may be in normal form, as a URL on its own.
function recordOf(text) {
  const o = live.offsets;
  if (!urlScan(text, o)) return parseURL(text, null);
  live.scanned = text;
  const url = newRecord(text.slice(0, o[0] - 1));
  url.host = text.slice(o[0] + 2, o[1]);
  if (o[2] > o[1]) url.port = Number(text.slice(o[1] + 1, o[2]));
  url.path = text.slice(o[2] + 1, o[3]).split("/");
  if (o[4] > o[3]) url.query = text.slice(o[3] + 1, o[4]);
  if (o[5] > o[4]) url.fragment = text.slice(o[4] + 1);
  return url;
}

function urlError(text) {
  return new TypeError(`Invalid URL: ${JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)}`);
}

// parseWithBase gives a record or null for what URL's constructor is given.
function parseWithBase(text, base) {
  if (base === undefined) return recordOf(text);
  const record = recordOf(usv(base));
  return record === null ? null : parseURL(text, record);
}

// joinPath is the quick way for a path on a base, both in normal form; null when
// it is anything else.
function joinPath(text, base) {
  if (text[0] !== "/" || text[1] === "/" || base === undefined) return null;
  const from = typeof base === "string" ? base : base instanceof URL ? base.href : "";
  const o = live.offsets;
  if (!urlScan(from, o)) return null;
  live.scanned = from;
  const joined = from.slice(0, o[2]) + text;
  if (!urlScan(joined, o)) return null;
  live.scanned = joined;
  return joined;
}

class URL {
  #href; // null when the record has changed since
  #record; // null while #href is in normal form and nothing needs the parts
  #params = null;

  constructor(url, base = undefined) {
    if (base === undefined && typeof url === "string" && urlScan(url, live.offsets)) {
      live.scanned = url;
      this.#href = url;
      this.#record = null;
      return;
    }
    const text = usv(url);
    const joined = joinPath(text, base);
    if (joined !== null) {
      this.#href = joined;
      this.#record = null;
      return;
    }
    const record = parseWithBase(text, base);
    if (record === null) throw urlError(text);
    this.#href = null;
    this.#record = record;
  }

  static canParse(url, base = undefined) {
    needArguments(arguments.length, 1, "URL.canParse");
    return parseWithBase(usv(url), base) !== null;
  }

  static parse(url, base = undefined) {
    needArguments(arguments.length, 1, "URL.parse");
    try {
      return new URL(usv(url), base);
    } catch {
      return null;
    }
  }

  get href() { return this.#href ??= serialiseURL(this.#record); }

  set href(v) {
    const text = usv(v);
    const record = recordOf(text);
    if (record === null) throw urlError(text);
    this.#record = record;
    this.#href = null;
    if (this.#params !== null) replaceParams(this.#params, record.query ?? "");
  }

  get origin() {
    const url = this.#record;
    if (url === null) return this.#href.slice(0, offsetsOf(this.#href)[2]);
    if (url.scheme === "blob") {
      const inner = typeof url.path === "string" ? parseURL(url.path, null) : null;
      return inner !== null && (inner.scheme === "http" || inner.scheme === "https") ? tupleOrigin(inner) : "null";
    }
    return isSpecial(url.scheme) && url.scheme !== "file" ? tupleOrigin(url) : "null";
  }

  get protocol() {
    const url = this.#record;
    return url === null ? this.#href.slice(0, offsetsOf(this.#href)[0]) : `${url.scheme}:`;
  }

  set protocol(v) {
    const m = /^([a-z][a-z0-9+.-]*)(?::|$)/i.exec(withoutTabs(usv(v)));
    if (m === null) return;
    const url = this.#edit();
    const scheme = m[1].toLowerCase();
    if (isSpecial(scheme) !== isSpecial(url.scheme)) return;
    if (scheme === "file" && (url.username !== "" || url.password !== "" || url.port !== null)) return;
    if (url.scheme === "file" && url.host === "") return;
    url.scheme = scheme;
    if (url.port === DEFAULT_PORTS[scheme]) url.port = null;
  }

  get username() { return this.#record === null ? "" : this.#record.username; }

  set username(v) {
    const text = usv(v);
    const url = this.#edit();
    if (canHaveCredentials(url)) url.username = percentEncode(text, ENCODE_USERINFO);
  }

  get password() { return this.#record === null ? "" : this.#record.password; }

  set password(v) {
    const text = usv(v);
    const url = this.#edit();
    if (canHaveCredentials(url)) url.password = percentEncode(text, ENCODE_USERINFO);
  }

  get host() {
    const url = this.#record;
    if (url === null) {
      const o = offsetsOf(this.#href);
      return this.#href.slice(o[0] + 2, o[2]);
    }
    if (url.host === null) return "";
    return url.port === null ? url.host : `${url.host}:${url.port}`;
  }

  set host(v) { this.#setHost(usv(v), true); }

  get hostname() {
    const url = this.#record;
    if (url === null) {
      const o = offsetsOf(this.#href);
      return this.#href.slice(o[0] + 2, o[1]);
    }
    return url.host === null ? "" : url.host;
  }

  set hostname(v) { this.#setHost(usv(v), false); }

  get port() {
    const url = this.#record;
    if (url === null) {
      const o = offsetsOf(this.#href);
      return o[2] > o[1] ? this.#href.slice(o[1] + 1, o[2]) : "";
    }
    return url.port === null ? "" : `${url.port}`;
  }

  set port(v) {
    const text = withoutTabs(usv(v));
    const url = this.#edit();
    if (!canHaveCredentials(url)) return;
    if (text === "") {
      url.port = null;
      return;
    }
    const digits = /^[0-9]+/.exec(text);
    if (digits !== null) setPort(url, digits[0]);
  }

  get pathname() {
    const url = this.#record;
    if (url === null) {
      const o = offsetsOf(this.#href);
      return this.#href.slice(o[2], o[3]);
    }
    return serialisePath(url);
  }

  set pathname(v) {
    const text = withoutTabs(usv(v));
    const url = this.#edit();
    if (typeof url.path === "string") return;
    url.path = [];
    if (text !== "" || isSpecial(url.scheme)) addPath(url, text);
    else if (url.host === null) url.path.push("");
  }

  get search() {
    const url = this.#record;
    if (url === null) {
      const o = offsetsOf(this.#href);
      return o[4] - o[3] > 1 ? this.#href.slice(o[3], o[4]) : "";
    }
    return url.query === null || url.query === "" ? "" : `?${url.query}`;
  }

  set search(v) {
    const text = withoutTabs(usv(v));
    const url = this.#edit();
    if (text === "") url.query = null;
    else url.query = percentEncode(text[0] === "?" ? text.slice(1) : text, isSpecial(url.scheme) ? ENCODE_SPECIAL_QUERY : ENCODE_QUERY);
    if (this.#params !== null) replaceParams(this.#params, url.query ?? "");
  }

  get searchParams() {
    if (this.#params === null) {
      this.#params = new URLSearchParams();
      const query = this.search;
      attachParams(this.#params, query === "" ? "" : query.slice(1), (text) => {
        this.#edit().query = text === "" ? null : text;
      });
    }
    return this.#params;
  }

  get hash() {
    const url = this.#record;
    if (url === null) {
      const o = offsetsOf(this.#href);
      return o[5] - o[4] > 1 ? this.#href.slice(o[4]) : "";
    }
    return url.fragment === null || url.fragment === "" ? "" : `#${url.fragment}`;
  }

  set hash(v) {
    const text = withoutTabs(usv(v));
    const url = this.#edit();
    url.fragment = text === "" ? null : percentEncode(text[0] === "#" ? text.slice(1) : text, ENCODE_FRAGMENT);
  }

  toString() { return this.href; }
  toJSON() { return this.href; }

  // #edit gives the record, which the caller is about to change.
  #edit() {
    this.#record ??= recordOf(this.#href);
    this.#href = null;
    return this.#record;
  }

  #setHost(text, withPort) {
    text = withoutTabs(text);
    const url = this.#edit();
    if (typeof url.path === "string") return;
    const special = isSpecial(url.scheme);
    text = text.slice(0, endOf(text, special ? /[/\\?#]/ : /[/?#]/));
    if (url.scheme === "file") {
      const host = text === "" ? "" : isDriveLetter(text) ? null : parseHost(text, false);
      if (host !== null) url.host = host === "localhost" ? "" : host;
      return;
    }
    const colon = portColon(text);
    if (colon === 0 || (colon > 0 && !withPort)) return;
    const hostname = colon < 0 ? text : text.slice(0, colon);
    if (hostname === "" && (special || url.username !== "" || url.password !== "" || url.port !== null)) return;
    const host = hostname === "" ? "" : parseHost(hostname, !special);
    if (host === null) return;
    url.host = host;
    if (colon < 0) return;
    const digits = /^[0-9]+/.exec(text.slice(colon + 1));
    if (digits !== null) setPort(url, digits[0]);
  }
}

function tupleOrigin(url) {
  return `${url.scheme}://${url.host}${url.port === null ? "" : `:${url.port}`}`;
}

function canHaveCredentials(url) {
  return url.host !== null && url.host !== "" && url.scheme !== "file";
}

publish(URL);
