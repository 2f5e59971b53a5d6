"""Reads an RSS feed and answers with its entries as JSON. An AWS Lambda handler behind a
function URL, with a package from PyPI. Nothing in it knows of Casemate."""

import base64
import json
from email.utils import parsedate_to_datetime

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException


def lambda_handler(event, context):
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body)
    try:
        channel = ElementTree.fromstring(body).find("channel")
    except DefusedXmlException:
        return answer(422, {"error": "the feed declares entities"})
    except ElementTree.ParseError as e:
        return answer(400, {"error": f"the body is not XML: line {e.position[0]}"})
    if channel is None:
        return answer(422, {"error": "the feed has no channel"})
    entries = [entry(item) for item in channel.findall("item")]
    print(f"{context.aws_request_id}: {len(entries)} entries")
    return answer(200, {"title": channel.findtext("title", ""), "entries": entries})


def entry(item):
    published = item.findtext("pubDate")
    return {
        "title": item.findtext("title", ""),
        "link": item.findtext("link", ""),
        "published": parsedate_to_datetime(published).isoformat() if published else None,
    }


def answer(status, body):
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(body),
    }
