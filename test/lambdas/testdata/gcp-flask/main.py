# The Python service of Cloud Run's quickstart, with a second route.
import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.route("/gcp-flask/")
def hello_world():
    """Example Hello World route."""
    name = os.environ.get("NAME", "World")
    return f"Hello {name}!"


@app.route("/gcp-flask/upload", methods=["PUT"])
def upload():
    return jsonify(bytes=len(request.get_data()), type=request.content_type), 201


if __name__ == "__main__":
    app.run(debug=False, host="0.0.0.0", port=int(os.environ.get("PORT", 8080)))
