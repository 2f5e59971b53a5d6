// Says hello, and when it was called, in nanoseconds since the epoch.
exports.handler = async (event) => {
  const at = Math.round((performance.timeOrigin + performance.now()) * 1e6);
  if (event.millis) {
    await new Promise((resolve) => setTimeout(resolve, event.millis));
  }
  return { hello: event.name, at };
};
