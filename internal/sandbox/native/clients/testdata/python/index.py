import sys

calls = 0


def echo(event, context):
    global calls
    calls += 1
    return {"event": event, "calls": calls, "id": context.aws_request_id}


def context(event, c):
    import os
    return {
        "name": c.function_name, "version": c.function_version, "arn": c.invoked_function_arn, "memory": c.memory_limit_in_mb,
        "group": c.log_group_name, "stream": c.log_stream_name, "id": c.aws_request_id, "remaining": c.get_remaining_time_in_millis() > 1000,
        "custom": c.client_context.custom, "title": c.client_context.client.app_title, "identity": c.identity.cognito_identity_id,
        "trace": os.environ["_X_AMZN_TRACE_ID"],
    }


def trace(event, c):
    import os
    return os.environ.get("_X_AMZN_TRACE_ID", "none")


def throws(event, context):
    raise ValueError("wrong value")


def unmarshalable(event, context):
    return {1, 2}


def number(event, context):
    from decimal import Decimal
    return {"n": Decimal("1.5"), "text": "é"}


def exits(event, context):
    exit(7)


def logs(event, context):
    import logging
    logging.getLogger().setLevel(logging.INFO)
    print("to stdout")
    logging.getLogger("a").info("by logging")
    context.log("by context")
    return "logging" in sys.modules


def modules(event, context):
    return sorted(sys.modules)


def big(event, context):
    return "x" * event["size"]
