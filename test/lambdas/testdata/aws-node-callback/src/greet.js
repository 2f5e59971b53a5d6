exports.greet = (name) => `${process.env.GREETING}, ${name || "world"}.`;
