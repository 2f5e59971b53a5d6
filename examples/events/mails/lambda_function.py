"""Sends mail. An AWS Lambda handler for an SQS queue, which names the messages of a batch
that failed (ReportBatchItemFailures); the others do not come again."""

import json


def lambda_handler(event, context):
    failed = []
    for record in event["Records"]:
        to = json.loads(record["body"])["to"]
        if to.endswith(".invalid"):
            print(f"no mail to {to}")
            failed.append({"itemIdentifier": record["messageId"]})
        else:
            print(f"mail to {to}")
    return {"batchItemFailures": failed}
