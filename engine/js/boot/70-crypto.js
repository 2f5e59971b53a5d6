// crypto and crypto.subtle (https://w3c.github.io/webcrypto/): random values,
// digests and HMAC. The work is done by the engine's host, in native code.
const CRYPTO_TOKEN = {};
const DIGESTS = { "SHA-1": 1, "SHA-256": 2, "SHA-384": 3, "SHA-512": 4 };
const BLOCK_BITS = { "SHA-1": 512, "SHA-256": 512, "SHA-384": 1024, "SHA-512": 1024 };
const HMAC_JWK = { "SHA-1": "HS1", "SHA-256": "HS256", "SHA-384": "HS384", "SHA-512": "HS512" };
const RANDOM_MAX = 65536; // bytes in one call, from the standard
const INTEGER_ARRAYS = ["Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array",
  "BigInt64Array", "BigUint64Array"];
let keyParts;

class Crypto {
  constructor(token = undefined) {
    if (token !== CRYPTO_TOKEN) throw new TypeError("Illegal constructor");
  }

  get subtle() { return subtle; }

  getRandomValues(array) {
    needArguments(arguments.length, 1, "crypto.getRandomValues");
    if (!INTEGER_ARRAYS.includes(typedArrayName(array))) {
      throw new DOMException("The data argument must be an integer-type TypedArray", "TypeMismatchError");
    }
    if (array.byteLength > RANDOM_MAX) {
      throw new DOMException(`The requested length exceeds ${RANDOM_MAX} bytes`, "QuotaExceededError");
    }
    onlyWhileServing("crypto.getRandomValues");
    __native.random(bytesOf(array));
    return array;
  }

  randomUUID() {
    onlyWhileServing("crypto.randomUUID");
    const b = new Uint8Array(16);
    __native.random(b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let out = "";
    for (let i = 0; i < 16; i++) {
      if (i === 4 || i === 6 || i === 8 || i === 10) out += "-";
      out += HEX_LOWER[b[i]];
    }
    return out;
  }
}
const HEX_LOWER = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));

class CryptoKey {
  #parts; // {type, extractable, algorithm, usages, secret}

  constructor(token = undefined, parts = undefined) {
    if (token !== CRYPTO_TOKEN) throw new TypeError("Illegal constructor");
    this.#parts = parts;
  }

  static {
    keyParts = (k) => k.#parts;
  }

