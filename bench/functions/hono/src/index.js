import app from "./app.js";

// The router builds its tables when it is first asked. Asked here, it has them in
// the state that every invocation starts from.
app.router.match("GET", "/hono");

export default app;
