// A fresh isolate for each request, by the worker loader.
const code = `export default {
  async fetch(request) {
    const { name } = await request.json();
    return Response.json({ hello: name });
  },
};`;
export default {
  async fetch(request, env) {
    const worker = env.LOADER.load({
      compatibilityDate: "2026-11-01",
      mainModule: "worker.js",
      modules: { "worker.js": code },
      globalOutbound: null,
    });
    return worker.getEntrypoint().fetch(request);
  },
};
