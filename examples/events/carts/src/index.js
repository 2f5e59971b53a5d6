// Reads a stream of Redis as a member of a consumer group. An entry's fields are texts.
export default {
  async queue(batch) {
    for (const { id, body } of batch.messages) {
      console.log(`cart ${body.cart} was left with ${Number(body.items)} items (entry ${id})`);
    }
  },
};
