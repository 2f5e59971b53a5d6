// What the engine's report of an exception says besides its name, message, stack and
// causes. The engine asks once for each exception that ends an invocation or that
// nobody caught; see NATIVES.md.
const HERE_INSTEAD = {
  process: "the environment is the handler's second argument, env",
  Buffer: "Uint8Array, TextEncoder, TextDecoder, atob and btoa do its work",
  require: "write import, and the bundler finds it",
  setImmediate: "use queueMicrotask or setTimeout",
};
const OF_NODE = ["process", "Buffer", "require", "module", "exports", "__dirname", "__filename", "setImmediate", "clearImmediate"];
const NOT_HERE = [
  "Intl", "Temporal", "Atomics", "WebAssembly", "URLPattern", "CompressionStream", "DecompressionStream", "MessageChannel", "MessagePort",
  "BroadcastChannel", "WebSocket", "WebSocketPair", "EventSource", "XMLHttpRequest", "Worker", "SharedWorker", "caches", "Cache", "CacheStorage",
  "HTMLRewriter", "FixedLengthStream", "IdentityTransformStream", "scheduler", "connect", "indexedDB", "localStorage", "sessionStorage",
  "document", "window", "DOMParser", "FileReader", "ErrorEvent", "PromiseRejectionEvent", "ReadableByteStreamController", "ReadableStreamBYOBReader",
];
const TOLD_ALREADY = ["name", "message", "stack", "cause"];

// explain gives what stands in the place of an object that was thrown and is no error,
// or what is to stand below an error; undefined when there is nothing to say.
function explain(value, below) {
  if (!(value instanceof Error)) return below ? undefined : inspect(value);
  if (!below) return undefined;
  const missing = value instanceof ReferenceError && /^(\w+) is not defined$/.exec(value.message)?.[1];
  if (OF_NODE.includes(missing)) {
    return `note: ${missing} belongs to Node.js, which is another runtime (nodejs); here ${HERE_INSTEAD[missing] ?? "a function is one ES module"}`;
  }
  if (NOT_HERE.includes(missing)) return `note: this runtime has no ${missing}; docs/javascript.md lists what it has, and nodejs is a runtime with more`;
  const more = {};
  for (const k of objectKeys(value)) if (!TOLD_ALREADY.includes(k)) more[k] = value[k];
  if (isArray(value.errors)) more.errors = value.errors;
  return objectKeys(more).length === 0 ? undefined : inspect(more);
}
