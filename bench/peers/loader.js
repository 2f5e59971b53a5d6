// A fresh isolate for each request, by the worker loader.
const code = `export default {
  async fetch(request) {
    const { name } = await request.json();
    return Response.json({ hello: name });
  },
};`;
let n = 0;
export default {
  async fetch(request, env) {
    const worker = env.LOADER.get("w" + n++, () => ({
      compatibilityDate: "2026-11-01",
      mainModule: "worker.js",
      modules: { "worker.js": code },
      globalOutbound: null,
    }));
    return worker.getEntrypoint().fetch(request);
  },
};
