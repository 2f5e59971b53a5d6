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
  const text = String.UTF8.encode(line + "\n");
  write(STDERR, changetype<usize>(text), text.byteLength, 0, 0);
}

/**
 * Hands one request to the function and writes its answer. Call it from the
 * exported handle; with `entry: command`, at the top level instead. When the function
 * throws, the message goes to the log and the caller gets a 502 that says nothing
 * about it.
 */
export function serve(fn: (request: Request) => Response): void {
  const response = fn(readRequest());
  used = 0;
  put('{"status":' + response.status.toString() + ',"headers":{');
  const names = response.headers.keys();
  for (let i = 0; i < names.length; i++) {
    if (i > 0) put(",");
    put(quote(names[i]));
    put(":");
    put(quote(response.headers.get(names[i])));
  }
  put("}}\n");
  write(STDOUT, head, used, changetype<usize>(response.body), response.body.byteLength);
}

/** Where the answer's head is put together, and how much of it there is. */
const HEAD_SIZE: i32 = 64 << 10;
const head: usize = memory.data(65536);
let used: i32 = 0;

function put(text: string): void {
  if (text.length > (HEAD_SIZE - used) / 3) throw new Error("writing the answer: its head is too long");
  used += String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, head + used) as i32;
}

/** Writes a string as JSON, with its quotes. */
export function quote(text: string): string {
  let out = '"';
  let from = 0; // what stands for itself is copied in one piece
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c >= 0x20 && c != 0x22 && c != 0x5c) continue;
    out += text.substring(from, i) + (c < 0x20 ? "\\u" + c.toString(16).padStart(4, "0") : "\\" + text.charAt(i));
    from = i + 1;
  }
  return out + text.substring(from) + '"';
}

/** The compiler calls this for `throw` and for failed checks. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log("error: " + (message ? message : "abort") + " at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  proc_exit(1);
}

/** Where a request is read to; a larger one gets more. */
const FIRST_SIZE: i32 = 64 << 10;
const first: usize = memory.data(65536);

function readRequest(): Request {
  let input = first;
  let size = FIRST_SIZE;
  let length = 0;
  for (let n = 0; (n = read(input + length, size - length)) > 0; ) {
    length += n;
    if (length < size) continue;
    size *= 4;
    const larger = heap.alloc(size);
    memory.copy(larger, input, length);
    if (input != first) heap.free(input);
    input = larger;
  }
  let end = 0;
  while (end < length && load<u8>(input + end) != 0x0a) end++;
  if (end == length) throw new Error("reading the request: it has no head");
  const request = new Request();
  new Head(input, input + end, request).read();
  request.body = new ArrayBuffer(length - end - 1);
  memory.copy(changetype<usize>(request.body), input + end + 1, length - end - 1);
  if (input != first) heap.free(input);
  return request;
}

/** Two vectors (pointer, length), and the count that a call gives. */
const vectors: usize = memory.data(24);

function read(pointer: usize, length: i32): i32 {
  store<u32>(vectors, pointer as u32);
  store<u32>(vectors, length as u32, 4);
  if (fd_read(STDIN, vectors, 1, vectors + 16) != 0) proc_exit(1);
  return load<i32>(vectors, 16);
}

/** Writes two pieces, in one go when they are taken whole. */
function write(fd: u32, pointer: usize, length: i32, pointer2: usize, length2: i32): void {
  while (length + length2 > 0) {
    store<u32>(vectors, pointer as u32);
    store<u32>(vectors, length as u32, 4);
    store<u32>(vectors, pointer2 as u32, 8);
    store<u32>(vectors, length2 as u32, 12);
    if (fd_write(fd, vectors, 2, vectors + 16) != 0) proc_exit(1);
    const written = load<i32>(vectors, 16);
    const here = min(written, length);
    pointer += here;
    length -= here;
    pointer2 += written - here;
    length2 -= written - here;
  }
}

/** Reads a head: as much of JSON (RFC 8259) as it takes. */
class Head {
  constructor(
    private at: usize,
    private end: usize,
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
      for (; this.at < this.end; this.at++) {
        const c = load<u8>(this.at);
        if (c <= 0x20 || c == 0x2c || c == 0x5d || c == 0x7d) break;
      }
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
    const start = this.at;
    let escaped = false;
    for (; this.at < this.end; this.at++) {
      const c = load<u8>(this.at);
      if (c == 0x5c) {
        escaped = true;
        this.at++;
      } else if (c == 0x22) {
        const text = String.UTF8.decodeUnsafe(start, this.at++ - start);
        return escaped ? this.unescape(text) : text;
      }
    }
    this.fail();
    return "";
  }

  private unescape(text: string): string {
    let out = "";
    let from = 0;
    for (let at = text.indexOf("\\"); at >= 0; at = text.indexOf("\\", from)) {
      out += text.substring(from, at);
      const e = text.charCodeAt(at + 1);
      from = at + 2;
      if (e == 0x75) {
        const unit = this.unit(text, from);
        const low = text.substr(at + 6, 2) == "\\u" ? this.unit(text, at + 8) : 0;
        from += 4;
        if ((unit & 0xfc00) == 0xd800 && (low & 0xfc00) == 0xdc00) {
          out += String.fromCharCode(unit) + String.fromCharCode(low);
          from += 6;
        } else {
          out += String.fromCharCode((unit & 0xf800) == 0xd800 ? 0xfffd : unit); // half of a pair is no character
        }
      } else {
        const i = '"\\/bfnrt'.indexOf(String.fromCharCode(e));
        if (i < 0) this.fail();
        out += '"\\/\b\f\n\r\t'.charAt(i);
      }
    }
    return out + text.substring(from);
  }

  private unit(text: string, at: i32): i32 {
    if (at + 4 > text.length) this.fail();
    let unit = 0;
    for (let i = at; i < at + 4; i++) unit = (unit << 4) | this.hex(text.charCodeAt(i));
    return unit;
  }

  private hex(c: i32): i32 {
    if (c >= 0x30 && c <= 0x39) return c - 0x30;
    if ((c | 0x20) >= 0x61 && (c | 0x20) <= 0x66) return (c | 0x20) - 0x57;
    this.fail();
    return 0;
  }

  private peek(): i32 {
    for (; this.at < this.end; this.at++) {
      const c = load<u8>(this.at);
      if (c != 0x20 && (c < 0x09 || c > 0x0d)) return c;
    }
    return 0;
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
