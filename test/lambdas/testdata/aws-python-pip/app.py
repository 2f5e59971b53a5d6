# As in the tutorial of Powertools for AWS Lambda (Python): a router on function URLs.
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import LambdaFunctionUrlResolver

logger = Logger(service="hello")
app = LambdaFunctionUrlResolver(strip_prefixes=["/aws-python-pip"])


@app.get("/hello/<name>")
def hello_name(name):
    logger.info("Request from %s received", name)
    return {"message": f"hello {name}!"}


@app.post("/echo")
def echo():
    return {"got": app.current_event.json_body}


@logger.inject_lambda_context
def lambda_handler(event, context):
    return app.resolve(event, context)
