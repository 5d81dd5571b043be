"""An object store that is lost in the middle of a build, and comes back: the build goes on to the same rows.

    python tests/oracles/lost_store.py MODEL ROWS.jsonl [--engine ray --workers 2]

A server with Amazon's S3 interface (moto) is stopped once some versions of the index are there. The build must end with
one clear line. When the server is back, the same command with --resume must give the rows of an undisturbed build.
Prints one JSON object. It takes a minute or two, so that no test runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

import boto3
import lance
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
VERSIONS = 6
"""So many versions of the index are there before the store is lost."""


def main() -> None:
    model, rows, *engine = sys.argv[1:]
    server = started(0)
    port = server.get_host_and_port()[1]
    os.environ |= {**KEYS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    store = boto3.client("s3")
    store.create_bucket(Bucket="lost")

    def build(out: str, *more: str) -> list[str]:
        given = ["--model", model, "--data", rows, "--block-rows", "4", "--device", "cpu"]
        return [sys.executable, "-m", "headwater", "index", "build", out, *given, *more]

    def versions() -> int:
        return sum("/_versions/" in key["Key"] for key in store.list_objects_v2(Bucket="lost").get("Contents", []))

    job = subprocess.Popen(
        build("s3://lost/x.lance", *engine), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while job.poll() is None and versions() < VERSIONS:
        time.sleep(0.2)
    server.stop()
    began = time.time()
    said, _ = job.communicate(timeout=400)
    seconds = round(time.time() - began, 1)
    server = started(port)
    resumed = subprocess.run(
        build("s3://lost/x.lance", "--resume", *engine), capture_output=True, text=True, check=False
    )
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(build(f"{folder}/clean.lance"), check=True, capture_output=True)
        clean = lance.dataset(f"{folder}/clean.lance").to_table()
    options = {name.lower(): value for name, value in os.environ.items() if name.startswith("AWS")}
    found = lance.dataset("s3://lost/x.lance", storage_options=options).to_table() if not resumed.returncode else None
    server.stop()
    last = [line for line in said.splitlines() if line.startswith("headwater:")]
    codes = {"lost": job.returncode, "resumed": resumed.returncode}
    print(json.dumps({"codes": codes, "seconds until it ended": seconds, "said": last, "equal": found == clean}))


def started(port: int) -> ThreadedMotoServer:
    """A server; what an earlier one of this process held is still there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


if __name__ == "__main__":
    main()
