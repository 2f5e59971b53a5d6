"""Notes what is uploaded. An AWS Lambda handler with the records that S3 sends."""

from urllib.parse import unquote_plus


def lambda_handler(event, context):
    for record in event["Records"]:
        item = record["s3"]["object"]
        print(f"{record['eventName']} {unquote_plus(item['key'])}, {item['size']} bytes")
