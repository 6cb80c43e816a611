"""Where sharded checkpoints of version 2 lie: folders and S3; a killed save leaves the last one as it was."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from test_v2 import initialise

ROOT = Path(__file__).resolve().parents[3]
SAVED = """
import os, sys, torch, trainyard_parallel
from torch.sagemaker.distributed.checkpoint.state_dict_saver import save

class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), 9)

values = {"w": torch.full((4,), float(sys.argv[2]))}
if sys.argv[3] == "killed":
    values["then"] = Deadly()
save(values, checkpoint_id=sys.argv[1])
"""


def save(path, value, how):
    return subprocess.run([sys.executable, "-c", SAVED, str(path), str(value), how], timeout=120, capture_output=True).returncode


def read(path):
    from torch.sagemaker.distributed.checkpoint.state_dict_loader import load

    values = {"w": torch.zeros(4)}
    load(values, checkpoint_id=str(path))
    return values["w"].tolist()


def test_a_killed_save_over_an_older_one_leaves_it_whole(tmp_path):
    assert save(tmp_path, 1, "") == 0
    assert save(tmp_path, 2, "killed") == -9
    assert read(tmp_path) == [1] * 4
    assert save(tmp_path, 3, "") == 0
    assert read(tmp_path) == [3] * 4
    # Nothing of the older saves is left.
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name != ".metadata") == [".distcp"]


def on_s3(rank, environment, uri):
    from torch.distributed.tensor import Shard, distribute_tensor

    os.environ.update(environment)
    tsm = initialise({})
    from torch.sagemaker.distributed.checkpoint import state_dict_loader, state_dict_saver

    whole = torch.arange(12.0).reshape(6, 2)
    value = distribute_tensor(whole, tsm.state.mesh["shard"], [Shard(0)])
    state_dict_saver.save({"w": value}, checkpoint_id=f"{uri}/a")
    state_dict_saver.async_save({"w": value}, checkpoint_id=f"{uri}/a")
    state_dict_saver.maybe_finalize_async_calls(blocking=True)
    found = distribute_tensor(torch.zeros(6, 2), tsm.state.mesh["shard"], [Shard(0)])
    state_dict_loader.load({"w": found}, checkpoint_id=f"{uri}/a")
    return bool((found.full_tensor() == whole).all())


@pytest.fixture
def s3(tmp_path):
    """The environment of a client of Trainyard's own S3, run for this test."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    program = ROOT / "bin/trainyard"
    if not (ROOT / "packages/cli/dist/trainyard.mjs").exists() or not (ROOT / ".trainyard/env").exists():
        pytest.skip("the service is not built; script/bootstrap builds it")
    data = tmp_path / "data"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([program, "serve", "--data", data, "--port", "0"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (data / "service.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        url = json.loads((data / "service.json").read_text())["url"]
        keys = json.loads((data / "credentials.json").read_text())
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": keys["accessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["secretAccessKey"],
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=keys["accessKeyId"],
            aws_secret_access_key=keys["secretAccessKey"],
        )
        client.create_bucket(Bucket="checkpoints")
        yield environment
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_checkpoint_on_s3_loads_again(worlds, s3):
    assert worlds(2).run(on_s3, s3, "s3://checkpoints/run-1") == [True, True]
