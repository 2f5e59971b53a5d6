// Blob and File (https://w3c.github.io/FileAPI/). All bytes are in memory, in one array.
let isBlob, blobBytes;

class Blob {
  #bytes;
  #type = "";

  constructor(parts = [], options = undefined) {
    if (!isObject(parts) || typeof parts[Symbol.iterator] !== "function") throw new TypeError("Blob: the parts must be given as a list");
    options = dictionary(options, "Blob options");
    const endings = options?.endings === undefined ? "transparent" : `${options.endings}`;
    if (endings !== "transparent" && endings !== "native") throw new TypeError(`Blob: '${endings}' is not a valid value for endings`);
    const list = [];
    let total = 0;
    for (const part of parts) {
      let bytes;
      if (isObject(part)) bytes = isBlob(part) ? part.#bytes : bytesOf(part);
      else bytes = null;
      if (bytes === null) {
        const text = usv(part);
        bytes = utf8Encode(endings === "native" ? text.replace(/\r\n?/g, "\n") : text);
      }
      list.push(bytes);
      total += bytes.byteLength;
    }
    const out = new Uint8Array(total);
    let at = 0;
    for (const b of list) {
      out.set(b, at);
      at += b.byteLength;
    }
    this.#bytes = out;
    if (options?.type !== undefined) this.#type = normalBlobType(options.type);
  }

  static {
    isBlob = (v) => typeof v === "object" && v !== null && #bytes in v;
    blobBytes = (b) => b.#bytes.slice();
  }

  get size() { return this.#bytes.byteLength; }
  get type() { return this.#type; }

  slice(start = 0, end = undefined, type = "") {
    const b = new Blob();
    // Web IDL's long long with Clamp: as Array.prototype.slice takes numbers.
    b.#bytes = this.#bytes.slice(start, end === undefined ? this.#bytes.byteLength : end);
    b.#type = normalBlobType(type);
    return b;
  }

  text() { return Promise.resolve(utf8Decode(this.#bytes, false, false)); }
  arrayBuffer() { return Promise.resolve(this.#bytes.slice().buffer); }
  bytes() { return Promise.resolve(this.#bytes.slice()); }
  stream() { return bodyStream(this); }
}

function normalBlobType(type) {
  type = `${type}`;
  return /^[\x20-\x7e]*$/.test(type) ? type.toLowerCase() : "";
}

class File extends Blob {
  #name;
  #lastModified;

  constructor(parts, name, options = undefined) {
    needArguments(arguments.length, 2, "File");
    super(parts, options);
    this.#name = usv(name);
    const modified = options?.lastModified;
    this.#lastModified = modified === undefined ? Date.now() : Math.trunc(Number(modified)) || 0;
  }

  get name() { return this.#name; }
  get lastModified() { return this.#lastModified; }
}

publish(Blob, File);
