// Writes a report each night. A schedule hands over when the run was due, which is not
// quite the time at which it runs: what is computed from it is the same at a second try.
export default {
  async scheduled(controller, env) {
    const due = new Date(controller.scheduledTime);
    const day = new Date(due.getTime() - 24 * 60 * 60 * 1000).toISOString().slice(0, 10);
    for (const shop of (env.SHOPS ?? "").split(" ")) {
      console.log(`report for ${shop}, ${day}`);
    }
  },
} satisfies Casemate.Handler;
