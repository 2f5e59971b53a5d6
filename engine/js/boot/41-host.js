// Hosts of URLs (https://url.spec.whatwg.org/#host-parsing) and percent-encoding.
const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
const FORBIDDEN_DOMAIN = /[\0-\x20#%/:<>?@[\\\]^|\x7f]/;

// Percent-encode sets, each as the expression for what is encoded.
const ENCODE_C0 = /[\0-\x1f\x7f-\u{10ffff}]+/gu;
const ENCODE_FRAGMENT = /[\0-\x20"<>`\x7f-\u{10ffff}]+/gu;
const ENCODE_QUERY = /[\0-\x20"#<>\x7f-\u{10ffff}]+/gu;
const ENCODE_SPECIAL_QUERY = /[\0-\x20"#<>'\x7f-\u{10ffff}]+/gu;
const ENCODE_PATH = /[\0-\x20"#<>?^`{}\x7f-\u{10ffff}]+/gu;
const ENCODE_USERINFO = /[\0-\x20"#<>?`{}/:;=@[\\\]^|\x7f-\u{10ffff}]+/gu;
const ENCODE_FORM = /[^*\-.0-9A-Z_a-z]+/gu;

const HEX = Array.from({ length: 256 }, (_, i) => `%${i < 16 ? "0" : ""}${i.toString(16).toUpperCase()}`);

function percentBytes(s) {
  const b = utf8Encode(s);
  let out = "";
  for (let i = 0; i < b.length; i++) out += HEX[b[i]];
  return out;
}

function percentEncode(s, set) {
  return s.replace(set, percentBytes);
}

// percentDecode decodes what is valid of the form %XX and gives the text that
// the bytes are in UTF-8.
function percentDecode(s) {
  if (!s.includes("%")) return s;
  const from = utf8Encode(s);
  const to = new Uint8Array(from.length);
  let n = 0;
  for (let i = 0; i < from.length; i++) {
    let b = from[i];
    if (b === 0x25 && i + 2 < from.length) {
      const high = hexValue(from[i + 1]), low = hexValue(from[i + 2]);
      if (high >= 0 && low >= 0) {
        b = high * 16 + low;
        i += 2;
      }
    }
    to[n++] = b;
  }
  return utf8Decode(to.subarray(0, n), false, true);
}

function hexValue(c) {
  if (c >= 48 && c <= 57) return c - 48;
  if (c >= 65 && c <= 70) return c - 55;
  return c >= 97 && c <= 102 ? c - 87 : -1;
}

// parseHost gives the host in its serialised form, or null.
function parseHost(input, opaque) {
  if (input.startsWith("[")) {
    if (!input.endsWith("]")) return null;
    const pieces = parseIPv6(input.slice(1, -1));
    return pieces === null ? null : `[${serialiseIPv6(pieces)}]`;
  }
  if (opaque) return FORBIDDEN_HOST.test(input) ? null : percentEncode(input, ENCODE_C0);
  const domain = domainToASCII(percentDecode(input));
  if (domain === null || domain === "" || FORBIDDEN_DOMAIN.test(domain)) return null;
  if (!endsInNumber(domain)) return domain;
  const address = parseIPv4(domain);
  return address === null ? null : `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

function endsInNumber(domain) {
  const parts = domain.split(".");
  if (parts[parts.length - 1] === "") {
    if (parts.length === 1) return false;
    parts.pop();
  }
  const last = parts[parts.length - 1];
  return /^[0-9]+$/.test(last) || /^0x[0-9a-f]*$/i.test(last);
}

function parseIPv4(domain) {
  const parts = domain.split(".");
  if (parts[parts.length - 1] === "" && parts.length > 1) parts.pop();
  if (parts.length > 4) return null;
  const numbers = [];
  for (const p of parts) {
    let n;
    if (/^0x[0-9a-f]*$/i.test(p)) n = p.length === 2 ? 0 : parseInt(p.slice(2), 16);
    else if (/^0[0-7]*$/.test(p)) n = parseInt(p, 8);
    else if (/^[1-9][0-9]*$/.test(p)) n = parseInt(p, 10);
    else return null;
    numbers.push(n);
  }
  const last = numbers.pop();
  if (numbers.some((n) => n > 255) || last >= 256 ** (4 - numbers.length)) return null;
  return numbers.reduce((sum, n, i) => sum + n * 256 ** (3 - i), last);
}

function parseIPv6(s) {
  const pieces = [];
  let compress = -1;
  let at = 0;
  if (s.startsWith(":")) {
    if (s[1] !== ":") return null;
    at = 2;
    compress = 0;
  }
  while (at < s.length) {
    if (pieces.length === 8) return null;
    if (s[at] === ":") {
      if (compress >= 0) return null;
      at++;
      compress = pieces.length;
      continue;
    }
    const digits = /^[0-9a-f]{0,4}/i.exec(s.slice(at, at + 4))[0];
    const next = s[at + digits.length];
    if (next === ".") {
      if (digits === "" || pieces.length > 6) return null;
      const v4 = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(s.slice(at));
      if (v4 === null || v4.slice(1).some((n) => Number(n) > 255)) return null;
      pieces.push(Number(v4[1]) * 256 + Number(v4[2]), Number(v4[3]) * 256 + Number(v4[4]));
      at = s.length;
      break;
    }
    if (next === ":") {
      if (at + digits.length + 1 >= s.length) return null;
      at++;
    } else if (next !== undefined) {
      return null;
    }
    at += digits.length;
    pieces.push(digits === "" ? 0 : parseInt(digits, 16));
  }
  if (compress >= 0) {
    if (pieces.length === 8) return null;
    pieces.splice(compress, 0, ...new Array(8 - pieces.length).fill(0));
  }
  return pieces.length === 8 ? pieces : null;
}

function serialiseIPv6(pieces) {
  let best = -1, bestLength = 1;
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && pieces[i + n] === 0) n++;
    if (n > bestLength) [best, bestLength] = [i, n];
    i += n;
  }
  const hex = pieces.map((p) => p.toString(16));
  if (best < 0) return hex.join(":");
  return `${hex.slice(0, best).join(":")}::${hex.slice(best + bestLength).join(":")}`;
}
