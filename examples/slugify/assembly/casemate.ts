// This file carries one request from the platform to your function and the
// answer back. It is yours: read it, change it, or leave it alone.
//
// A request arrives on standard input as one line of JSON, then the body; the
// answer leaves on standard output in the same shape. What you log goes to
// standard error.

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: u32, iovs: usize, count: u32, done: usize): u32;

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, iovs: usize, count: u32, done: usize): u32;

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(code: u32): void;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/** What came in. */
export class Request {
  id: string = "";
  method: string = "";
  path: string = ""; // decoded
  query: string = ""; // as sent, without "?"
  trigger: string = ""; // http, invoke, …
  caller: string = ""; // verified by the platform; "anonymous" on a public route
  headers: Map<string, string> = new Map(); // lower-case names, first values
  params: Map<string, string> = new Map(); // {name} parts of the route's path
  body: ArrayBuffer = new ArrayBuffer(0);

  /** The first value of a header, or "". Case does not matter. */
  header(name: string): string {
    const key = name.toLowerCase();
    return this.headers.has(key) ? this.headers.get(key) : "";
  }

  /** The body as UTF-8 text. */
  text(): string {
    return String.UTF8.decode(this.body);
  }
}

/** What goes out. */
export class Response {
  headers: Map<string, string> = new Map();

  constructor(
    public status: i32,
    contentType: string,
    public body: ArrayBuffer,
  ) {
    this.headers.set("content-type", contentType);
  }

  static text(status: i32, text: string): Response {
    return new Response(status, "text/plain; charset=utf-8", String.UTF8.encode(text));
  }

  static json(status: i32, json: string): Response {
    return new Response(status, "application/json", String.UTF8.encode(json));
  }
}

/** Writes a line of the function's log. */
export function log(line: string): void {
  writeAll(STDERR, String.UTF8.encode(line + "\n"));
}

/**
 * Hands one request to the function and writes its answer. Call it once, at the
 * top level. When the function throws, the message goes to the log and the caller
 * gets a 502 that says nothing about it.
 */
export function serve(fn: (request: Request) => Response): void {
  const response = fn(readRequest());
  let head = '{"status":' + response.status.toString() + ',"headers":{';
  const names = response.headers.keys();
  for (let i = 0; i < names.length; i++) {
    if (i > 0) head += ",";
    head += quote(names[i]) + ":" + quote(response.headers.get(names[i]));
  }
  writeAll(STDOUT, String.UTF8.encode(head + "}}\n"));
  writeAll(STDOUT, response.body);
}

/** Writes a string as JSON, with its quotes. */
export function quote(text: string): string {
  let out = '"';
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c == 0x22 || c == 0x5c) out += "\\" + text.charAt(i);
    else if (c < 0x20) out += "\\u" + c.toString(16).padStart(4, "0");
    else out += text.charAt(i);
  }
  return out + '"';
}

/** The compiler calls this for `throw` and for failed checks. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log("error: " + (message ? message : "abort") + " at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  proc_exit(1);
}

function readRequest(): Request {
  const input = readAll();
  const length = input.byteLength;
  const start = changetype<usize>(input);
  let end = 0;
  while (end < length && load<u8>(start + end) != 0x0a) end++;
  if (end == length) throw new Error("reading the request: it has no head");
  const request = new Request();
  new Head(String.UTF8.decodeUnsafe(start, end), request).read();
  request.body = input.slice(end + 1);
  return request;
}

function readAll(): ArrayBuffer {
  let buffer = new ArrayBuffer(64 << 10); // few reads: each leaves the sandbox
  let length = 0;
  let n: i32;
  while ((n = transfer(STDIN, changetype<usize>(buffer) + length, buffer.byteLength - length)) > 0) {
    length += n;
    if (length == buffer.byteLength) {
      const larger = new ArrayBuffer(4 * length);
      memory.copy(changetype<usize>(larger), changetype<usize>(buffer), length);
      buffer = larger;
    }
  }
  return buffer.slice(0, length);
}

function writeAll(fd: u32, data: ArrayBuffer): void {
  for (let at = 0; at < data.byteLength; ) {
    at += transfer(fd, changetype<usize>(data) + at, data.byteLength - at);
  }
}

/** Where transfer keeps its vector (pointer, length) and the count it gets. */
const vector: usize = memory.data(16);

function transfer(fd: u32, pointer: usize, length: i32): i32 {
  store<u32>(vector, pointer as u32);
  store<u32>(vector, length as u32, 4);
  const failed = fd == STDIN ? fd_read(fd, vector, 1, vector + 8) : fd_write(fd, vector, 1, vector + 8);
  if (failed != 0) proc_exit(1);
  return load<i32>(vector, 8);
}

