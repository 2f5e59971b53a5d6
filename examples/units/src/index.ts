// A converter of units with a page and an API, on Hono (https://hono.dev).
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { secureHeaders } from "hono/secure-headers";
import { validator } from "hono/validator";

import { page } from "./page";
import { convert, quantities } from "./units";

const app = new Hono<{ Bindings: Casemate.Env }>().basePath("/units");

app.use(secureHeaders({ contentSecurityPolicy: { defaultSrc: ["'none'"], styleSrc: ["'unsafe-inline'"], formAction: ["'self'"] } }));
app.use(async (c, next) => {
  await next();
  console.log(`${c.req.method} ${c.req.path} ${c.res.status}`);
});

// The page works without scripts: its form sends the query back.
app.get("/", (c) => {
  const { value, from = "km", to = "mi" } = c.req.query();
  if (value === undefined) return c.html(page({ from, to }));
  const result = convert(Number(value), from, to);
  if (typeof result === "string") return c.html(page({ value, from, to, error: result }), 422);
  return c.html(page({ value, from, to, result }));
});

app.get("/quantities", (c) => c.json(quantities));

const conversion = validator("json", (input: unknown) => {
  const { value, from, to } = (input ?? {}) as Record<string, unknown>;
  const errors: string[] = [];
  if (typeof value !== "number" || !Number.isFinite(value)) errors.push("value must be a number");
  if (typeof from !== "string") errors.push("from must name a unit");
  if (typeof to !== "string") errors.push("to must name a unit");
  if (errors.length > 0) throw new HTTPException(422, { message: errors.join("; ") });
  return { value: value as number, from: from as string, to: to as string };
});

app.post("/convert", conversion, (c) => {
  const { value, from, to } = c.req.valid("json");
  const result = convert(value, from, to);
  if (typeof result === "string") throw new HTTPException(422, { message: result });
  return c.json({ value, from, to, result });
});

app.notFound((c) => c.json({ error: `there is no ${c.req.path}` }, 404));
app.onError((e, c) => {
  if (e instanceof HTTPException) return c.json({ error: e.message }, e.status);
  throw e; // the platform answers 502; message and stack are in the log
});

// The router builds its tables when it is first asked. Asked here, it has them in
// the state that every invocation starts from.
app.router.match("GET", "/units");

export default app;
