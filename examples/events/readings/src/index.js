// Watches temperatures that come over NATS JetStream. A message is done when the handler
// returns.
const warm = 30;

export default {
  async queue(batch) {
    for (const { body } of batch.messages) {
      console.log(`${batch.queue}: ${body.sensor} at ${body.celsius} °C${body.celsius > warm ? ", too warm" : ""}`);
    }
  },
};
