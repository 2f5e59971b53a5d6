// As in "Define Lambda function handler in TypeScript": types that vanish, code that stays.
import type { APIGatewayProxyEventV2, APIGatewayProxyResultV2 } from "aws-lambda";
import { randomUUID } from "node:crypto";

interface Item { id: string; serial: string }

export const handler = async (event: APIGatewayProxyEventV2): Promise<APIGatewayProxyResultV2> => {
  const item: Item = { id: event.rawPath.split("/").pop() ?? "", serial: randomUUID() };
  return { statusCode: 200, headers: { "content-type": "application/json" }, body: JSON.stringify({ id: item.id, serial: item.serial.length }) };
};
