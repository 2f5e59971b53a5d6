# A handler for AWS Lambda that does what its event tells it to, for tests.
import json
import os
import socket
import stat
import sys
import time

import planted

kept = None  # what a careless function leaves behind


def handler(event, context):
    order = json.loads(event["body"] or "{}") if "requestContext" in event else event
    return globals()["do_" + order.pop("do")](context=context, **order)


def do_echo(text="", context=None):
    return {"text": text, "word": planted.WORD, "id": context.aws_request_id}


def do_log(text="", context=None):
    print(text)
    return {}


def do_fail(text="", context=None):
    raise ValueError(text)


def do_sleep(millis=0, context=None):
    time.sleep(millis / 1000)
    return {}


def do_hold(millis=0, context=None):
    """Sleeps in a child, by which one can see from outside that it has begun."""
    child = os.fork()
    if child == 0:
        time.sleep(millis / 1000)
        os._exit(0)
    os.waitpid(child, 0)
    return {}


def do_exit(code=0, context=None):
    os._exit(code)


def do_die_later(millis=0, context=None):
    """Ends the process when the answer is out."""
    if os.fork() == 0:
        parent = os.getppid()
        time.sleep(millis / 1000)
        os.kill(parent, 9)
        os._exit(0)
    return {}


def do_keep(text="", context=None):
    """Gives what the call before left, in memory and in a file, and leaves something."""
    global kept
    seen = [kept, None]
    try:
        with open("/tmp/kept") as f:
            seen[1] = f.read()
    except FileNotFoundError:
        pass
    kept = text
    with open("/tmp/kept", "w") as f:
        f.write(text)
    return seen


def do_write(paths=(), context=None):
    """Tries to replace files; gives the reason why not, or "written"."""
    said = {}
    for path in paths:
        try:
            with open(path, "w") as f:
                f.write("import sys; sys.stdout.write('taken over')\n")
            said[path] = "written"
        except OSError as e:
            said[path] = e.strerror
            try:
                os.rename(path, path + ".old")
                said[path] += ", renamed"
            except OSError:
                pass
    return said


def ask(method, path, body=b"", timeout=2):
    """Asks the listener of the box, and gives status and body."""
    host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].rsplit(":", 1)
    s = socket.create_connection((host, int(port)), timeout)
    try:
        s.sendall(("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                   % (method, path, len(body))).encode() + body)
        data = b""
        while True:
            part = s.recv(65536)
            if not part:
                break
            data += part
    except TimeoutError:
        return 0, ""
    finally:
        s.close()
    head, _, rest = data.partition(b"\r\n\r\n")
    return int(head[9:12] or 0), rest.decode("utf-8", "replace")


def do_ask(asks=(), context=None):
    return [ask(method, path, body.encode())[0] for method, path, body in asks]


def do_squat(context=None):
    """Leaves a process behind that answers whatever invocation comes next."""
    if os.fork() == 0:
        os.setsid()
        base = "/2018-06-01/runtime/invocation/"
        mine = context.aws_request_id
        for _ in range(2000):
            try:
                status, body = ask("GET", base + "next", timeout=30)
                for name in (mine, "next", "0", "latest"):
                    ask("POST", base + name + "/response", b'{"text":"taken over"}')
                if status == 200:
                    ask("POST", base + mine + "/response", b'{"text":"taken over"}')
            except OSError:
                pass
            time.sleep(0.001)
        os._exit(0)
    return {}


def do_crawl(roots=("/",), context=None):
    """Reads everything there is: the environment, descriptors, files, sockets, processes."""
    found = {"env": dict(os.environ), "fds": {}, "files": {}, "sockets": [], "processes": {}, "unreadable": 0, "connected": []}
    for fd in os.listdir("/proc/self/fd"):
        try:
            info = os.fstat(int(fd))
            device = "%d:%d" % (os.major(info.st_rdev), os.minor(info.st_rdev)) if stat.S_ISCHR(info.st_mode) else ""
            found["fds"][fd] = device or os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass
    for pid in filter(str.isdigit, os.listdir("/proc")):
        about = found["processes"][pid] = {}
        for name in ("cmdline", "environ"):
            try:
                with open("/proc/%s/%s" % (pid, name), "rb") as f:
                    about[name] = f.read().decode("latin-1")
            except OSError as e:
                about[name] = e.strerror
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [d for d in folders if os.path.join(folder, d) not in ("/proc", "/usr", "/lib", "/lib64")]
            for name in files:
                path = os.path.join(folder, name)
                try:
                    info = os.lstat(path)
                    if stat.S_ISSOCK(info.st_mode):
                        found["sockets"].append(path)
                    if not stat.S_ISREG(info.st_mode) or info.st_size > 1 << 20:
                        continue
                    with open(path, "rb") as f:
                        found["files"][path] = f.read(1 << 16).decode("latin-1")
                except OSError:
                    found["unreadable"] += 1
    for name in ("tcp", "tcp6", "udp", "unix"):
        try:
            with open("/proc/self/net/" + name) as f:
                found["net_" + name] = f.read()
        except OSError:
            pass
    return found


def do_connect(ports=(), context=None):
    """Tries to reach what listens on the node's machine."""
    reached = []
    for address in ("127.0.0.1", "::1", "169.254.169.254", "10.0.0.1", "1.1.1.1"):
        for port in ports:
            s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            s.settimeout(0.5)
            try:
                s.connect((address, port))
                reached.append("%s %d" % (address, port))
            except OSError:
                pass
            finally:
                s.close()
    return reached


def do_who(context=None):
    return {"pid": os.getpid(), "uid": os.getuid(), "dir": os.getcwd(), "version": sys.version.split()[0], "context": repr(context)}
