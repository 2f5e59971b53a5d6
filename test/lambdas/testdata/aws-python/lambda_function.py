# The calculator of "Building Lambda functions with Python", behind a function URL.
import base64
import json
import logging

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def lambda_handler(event, context):
    body = event["body"]
    if event["isBase64Encoded"]:
        body = base64.b64decode(body)
    request = json.loads(body)
    length = request["length"]
    width = request["width"]
    area = calculate_area(length, width)
    logger.info("The area is %s (%s)", area, context.aws_request_id)
    return {"area": area, "name": context.function_name, "remaining": context.get_remaining_time_in_millis() > 0}


def calculate_area(length, width):
    return length * width
