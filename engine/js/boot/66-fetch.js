// fetch is there, so that libraries load, and refuses: a function has no way out yet.
async function fetch(input, init = undefined) {
  needArguments(arguments.length, 1, "fetch");
  const request = new Request(input, init);
  throw new TypeError(`fetch failed: the function has no outbound grant, so it cannot reach ${request.url}`);
}
globalFunction(fetch);
