import assert from "node:assert/strict";
import { test } from "node:test";

import handler from "./index.js";

const order = (cents) =>
  new Request("https://test/", { method: "POST", headers: { "ce-id": "o-1" }, body: JSON.stringify({ customer: "ada", cents }) });

test("charges", async () => {
  assert.deepEqual(await (await handler.fetch(order(4325))).json(), { charged: 4325 });
});

test("fails for what a human must see", async () => {
  await assert.rejects(handler.fetch(order(1_000_001)), /o-1: 1000001 cents/);
});
