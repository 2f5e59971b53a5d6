// Answers {"name":"Ada"} with {"hello":"Ada"}.
export default {
  async fetch(request) {
    const { name } = await request.json();
    return Response.json({ hello: name });
  },
};
