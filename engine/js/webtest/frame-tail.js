// What stands after the cases: a handler that runs them all.

// A case whose promise is still pending after this many milliseconds gives
// "never". Nothing that is not meant to takes a hundredth of it.
const PATIENCE = 3000;

async function settled(f) {
  let timer;
  const never = new Promise((r) => { timer = setTimeout(r, PATIENCE, "«never»"); });
  const v = await Promise.race([attemptAsync(f), never]);
  clearTimeout(timer);
  return v;
}

export default {
  async fetch() {
    const out = {};
    for (const { kind, name, f } of cases) {
      if (kind === "log") {
        console.log(MARK + name);
        try {
          await f();
        } catch (e) {
          console.log("threw", e?.name);
        }
        continue;
      }
      out[name] = await settled(f);
    }
    console.log(MARK);
    return Response.json(out);
  },
};
