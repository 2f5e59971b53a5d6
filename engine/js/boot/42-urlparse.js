// The URL parser (https://url.spec.whatwg.org/#url-parsing), written by parts of
// the URL rather than as the standard's state machine; each function names the
// states it stands for.
//
// A record is {scheme, username, password, host, port, path, query, fragment}:
// host null or serialised, port null or a number, path a list or, when opaque, a
// string, query and fragment null or without their mark.
const DEFAULT_PORTS = { "http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "file": null };

function isSpecial(scheme) {
  return DEFAULT_PORTS[scheme] !== undefined;
}

function newRecord(scheme) {
  return { scheme, username: "", password: "", host: null, port: null, path: [], query: null, fragment: null };
}

function withoutTabs(s) {
  return /[\t\n\r]/.test(s) ? s.replace(/[\t\n\r]/g, "") : s;
}

// parseURL gives a record, or null. base is a record or null.
function parseURL(input, base) {
  input = withoutTabs(input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, ""));
  const m = /^([a-z][a-z0-9+.-]*):/i.exec(input);
  if (m === null) return parseRelative(input, base);
  const scheme = m[1].toLowerCase();
  const rest = input.slice(m[0].length);
  const url = newRecord(scheme);
  if (scheme === "file") return parseFile(url, rest, base !== null && base.scheme === "file" ? base : null);
  if (isSpecial(scheme)) {
    if (base !== null && base.scheme === scheme && !/^\/\//.test(rest)) return parseRest(url, rest, base);
    return parseAuthority(url, rest.replace(/^[/\\]+/, ""));
  }
  if (rest.startsWith("//")) return parseAuthority(url, rest.slice(2));
  if (rest.startsWith("/")) return parsePath(url, rest);
  return parseOpaque(url, rest);
}

// No scheme state.
function parseRelative(input, base) {
  if (base === null) return null;
  if (typeof base.path === "string") {
    if (!input.startsWith("#")) return null;
    return { ...base, fragment: percentEncode(input.slice(1), ENCODE_FRAGMENT) };
  }
  const url = newRecord(base.scheme);
  return base.scheme === "file" ? parseFile(url, input, base) : parseRest(url, input, base);
}

// Relative state, relative slash state.
function parseRest(url, rest, base) {
  const special = isSpecial(url.scheme);
  const slash = special ? /^[/\\]/ : /^\//;
  if (slash.test(rest)) {
    if (special && slash.test(rest.slice(1))) return parseAuthority(url, rest.replace(/^[/\\]+/, ""));
    if (rest.startsWith("//")) return parseAuthority(url, rest.slice(2));
    copyAuthority(url, base);
    return parsePath(url, rest);
  }
  copyAuthority(url, base);
  return parseAfterBase(url, rest, base);
}

function copyAuthority(url, base) {
  url.username = base.username;
  url.password = base.password;
  url.host = base.host;
  url.port = base.port;
}

// parseAfterBase: what follows is a query, a fragment, nothing, or a path below the base's.
function parseAfterBase(url, rest, base) {
  url.path = base.path.slice();
  if (rest === "" || rest.startsWith("#")) {
    url.query = base.query;
    return parseTail(url, rest);
  }
  if (rest.startsWith("?")) return parseTail(url, rest);
  shorten(url);
  return parsePath(url, rest);
}

// Authority, host and port states.
function parseAuthority(url, rest) {
  const special = isSpecial(url.scheme);
  const end = endOf(rest, special ? /[/\\?#]/ : /[/?#]/);
  let authority = rest.slice(0, end);
  const at = authority.lastIndexOf("@");
  if (at >= 0) {
    const credentials = authority.slice(0, at);
    authority = authority.slice(at + 1);
    if (authority === "") return null;
    const colon = credentials.indexOf(":");
    url.username = percentEncode(colon < 0 ? credentials : credentials.slice(0, colon), ENCODE_USERINFO);
    if (colon >= 0) url.password = percentEncode(credentials.slice(colon + 1), ENCODE_USERINFO);
  }
  const colon = portColon(authority);
  const hostname = colon < 0 ? authority : authority.slice(0, colon);
  if (hostname === "" && (special || colon >= 0)) return null;
  url.host = hostname === "" ? "" : parseHost(hostname, !special);
  if (url.host === null) return null;
  if (colon >= 0) {
    const port = authority.slice(colon + 1);
    if (!/^[0-9]*$/.test(port)) return null;
    if (port !== "" && !setPort(url, port)) return null;
  }
  return parsePathStart(url, rest.slice(end));
}

// portColon finds the first colon outside brackets.
function portColon(s) {
  let inside = false;
  for (let i = 0; i < s.length; i++) {
    const c = s[i];
    if (c === "[") inside = true;
    else if (c === "]") inside = false;
    else if (c === ":" && !inside) return i;
  }
  return -1;
}

function setPort(url, digits) {
  const port = Number(digits);
  if (port > 65535) return false;
  url.port = DEFAULT_PORTS[url.scheme] === port ? null : port;
  return true;
}

function endOf(s, expression) {
  const at = s.search(expression);
  return at < 0 ? s.length : at;
}

function isDriveLetter(s) {
  return /^[a-z][:|]$/i.test(s);
}

function startsWithDriveLetter(s) {
  return /^[a-z][:|](?:[/\\?#]|$)/i.test(s);
}

// File, file slash and file host states.
function parseFile(url, rest, base) {
  url.host = "";
  if (!/^[/\\]/.test(rest)) {
    if (base === null) return parsePath(url, rest);
    url.host = base.host;
    if (rest !== "" && !/^[?#]/.test(rest) && startsWithDriveLetter(rest)) return parsePath(url, rest);
    return parseAfterBase(url, rest, base);
  }
  if (!/^[/\\]/.test(rest.slice(1))) {
    if (base !== null) {
      url.host = base.host;
      const drive = base.path[0];
      if (!startsWithDriveLetter(rest.slice(1)) && drive !== undefined && /^[a-z]:$/i.test(drive)) url.path.push(drive);
    }
    return parsePath(url, rest);
  }
  rest = rest.slice(2);
  const end = endOf(rest, /[/\\?#]/);
  const hostname = rest.slice(0, end);
  if (isDriveLetter(hostname)) return parsePath(url, rest);
  if (hostname !== "") {
    const host = parseHost(hostname, false);
    if (host === null) return null;
    url.host = host === "localhost" ? "" : host;
  }
  return parsePathStart(url, rest.slice(end));
}

// Path start state.
function parsePathStart(url, rest) {
  if (isSpecial(url.scheme)) return parsePath(url, rest);
  if (rest === "" || /^[?#]/.test(rest)) return parseTail(url, rest);
  return parsePath(url, rest);
}

// Path state: up to the query or fragment.
function parsePath(url, rest) {
  const end = endOf(rest, /[?#]/);
  addPath(url, rest.slice(0, end));
  return parseTail(url, rest.slice(end));
}

function addPath(url, text) {
  const special = isSpecial(url.scheme);
  const segments = (special && text.includes("\\") ? text.replace(/\\/g, "/") : text).split("/");
  if (segments.length > 1 && segments[0] === "") segments.shift();
  for (let i = 0; i < segments.length; i++) {
    let s = segments[i];
    const last = i === segments.length - 1;
    if (s.length <= 6 && (s[0] === "." || s[0] === "%")) {
      if (/^(?:\.|%2e)(?:\.|%2e)$/i.test(s)) {
        shorten(url);
        if (last) url.path.push("");
        continue;
      }
      if (/^(?:\.|%2e)$/i.test(s)) {
        if (last) url.path.push("");
        continue;
      }
    }
    s = percentEncode(s, ENCODE_PATH);
    if (url.scheme === "file" && url.path.length === 0 && isDriveLetter(s)) s = `${s[0]}:`;
    url.path.push(s);
  }
}

function shorten(url) {
  if (url.scheme === "file" && url.path.length === 1 && /^[a-z]:$/i.test(url.path[0])) return;
  url.path.pop();
}

// Opaque path state.
function parseOpaque(url, rest) {
  const end = endOf(rest, /[?#]/);
  let path = rest.slice(0, end);
  if (end < rest.length && path.endsWith(" ")) path = `${path.slice(0, -1)}%20`;
  url.path = percentEncode(path, ENCODE_C0);
  return parseTail(url, rest.slice(end));
}

// Query and fragment states.
function parseTail(url, rest) {
  if (rest === "") return url;
  const hash = rest.indexOf("#");
  if (rest[0] === "?") {
    const query = hash < 0 ? rest.slice(1) : rest.slice(1, hash);
    url.query = percentEncode(query, isSpecial(url.scheme) ? ENCODE_SPECIAL_QUERY : ENCODE_QUERY);
  }
  if (hash >= 0) url.fragment = percentEncode(rest.slice(hash + 1), ENCODE_FRAGMENT);
  return url;
}

function serialisePath(url) {
  if (typeof url.path === "string") return url.path;
  return url.path.length === 0 ? "" : `/${url.path.join("/")}`;
}

function serialiseURL(url) {
  let out = `${url.scheme}:`;
  if (url.host !== null) {
    out += "//";
    if (url.username !== "" || url.password !== "") {
      out += url.username;
      if (url.password !== "") out += `:${url.password}`;
      out += "@";
    }
    out += url.host;
    if (url.port !== null) out += `:${url.port}`;
  } else if (typeof url.path !== "string" && url.path.length > 1 && url.path[0] === "") {
    out += "/.";
  }
  out += serialisePath(url);
  if (url.query !== null) out += `?${url.query}`;
  if (url.fragment !== null) out += `#${url.fragment}`;
  return out;
}
