// Adds the tax to a cart, with Google's Functions Framework, as for Cloud Functions.
// Nothing in it knows of Casemate.
const functions = require("@google-cloud/functions-framework");

const rates = { standard: 20n, reduced: 5n, zero: 0n }; // percent

functions.http("vat", (req, res) => {
  const { items } = req.body ?? {};
  if (!Array.isArray(items) || items.length === 0) {
    return res.status(422).json({ error: "items must be a list with something in it" });
  }
  let net = 0n;
  let tax = 0n;
  for (const { cents, quantity = 1, rate = "standard" } of items) {
    if (!Number.isSafeInteger(cents) || cents < 0 || !Number.isSafeInteger(quantity) || quantity < 1 || !Object.hasOwn(rates, rate)) {
      return res.status(422).json({ error: "an item has cents, perhaps a quantity, and a rate: standard, reduced or zero" });
    }
    const amount = BigInt(cents) * BigInt(quantity);
    net += amount;
    tax += (amount * rates[rate] + 50n) / 100n; // to the nearest cent, halves up
  }
  console.log(`${items.length} items`);
  res.json({ net: Number(net), tax: Number(tax), gross: Number(net + tax) });
});
