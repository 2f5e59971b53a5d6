# What an unmodified boto3 does against the gateway, for TestBoto3. The environment
# says where that is and with which key, as `casemate key create --aws` prints it.
# On standard output: one JSON object with what came of each step.
import json, os
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

client = boto3.client("lambda", config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
seen = {}


def step(name, call, *take):
    try:
        answer = call()
        if "Payload" in answer:
            answer["Payload"] = answer["Payload"].read().decode()
        seen[name] = {k: answer.get(k) for k in take}
    except ClientError as e:
        error = e.response["Error"]
        meta = e.response["ResponseMetadata"]
        seen[name] = {"error": error["Code"], "message": error["Message"], "status": meta["HTTPStatusCode"], "retries": meta["RetryAttempts"],
                      "typed": type(e).__name__, "after": meta["HTTPHeaders"].get("retry-after"), "id": meta.get("RequestId")}


arn = "arn:aws:lambda:us-east-1:123456789012:function:shop_cart"
invoked = ("StatusCode", "FunctionError", "ExecutedVersion", "Payload", "LogResult")
step("plain", lambda: client.invoke(FunctionName="hello", Payload=b'{"text":"gr\\u00fc\\u00dfe %+ /"}'), *invoked)
step("tail", lambda: client.invoke(FunctionName="hello", LogType="Tail", InvocationType="RequestResponse", ClientContext="eyJjdXN0b20iOnt9fQ=="), *invoked)
step("qualified", lambda: client.invoke(FunctionName="hello", Qualifier="$LATEST", Payload=b"{}"), *invoked)
step("arn", lambda: client.invoke(FunctionName=arn + ":live", Payload=b"{}"), *invoked)
step("dry", lambda: client.invoke(FunctionName="hello", InvocationType="DryRun"), "StatusCode")
step("event", lambda: client.invoke(FunctionName="hello", InvocationType="Event", Payload=b"{}"))
step("fault", lambda: client.invoke(FunctionName="fault", Payload=b"{}"), *invoked)
step("missing", lambda: client.invoke(FunctionName="nothing", Payload=b"{}"))
step("busy", lambda: client.invoke(FunctionName="busy", Payload=b"{}"), *invoked)
step("full", lambda: client.invoke(FunctionName="full", Payload=b"{}"))
step("withheld", lambda: client.invoke(FunctionName="withheld", Payload=b"{}"))
step("function", lambda: client.get_function(FunctionName="hello"), "Configuration", "Tags")
step("configuration", lambda: client.get_function_configuration(FunctionName="hello", Qualifier="live"), "FunctionName", "MemorySize", "Timeout")
step("alias", lambda: client.get_alias(FunctionName="hello", Name="live"), "Name", "FunctionVersion", "RoutingConfig")
step("names", lambda: {"all": [f["FunctionName"] for page in client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 1}) for f in page["Functions"]]}, "all")
step("versions", lambda: {"all": [f["Version"] for page in client.get_paginator("list_versions_by_function").paginate(FunctionName="hello", PaginationConfig={"PageSize": 2}) for f in page["Versions"]]}, "all")
forger = boto3.client("lambda", aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="guess")
step("forged", lambda: forger.invoke(FunctionName="hello", Payload=b"{}"))
print(json.dumps(seen))