/** Reads a head: as much of JSON (RFC 8259) as it takes. */
class Head {
  private at: i32 = 0;

  constructor(
    private text: string,
    private request: Request,
  ) {}

  read(): void {
    this.expect(0x7b);
    if (this.next(0x7d)) return;
    do {
      const key = this.string();
      this.expect(0x3a);
      if (key == "headers") this.map(this.request.headers);
      else if (key == "params") this.map(this.request.params);
      else this.field(key, this.value(0));
    } while (this.next(0x2c));
    this.expect(0x7d);
  }

  private field(key: string, value: string): void {
    const r = this.request;
    if (key == "id") r.id = value;
    else if (key == "method") r.method = value;
    else if (key == "path") r.path = value;
    else if (key == "query") r.query = value;
    else if (key == "trigger") r.trigger = value;
    else if (key == "caller") r.caller = value;
  }

  private map(into: Map<string, string>): void {
    if (this.peek() != 0x7b) {
      this.value(0); // null
      return;
    }
    this.expect(0x7b);
    if (this.next(0x7d)) return;
    do {
      const key = this.string();
      this.expect(0x3a);
      into.set(key, this.value(0));
    } while (this.next(0x2c));
    this.expect(0x7d);
  }

  /** Steps over a value; gives a string, or the first string of a list, else "". */
  private value(depth: i32): string {
    if (depth > 32) this.fail();
    const c = this.peek();
    if (c == 0x22) return this.string();
    if (c != 0x5b && c != 0x7b) {
      const start = this.at;
      while (this.at < this.text.length && ",]} \t\r\n".indexOf(this.text.charAt(this.at)) < 0) this.at++;
      if (this.at == start) this.fail();
      return "";
    }
    const close: i32 = c == 0x5b ? 0x5d : 0x7d;
    let text = "";
    this.at++;
    if (this.next(close)) return text;
    for (let first = true; ; first = false) {
      if (close == 0x7d) {
        this.string();
        this.expect(0x3a);
      }
      const element = this.value(depth + 1);
      if (first && close == 0x5d) text = element;
      if (!this.next(0x2c)) break;
    }
    this.expect(close);
    return text;
  }

  private string(): string {
    this.expect(0x22);
    let out = "";
    let from = this.at;
    for (; this.at < this.text.length; this.at++) {
      const c = this.text.charCodeAt(this.at);
      if (c == 0x22) {
        out += this.text.substring(from, this.at++);
        return out;
      }
      if (c != 0x5c) continue;
      out += this.text.substring(from, this.at++);
      if (this.at == this.text.length) break;
      const e = this.text.charCodeAt(this.at);
      if (e == 0x75) {
        const unit = this.unit(this.at + 1);
        const low = this.text.substr(this.at + 5, 2) == "\\u" ? this.unit(this.at + 7) : 0;
        this.at += 4;
        if ((unit & 0xfc00) == 0xd800 && (low & 0xfc00) == 0xdc00) {
          out += String.fromCharCode(unit) + String.fromCharCode(low);
          this.at += 6;
        } else {
          out += String.fromCharCode((unit & 0xf800) == 0xd800 ? 0xfffd : unit); // half of a pair is no character
        }
      } else {
        const i = '"\\/bfnrt'.indexOf(String.fromCharCode(e));
        if (i < 0) this.fail();
        out += '"\\/\b\f\n\r\t'.charAt(i);
      }
      from = this.at + 1;
    }
    this.fail();
    return "";
  }

  private unit(at: i32): i32 {
    if (at + 4 > this.text.length) this.fail();
    let unit = 0;
    for (let i = at; i < at + 4; i++) unit = (unit << 4) | this.hex(this.text.charCodeAt(i));
    return unit;
  }

  private hex(c: i32): i32 {
    if (c >= 0x30 && c <= 0x39) return c - 0x30;
    if ((c | 0x20) >= 0x61 && (c | 0x20) <= 0x66) return (c | 0x20) - 0x57;
    this.fail();
    return 0;
  }

  private peek(): i32 {
    while (this.at < this.text.length && " \t\r\n".indexOf(this.text.charAt(this.at)) >= 0) this.at++;
    return this.at < this.text.length ? this.text.charCodeAt(this.at) : 0;
  }

  private next(c: i32): bool {
    if (this.peek() != c) return false;
    this.at++;
    return true;
  }

  private expect(c: i32): void {
    if (!this.next(c)) this.fail();
  }

  private fail(): void {
    throw new Error("reading the request: its head is not JSON");
  }
}
