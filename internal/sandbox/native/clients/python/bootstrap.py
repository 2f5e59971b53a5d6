# Runs a Lambda handler for Python: speaks the AWS Lambda Runtime API over one socket.
# It imports next to nothing, because every module costs each sandbox memory and time.
import json
import os
import sys
import time
from _socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

env = os.environ
host, _, port = env["AWS_LAMBDA_RUNTIME_API"].rpartition(":")
root = env.get("LAMBDA_TASK_ROOT", "/var/task")


class Failure(Exception):
    """Something that the runtime finds wrong, with the name AWS has for it."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind, self.trace = kind, list(trace)


class API:
    """The Runtime API. One request at a time; answers always have a Content-Length."""

    def __init__(self):
        self.socket, self.rest = None, b""

    def connect(self):
        self.socket, self.rest = socket(AF_INET, SOCK_STREAM, 0), b""
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)

    def call(self, method, path, body=b"", headers=""):
        if self.socket is None:
            self.connect()
        head = "%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n%s\r\n" % (
            method, path, host, len(body), headers)
        self.socket.sendall(head.encode("latin-1") + body)
        data = self.rest
        end = data.find(b"\r\n\r\n")
        while end < 0:
            data += self.receive()
            end = data.find(b"\r\n\r\n")
        # The client context is a caller's text.
        lines = data[:end].decode("utf-8", "replace").split("\r\n")
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        parts, have = [data[end + 4:]], len(data) - end - 4
        length = int(fields.get("content-length", 0))
        while have < length:
            parts.append(self.receive())
            have += len(parts[-1])
        data = b"".join(parts)
        self.rest = data[length:]
        if fields.get("connection") == "close":
            self.socket.close()
            self.socket = None
        return int(lines[0][9:12]), fields, data[:length]

    def receive(self):
        data = self.socket.recv(262144)
        if not data:
            sys.exit(1)  # the platform is gone, and so is the reason to be
        return data


api = API()


class Fields:
    """An object with the fields that it is given."""

    def __init__(self, fields):
        self.__dict__.update(fields)


class Context:
    """What a handler learns of its invocation, as AWS documents it."""

    def __init__(self, fields):
        self.aws_request_id = fields.get("lambda-runtime-aws-request-id")
        self.invoked_function_arn = fields.get("lambda-runtime-invoked-function-arn")
        self.function_name = env.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = env.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = env.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = env.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self._deadline = int(fields.get("lambda-runtime-deadline-ms", 0))
        identity = json.loads(fields.get("lambda-runtime-cognito-identity") or "{}")
        self.identity = Fields({
            "cognito_identity_id": identity.get("cognitoIdentityId"),
            "cognito_identity_pool_id": identity.get("cognitoIdentityPoolId")})
        self.client_context = None
        if fields.get("lambda-runtime-client-context"):
            given = json.loads(fields["lambda-runtime-client-context"])
            client = given.get("client")
            names = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
            self.client_context = Fields({
                "custom": given.get("custom"), "env": given.get("env"),
                "client": client and Fields({n: client.get(n) for n in names})})

    def get_remaining_time_in_millis(self):
        return max(self._deadline - int(time.time() * 1000), 0)

    def log(self, message):
        sys.stdout.write(str(message) + "\n")

    def __repr__(self):
        return "LambdaContext(%s)" % ",".join("%s=%s" % p for p in vars(self).items() if p[0][0] != "_")


request_id = ""  # of the invocation under way, for log lines


class LoggingHook:
    """Gives the root logger AWS's handler when, and only when, the function imports logging."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec
        spec = find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            equip(module)

        class Loader:
            create_module = staticmethod(spec.loader.create_module)

        Loader.exec_module = staticmethod(exec_module)
        spec.loader = Loader()
        return spec


