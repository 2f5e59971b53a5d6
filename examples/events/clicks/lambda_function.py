"""Counts clicks for each page. An AWS Lambda handler for a Kafka topic: the event has the
shape that AWS gives it, with keys and values in base64. Nothing in it knows of Casemate."""

import base64
import collections
import json


def lambda_handler(event, context):
    pages = collections.Counter()
    for records in event["records"].values():  # by topic and partition
        for record in records:
            try:
                pages[json.loads(base64.b64decode(record["value"]))["page"]] += 1
            except (ValueError, KeyError, TypeError):
                pages["?"] += 1
    for page, clicks in sorted(pages.items()):
        print(f"{page}: {clicks} clicks")
    return dict(pages)
