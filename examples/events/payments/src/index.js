// Charges customers for orders. It subscribes to the topic "orders" and sees what passes
// the filter and the schema in casemate.yaml. An event may come more than once: its id is
// what to remember. What fails three times goes to the topic "failed".
const limit = 1_000_000; // cents

export default {
  async fetch(request) {
    const order = request.headers.get("ce-id");
    const { customer, cents } = await request.json();
    if (cents > limit) {
      throw new Error(`${order}: ${cents} cents need a human`);
    }
    console.log(`order ${order}: ${customer} pays ${(cents / 100).toFixed(2)} €`);
    return Response.json({ charged: cents });
  },
};
