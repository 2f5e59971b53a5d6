// The same hello for workerd: JSON in, JSON out, the name echoed.
export default {
  async fetch(request) {
    const { name } = await request.json();
    return Response.json({ hello: name });
  },
};
