// When is an invoice due? An AWS Lambda handler behind a function URL, with a package
// from npm. Nothing in it knows of Casemate.
import { addBusinessDays, addDays, endOfMonth, formatISO, isValid, parseISO } from "date-fns";

const terms = [
  [/^net (\d{1,3})$/, (issued, days) => addDays(issued, days)],
  [/^net (\d{1,3}) business days$/, (issued, days) => addBusinessDays(issued, days)],
  [/^(\d{1,3}) days end of month$/, (issued, days) => endOfMonth(addDays(issued, days))],
];

export const handler = async (event, context) => {
  let invoice;
  try {
    invoice = JSON.parse(event.isBase64Encoded ? Buffer.from(event.body, "base64") : event.body);
  } catch {
    return answer(400, { error: "the body is not JSON" });
  }
  const issued = parseISO(String(invoice?.issued));
  if (!isValid(issued)) {
    return answer(422, { error: "issued must be a date, such as 2026-01-31" });
  }
  for (const [form, due] of terms) {
    const found = form.exec(invoice.terms);
    if (found) {
      const date = formatISO(due(issued, Number(found[1])), { representation: "date" });
      console.log(`${context.awsRequestId}: ${invoice.terms} from ${invoice.issued} is ${date}`);
      return answer(200, { due: date });
    }
  }
  return answer(422, { error: "terms must be net N, net N business days, or N days end of month" });
};

const answer = (statusCode, body) => ({
  statusCode,
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});
