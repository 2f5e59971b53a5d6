// A small Hono app with what such apps have: routes, parameters, middleware and
// validated JSON. Casemate runs it through index.js, Node through peers/hono.mjs.
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { secureHeaders } from "hono/secure-headers";
import { validator } from "hono/validator";

const app = new Hono().basePath("/hono");

app.use(secureHeaders());
app.use(async (c, next) => {
  await next();
  c.header("x-served-by", "hono");
});

const named = validator("json", (input) => {
  if (typeof input?.name !== "string") throw new HTTPException(422, { message: "name must be a string" });
  return { name: input.name };
});

app.get("/", (c) => c.text("hello"));
app.get("/people/:name", (c) => c.json({ hello: c.req.param("name") }));
app.post("/people", named, (c) => c.json({ created: c.req.valid("json").name }, 201));
app.post("/hello", named, (c) => c.json({ hello: c.req.valid("json").name }));
app.delete("/people/:name", (c) => c.body(null, 204));

app.notFound((c) => c.json({ error: `there is no ${c.req.path}` }, 404));
app.onError((e, c) => c.json({ error: e.message }, e instanceof HTTPException ? e.status : 500));

export default app;
