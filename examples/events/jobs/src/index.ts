// Works through a queue of RabbitMQ, in batches. A message for which retry is called comes
// again later, alone; its neighbours are done.
interface Job {
  job: "resize" | "mail";
  notBefore?: number; // attempts
}

export default {
  async queue(batch, env) {
    for (const message of batch.messages) {
      const { job, notBefore = 0 } = message.body as Job;
      if (message.attempts < notBefore) {
        message.retry();
        continue;
      }
      console.log(`${job} done at attempt ${message.attempts}`);
    }
  },
} satisfies Casemate.Handler;