def equip(logging):
    class Handler(logging.Handler):
        def emit(self, record):
            try:
                sys.stderr.write(self.format(record) + "\n")
            except Exception:
                self.handleError(record)

    class Formatter(logging.Formatter):
        converter = time.gmtime

        def format(self, record):
            record.aws_request_id = request_id
            return super().format(record)

    handler = Handler()
    handler.setFormatter(Formatter("[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.root.addHandler(handler)
    level = env.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = {"TRACE": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}.get(level, level)
    if level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        logging.root.setLevel(level)


def load(name):
    module, dot, function = name.rpartition(".")
    if not dot or not module or not function:
        raise Failure("Runtime.MalformedHandlerName", "Bad handler '%s': not enough values to unpack (expected 2, got 1)" % name)
    module = module.replace("/", ".")
    try:
        from importlib import import_module
        found = import_module(module)
    except ImportError as e:
        raise Failure("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module, e), frames(e)) from None
    except SyntaxError as e:
        where = '  File "%s" Line %s\n    %s' % (e.filename, e.lineno, (e.text or "").strip())
        raise Failure("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module, e), [where]) from None
    try:
        return getattr(found, function)
    except AttributeError:
        raise Failure("Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (function, module)) from None


def frames(error):
    """The calls that led to error, without ours and the import system's."""
    import traceback
    return [f for f in traceback.format_tb(error.__traceback__)
            if __file__ not in f and "<frozen importlib" not in f and "importlib/__init__.py" not in f]


def report(error):
    if isinstance(error, Failure):
        kind, trace = error.kind, error.trace
    else:
        kind, trace = type(error).__name__, frames(error)
    try:
        message = str(error)
    except Exception:
        message = "an error that has no text"
    r = {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}
    text = "[ERROR] %s: %s\n" % (kind, message)
    if trace:
        text += "Traceback (most recent call last):\n" + "".join(line if line.endswith("\n") else line + "\n" for line in trace)
    sys.stdout.flush()
    sys.stderr.write(text)
    return r


def post_error(path, r):
    kind = r["errorType"] if r["errorType"].isascii() and r["errorType"].isprintable() else "Error"
    api.call("POST", path, json.dumps(r).encode(),
             "Content-Type: application/vnd.aws.lambda.error+json\r\nLambda-Runtime-Function-Error-Type: %s\r\n" % kind)


def plain(value):
    """Numbers of the module decimal, which DynamoDB gives, are JSON."""
    decimal = sys.modules.get("decimal")
    if decimal and isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


def invoke(handler, fields, body):
    try:
        event = json.loads(body)
    except ValueError as e:
        raise Failure("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % e) from None
    result = handler(event, Context(fields))
    try:
        return json.dumps(result, ensure_ascii=False, default=plain).encode()
    except Exception as e:
        raise Failure("Runtime.MarshalError", "Unable to marshal response: %s" % e) from None


def main():
    global request_id
    # A pipe would otherwise keep lines back until it is full.
    sys.stdout.reconfigure(line_buffering=True)
    # The module site, which is not loaded, would give these.
    import builtins
    builtins.exit = builtins.quit = sys.exit
    # What is run as a program stands first in the path; the function's code belongs there.
    sys.path[0] = root
    if "logging" in sys.modules:
        equip(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, LoggingHook())
    try:
        handler = load(env["_HANDLER"])
    except Exception as e:
        post_error("init/error", report(e))
        sys.exit(1)
    while True:
        status, fields, body = api.call("GET", "invocation/next")
        if status != 200:
            sys.exit("the platform refused an event with %d: %s" % (status, body.decode("utf-8", "replace")))
        request_id = fields["lambda-runtime-aws-request-id"]
        if fields.get("lambda-runtime-trace-id"):
            env["_X_AMZN_TRACE_ID"] = fields["lambda-runtime-trace-id"]
        else:  # the one of the invocation before
            env.pop("_X_AMZN_TRACE_ID", None)
        try:
            body = invoke(handler, fields, body)
        except Exception as e:
            post_error("invocation/%s/error" % request_id, report(e))
            continue
        sys.stdout.flush()
        api.call("POST", "invocation/%s/response" % request_id, body, "Content-Type: application/json\r\n")


main()
