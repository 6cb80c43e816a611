"""Writes packages/api/src/generated/boto3-presigned.fixture.json: URLs as boto3 presigns them by default.

    python tools/generate-api/boto3_presigned.py

No request is made. The clock is fixed, so that the file changes only when boto3 does.
"""

import json
import pathlib
from unittest import mock
from urllib.parse import urlsplit

import boto3

TARGET = pathlib.Path(__file__).resolve().parents[2] / "packages/api/src/generated/boto3-presigned.fixture.json"

CALLS = [
    ("GET", "get_object", {"Key": "a b/ü+~.txt"}),
    ("GET", "get_object", {"Key": "k", "ResponseContentDisposition": 'attachment; filename="x y.txt"', "VersionId": "v1"}),
    ("PUT", "put_object", {"Key": "k", "ContentType": "text/plain", "Metadata": {"owner": "me"}}),
    ("PUT", "upload_part", {"Key": "k", "PartNumber": 2, "UploadId": "u+/="}),
    ("GET", "list_objects_v2", {"Prefix": "p/"}),
    ("DELETE", "delete_object", {"Key": "k"}),
    ("HEAD", "head_object", {"Key": "k"}),
]


def presigned(token):
    client = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:8080",
        region_name="us-west-2",
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="secret/KEY+1",
        aws_session_token=token,
    )
    for method, operation, parameters in CALLS:
        with mock.patch("botocore.auth.time.time", return_value=1_795_000_000.0):
            url = client.generate_presigned_url(operation, Params={"Bucket": "b", **parameters}, ExpiresIn=900)
        parts = urlsplit(url)
        yield {"operation": operation, "method": method, "token": token, "target": f"{parts.path}?{parts.query}"}


def main():
    rows = [row for token in (None, "FwoGZXIvYXdzEXAMPLE/+=") for row in presigned(token)]
    TARGET.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
