// Books what an application has written into its outbox. An AWS Lambda handler with the
// event of an EventBridge rule: the row's type is detail-type, its payload is detail.
export const handler = async (event) => {
  const { account, cents } = event.detail;
  const way = event["detail-type"] === "bank.deposit" ? "credit" : "debit";
  console.log(`${way} ${account} ${(cents / 100).toFixed(2)}`);
  return { account, [way]: cents };
};
