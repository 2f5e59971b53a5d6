// Middy is the middleware engine that AWS's own guides use; dayjs is a plain dependency.
import middy from "@middy/core";
import httpJsonBodyParser from "@middy/http-json-body-parser";
import dayjs from "dayjs";

const due = async (event) => {
  const { issued, days } = event.body;
  return { statusCode: 200, body: JSON.stringify({ due: dayjs(issued).add(days, "day").format("YYYY-MM-DD") }) };
};

export const handler = middy().use(httpJsonBodyParser()).handler(due);
