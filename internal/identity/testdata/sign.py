# Signs random requests with botocore, for TestEveryRequestThatBotocoreSigns. On
# standard input: a line with the access key and the secret, and how many. On
# standard output: one JSON object a line.
import base64, json, random, string, sys
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from urllib.parse import quote, urlsplit

key, secret, count = sys.stdin.readline().split()
dice = random.Random(int(count))
printable = string.ascii_letters + string.digits + " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~äß€"


def text(alphabet, least, most):
    return "".join(dice.choice(alphabet) for _ in range(dice.randint(least, most)))


for _ in range(int(count)):
    segments = [text(string.ascii_letters + string.digits + "-_~:$=,@ !*'()%äß", 1, 20) for _ in range(dice.randint(0, 5))]
    segments = [s for s in segments if s.strip() not in ("", ".", "..")]
    url = "https://node.example:8443/" + "/".join(quote(s, safe="-_.~") for s in segments)
    params = {text(printable, 1, 8): text(printable, 0, 12) for _ in range(dice.randint(0, 4))}
    headers = {}
    for _ in range(dice.randint(0, 5)):
        headers["X-" + text(string.ascii_letters, 1, 1) + text(string.ascii_letters + string.digits + "-", 0, 10).strip("-") + "q"] = text(string.ascii_letters + "  =/;,\"", 1, 30).strip() or "x"
    if dice.random() < 0.5:
        headers["X-Amz-Invocation-Type"] = "RequestResponse"
    body = dice.randbytes(dice.choice([0, 1, 100, 5000]))
    request = AWSRequest(dice.choice(["GET", "POST", "PUT", "DELETE"]), url, headers, body, params)
    SigV4Auth(Credentials(key, secret), "lambda", dice.choice(["us-east-1", "eu-central-2", "local"])).add_auth(request)
    sent = request.prepare()
    parts = urlsplit(sent.url)
    print(json.dumps({
        "method": sent.method, "host": parts.netloc,
        "target": parts.path + ("?" + parts.query if parts.query else ""),
        "header": [[k, v if isinstance(v, str) else v.decode()] for k, v in sent.headers.items()],
        "body": base64.b64encode(body).decode(),
    }))
