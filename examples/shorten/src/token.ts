// A token is what a link holds and its HMAC-SHA-256, each in base64url, with a
// full stop between them.

export interface Link {
  target: string;
  expires: number; // milliseconds since 1970; 0: never
}

const encoder = new TextEncoder();

/** Makes the token of a link. */
export async function seal(link: Link, phrase: string): Promise<string> {
  const payload = encode(encoder.encode(`${link.expires.toString(36)} ${link.target}`));
  const mac = await crypto.subtle.sign("HMAC", await key(phrase, "sign"), encoder.encode(payload));
  return `${payload}.${encode(new Uint8Array(mac))}`;
}

/** Gives the link of a token, or null when nobody with the phrase made it. */
export async function open(token: string, phrase: string): Promise<Link | null> {
  const [payload, mac, ...rest] = token.split(".");
  if (payload === undefined || mac === undefined || rest.length > 0) return null;
  const given = decode(mac);
  // verify takes the same time wherever the two differ.
  if (given === null || !(await crypto.subtle.verify("HMAC", await key(phrase, "verify"), given, encoder.encode(payload)))) return null;
  const content = decode(payload);
  if (content === null) return null;
  const text = new TextDecoder().decode(content);
  const space = text.indexOf(" ");
  return { expires: parseInt(text.slice(0, space), 36), target: text.slice(space + 1) };
}

function key(phrase: string, use: "sign" | "verify"): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", encoder.encode(phrase), { name: "HMAC", hash: "SHA-256" }, false, [use]);
}

function encode(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decode(text: string): Uint8Array<ArrayBuffer> | null {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) return null;
  try {
    return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  } catch {
    return null; // a length that no bytes have
  }
}
