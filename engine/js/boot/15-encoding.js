// TextEncoder and TextDecoder (https://encoding.spec.whatwg.org): UTF-8,
// UTF-16 in both orders, and windows-1252 with its many labels.
const ENCODING_LABELS = new Map();
for (const [name, labels] of [
  ["utf-8", "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8"],
  ["utf-16le", "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le"],
  ["utf-16be", "unicodefffe utf-16be"],
  ["windows-1252", "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1 " +
    "iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252"],
]) {
  for (const label of labels.split(" ")) ENCODING_LABELS.set(label, name);
}

// Code units of the bytes 0x80 to 0x9f in windows-1252.
const WINDOWS_1252 = "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(input = "") {
    return utf8Encode(typeof input === "string" ? input : `${input}`);
  }

  encodeInto(source, destination) {
    needArguments(arguments.length, 2, "TextEncoder.encodeInto");
    source = `${source}`;
    if (typedArrayName(destination) !== "Uint8Array") throw new TypeError("TextEncoder.encodeInto: the destination must be a Uint8Array");
    const [read, written] = utf8EncodeInto(source, destination);
    return { read, written };
  }
}

class TextDecoder {
  #encoding;
  #fatal;
  #ignoreBOM;
  #pending = EMPTY_BYTES; // bytes of a character not complete yet
  #started = false; // whether the place for a byte order mark has been passed

  constructor(label = "utf-8", options = undefined) {
    const name = ENCODING_LABELS.get(`${label}`.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase());
    if (name === undefined) throw new RangeError(`The "${label}" encoding is not supported`);
    options = dictionary(options, "TextDecoder options");
    this.#encoding = name;
    this.#fatal = Boolean(options?.fatal);
    this.#ignoreBOM = Boolean(options?.ignoreBOM);
  }

  get encoding() {
    return this.#encoding;
  }

  get fatal() {
    return this.#fatal;
  }

  get ignoreBOM() {
    return this.#ignoreBOM;
  }

  decode(input = undefined, options = undefined) {
    let bytes = EMPTY_BYTES;
    if (input !== undefined) {
      bytes = bytesOf(input);
      if (bytes === null) throw new TypeError("TextDecoder.decode: the input must be an ArrayBuffer or a view of one");
    }
    const stream = Boolean(dictionary(options, "TextDecoder.decode options")?.stream);
    if (this.#encoding === "utf-8" && !stream && !this.#started && this.#pending.length === 0) {
      return utf8Decode(bytes, this.#fatal, this.#ignoreBOM);
    }
    return this.#decodePart(bytes, stream);
  }

  #decodePart(bytes, stream) {
    if (this.#pending.length > 0) {
      const joined = new Uint8Array(this.#pending.length + bytes.length);
      joined.set(this.#pending);
      joined.set(bytes, this.#pending.length);
      bytes = joined;
    }
    let keep = 0;
    if (stream) {
      if (this.#encoding === "utf-8") keep = utf8Incomplete(bytes);
      else if (this.#encoding !== "windows-1252") keep = utf16Incomplete(bytes, this.#encoding === "utf-16be");
    }
    // A copy: the caller may change its buffer before the next part comes.
    this.#pending = keep > 0 ? bytes.slice(bytes.length - keep) : EMPTY_BYTES;
    const whole = keep > 0 ? bytes.subarray(0, bytes.length - keep) : bytes;
    const keepBOM = this.#ignoreBOM || this.#started;
    if (!stream) this.#started = false;
    else if (whole.length > 0) this.#started = true;
    try {
      switch (this.#encoding) {
        case "utf-8": return utf8Decode(whole, this.#fatal, keepBOM);
        case "windows-1252": return windows1252Decode(whole);
        default: return utf16Decode(whole, this.#encoding === "utf-16be", this.#fatal, keepBOM);
      }
    } catch (e) {
      this.#pending = EMPTY_BYTES;
      this.#started = false;
      throw e;
    }
  }
}

// utf8Incomplete says how many bytes at the end begin a character that further
// bytes may complete.
function utf8Incomplete(b) {
  const n = b.length;
  for (let back = 1; back <= 3 && back <= n; back++) {
    const c = b[n - back];
    if (c < 0x80) return 0;
    if (c < 0xc0) continue;
    const want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || want <= back) return 0;
    if (back > 1) {
      const d = b[n - back + 1]; // the second byte decides whether the sequence can still be well formed
      if ((c === 0xe0 && d < 0xa0) || (c === 0xed && d > 0x9f) || (c === 0xf0 && d < 0x90) || (c === 0xf4 && d > 0x8f)) return 0;
    }
    return back;
  }
  return 0;
}

function utf16Incomplete(b, big) {
  const odd = b.length % 2;
  const last = b.length - odd - 2;
  if (last < 0) return odd;
  const high = big ? b[last] : b[last + 1];
  return high >= 0xd8 && high <= 0xdb ? odd + 2 : odd;
}

function utf16Decode(b, big, fatal, keepBOM) {
  let out = "";
  const units = b.length >> 1;
  const hi = big ? 0 : 1;
  for (let at = 0; at < units;) {
    const end = Math.min(units, at + 4096);
    const chunk = new Array(end - at);
    for (let i = at; i < end; i++) chunk[i - at] = (b[2 * i + hi] << 8) | b[2 * i + 1 - hi];
    out += String.fromCharCode.apply(null, chunk);
    at = end;
  }
  if (b.length % 2 === 1) {
    if (fatal) throw new TypeError("The encoded data was not valid utf-16");
    // A lone high surrogate and the odd byte are one error, not two.
    if (/[\ud800-\udbff]$/.test(out)) out = out.slice(0, -1);
    out += "\ufffd";
  }
  if (!out.isWellFormed()) {
    if (fatal) throw new TypeError("The encoded data was not valid utf-16");
    out = out.toWellFormed();
  }
  return !keepBOM && out.charCodeAt(0) === 0xfeff ? out.slice(1) : out;
}

function windows1252Decode(bytes) {
  return latin1Decode(bytes).replace(/[\x80-\x9f]/g, (c) => WINDOWS_1252[c.charCodeAt(0) - 0x80]);
}

// The engine has these two; it takes a missing argument for the text "undefined".
const engineAtob = globalThis.atob;
const engineBtoa = globalThis.btoa;

function atob(data) {
  needArguments(arguments.length, 1, "atob");
  return engineAtob(data);
}

function btoa(data) {
  needArguments(arguments.length, 1, "btoa");
  return engineBtoa(data);
}

publish(TextEncoder, TextDecoder);
globalFunction(atob);
globalFunction(btoa);
