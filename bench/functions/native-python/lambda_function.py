"""Says hello, and when it was called, in nanoseconds since the epoch."""
import time


def lambda_handler(event, context):
    at = time.time_ns()
    if "millis" in event:
        time.sleep(event["millis"] / 1000)
    return {"hello": event["name"], "at": at}