  get type() { return this.#parts.type; }
  get extractable() { return this.#parts.extractable; }
  get algorithm() { return this.#parts.algorithm; }
  get usages() { return this.#parts.usages; }
}

function notSupported(what, instead = []) {
  return new DOMException(`${what} is not supported${instead.length > 0 ? `; ${instead.join(", ")} can be used here` : ""}`, "NotSupportedError");
}

// algorithmName gives the name as the standard writes it, of those in known.
function algorithmName(algorithm, known) {
  const given = typeof algorithm === "string" ? algorithm : dictionary(algorithm, "The algorithm")?.name;
  if (given === undefined) throw new TypeError("The algorithm needs a name");
  const wanted = `${given}`.toUpperCase();
  for (const name of known) if (name === wanted) return name;
  throw notSupported(`The algorithm ${given}`, known);
}

function hashName(algorithm) {
  const hash = algorithm?.hash;
  if (hash === undefined) throw new TypeError("The algorithm needs a hash");
  return algorithmName(hash, Object.keys(DIGESTS));
}

function dataOf(v, what) {
  const bytes = copyBytes(v);
  if (bytes === null) throw new TypeError(`${what} must be an ArrayBuffer or a view of one`);
  return bytes;
}

function usagesOf(list) {
  if (!isObject(list) || typeof list[Symbol.iterator] !== "function") throw new TypeError("The usages must be a list");
  const all = ["encrypt", "decrypt", "sign", "verify", "deriveKey", "deriveBits", "wrapKey", "unwrapKey"];
  const given = [...list].map((u) => `${u}`);
  for (const u of given) if (!all.includes(u)) throw new TypeError(`'${u}' is not a valid key usage`);
  return all.filter((u) => given.includes(u));
}

function hmacUsages(list) {
  const usages = usagesOf(list);
  if (usages.some((u) => u !== "sign" && u !== "verify")) throw new DOMException("Unsupported key usage for an HMAC key", "SyntaxError");
  return usages;
}

function hmacKey(secret, hash, length, extractable, usages) {
  if (usages.length === 0) throw new DOMException("Usages cannot be empty when importing a secret key.", "SyntaxError");
  return new CryptoKey(CRYPTO_TOKEN, {
    type: "secret", extractable: Boolean(extractable), secret, usages,
    algorithm: { name: "HMAC", length, hash: { name: hash } },
  });
}

// checkedLength applies an algorithm's length in bits to a secret.
function checkedLength(secret, length) {
  const bits = secret.byteLength * 8;
  if (bits === 0) throw new DOMException("Zero-length key is not supported", "DataError");
  if (length === undefined) return bits;
  length = Number(length);
  if (length > bits || length <= bits - 8) throw new DOMException("Invalid key length", "DataError");
  if (length % 8 !== 0) throw notSupported("A key length that is not a whole number of bytes");
  return length;
}

function usableKey(key, algorithm, usage) {
  if (!(key instanceof CryptoKey)) throw new TypeError("The key must be a CryptoKey");
  const name = algorithmName(algorithm, ["HMAC"]);
  const parts = keyParts(key);
  if (parts.algorithm.name !== name) throw new DOMException("The key's algorithm does not match", "InvalidAccessError");
  if (!parts.usages.includes(usage)) throw new DOMException(`Unable to use this key to ${usage}`, "InvalidAccessError");
  return parts;
}

function base64url(bytes) {
  return btoa(latin1Decode(bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function fromBase64url(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new DOMException("Invalid JWK: k is not base64url", "DataError");
  return latin1Encode(atob(text.replace(/-/g, "+").replace(/_/g, "/")));
}

function importJWK(jwk, hash, extractable, usages) {
  const bad = (why) => new DOMException(`Invalid JWK: ${why}`, "DataError");
  if (!isObject(jwk)) throw new TypeError("The key data must be a JWK object");
  if (jwk.kty !== "oct") throw bad('kty must be "oct"');
  if (typeof jwk.k !== "string") throw bad("k is missing");
  if (jwk.alg !== undefined && jwk.alg !== HMAC_JWK[hash]) throw bad("alg does not match the hash");
  if (usages.length > 0 && jwk.use !== undefined && jwk.use !== "sig") throw bad('use must be "sig"');
  if (jwk.key_ops !== undefined) {
    const ops = [...jwk.key_ops];
    if (new Set(ops).size !== ops.length) throw bad("key_ops holds a usage twice");
    if (usages.some((u) => !ops.includes(u))) throw bad("key_ops does not hold the wanted usages");
  }
  if (jwk.ext === false && extractable) throw bad("the key is not extractable");
  return fromBase64url(jwk.k);
}

class SubtleCrypto {
  constructor(token = undefined) {
    if (token !== CRYPTO_TOKEN) throw new TypeError("Illegal constructor");
  }

  async digest(algorithm, data) {
    needArguments(arguments.length, 2, "subtle.digest");
    const name = algorithmName(algorithm, Object.keys(DIGESTS));
    return __native.digest(DIGESTS[name], dataOf(data, "The data")).buffer;
  }

  async importKey(format, keyData, algorithm, extractable, keyUsages) {
    needArguments(arguments.length, 5, "subtle.importKey");
    if (!["raw", "jwk", "spki", "pkcs8"].includes(format)) throw new TypeError(`'${format}' is not a valid key format`);
    algorithmName(algorithm, ["HMAC"]);
    const hash = hashName(algorithm);
    const usages = hmacUsages(keyUsages);
    let secret;
    if (format === "raw") secret = dataOf(keyData, "The key data");
    else if (format === "jwk") secret = importJWK(keyData, hash, Boolean(extractable), usages);
    else throw notSupported(`Importing an HMAC key from ${format}`);
    return hmacKey(secret, hash, checkedLength(secret, algorithm.length), extractable, usages);
  }

  async exportKey(format, key) {
    needArguments(arguments.length, 2, "subtle.exportKey");
    if (!(key instanceof CryptoKey)) throw new TypeError("The key must be a CryptoKey");
    const parts = keyParts(key);
    if (!parts.extractable) throw new DOMException("key is not extractable", "InvalidAccessException");
    if (format === "raw") return parts.secret.slice().buffer;
    if (format !== "jwk") throw notSupported(`Exporting an HMAC key as ${format}`);
    return { key_ops: parts.usages.slice(), ext: true, kty: "oct", k: base64url(parts.secret), alg: HMAC_JWK[parts.algorithm.hash.name] };
  }

  async generateKey(algorithm, extractable, keyUsages) {
    needArguments(arguments.length, 3, "subtle.generateKey");
    algorithmName(algorithm, ["HMAC"]);
    const hash = hashName(algorithm);
    const usages = hmacUsages(keyUsages);
    const length = algorithm.length === undefined ? BLOCK_BITS[hash] : Number(algorithm.length);
    if (!(length > 0) || length > RANDOM_MAX * 8) throw new DOMException("Invalid key length", "OperationError");
    if (length % 8 !== 0) throw notSupported("A key length that is not a whole number of bytes");
    onlyWhileServing("subtle.generateKey");
    const secret = new Uint8Array(length / 8);
    __native.random(secret);
    return hmacKey(secret, hash, length, extractable, usages);
  }

  async sign(algorithm, key, data) {
    needArguments(arguments.length, 3, "subtle.sign");
    const bytes = dataOf(data, "The data");
    const parts = usableKey(key, algorithm, "sign");
    return __native.hmac(DIGESTS[parts.algorithm.hash.name], parts.secret, bytes).buffer;
  }

  async verify(algorithm, key, signature, data) {
    needArguments(arguments.length, 4, "subtle.verify");
    const given = dataOf(signature, "The signature");
    const bytes = dataOf(data, "The data");
    const parts = usableKey(key, algorithm, "verify");
    return equalBytes(__native.hmac(DIGESTS[parts.algorithm.hash.name], parts.secret, bytes), given);
  }
}
for (const name of ["encrypt", "decrypt", "deriveKey", "deriveBits", "wrapKey", "unwrapKey"]) {
  defineProperty(SubtleCrypto.prototype, name, {
    value: { async [name]() { throw notSupported(`subtle.${name}`); } }[name], writable: true, enumerable: true, configurable: true,
  });
}

// equalBytes compares without telling by its time where the difference is.
function equalBytes(a, b) {
  let different = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) different |= a[i] ^ (i < b.length ? b[i] : 0);
  return different === 0;
}

const subtle = new SubtleCrypto(CRYPTO_TOKEN);
publish(Crypto, CryptoKey, SubtleCrypto);
globalValue("crypto", new Crypto(CRYPTO_TOKEN), true);
