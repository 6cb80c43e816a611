"""Scenarios of unmodified boto3 against the service; prints what the test compares as one line of JSON.

Usage: s3-boto3.py SCENARIO BUCKET [ARGUMENT…], with the AWS variables of the service in the environment.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import io
import json
import os
import sys
import urllib.parse
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError


def client(**options):
    return boto3.client("s3", config=Config(retries={"max_attempts": 1}, **options))


def code_of(call, **arguments):
    """The error code of a call that must fail, with its HTTP status."""
    try:
        call(**arguments)
    except ClientError as error:
        return [error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]]
    return None


def round_trip(bucket):
    """Small objects: from memory, from a file, with metadata; the checksum is verified by boto3 itself."""
    s3 = client()
    s3.put_object(Bucket=bucket, Key="small", Body=b"hello", Metadata={"name": "value"}, ContentType="text/plain")
    got = s3.get_object(Bucket=bucket, Key="small", ChecksumMode="ENABLED")
    s3.put_object(Bucket=bucket, Key="file", Body=io.BytesIO(b"x" * 3_000_000))
    return {
        "body": got["Body"].read().decode(),
        "metadata": got["Metadata"],
        "contentType": got["ContentType"],
        "checksum": got["ChecksumCRC32"],
        "fileBytes": s3.head_object(Bucket=bucket, Key="file")["ContentLength"],
        "missing": code_of(s3.head_object, Bucket=bucket, Key="none"),
        "missingBucket": code_of(s3.head_bucket, Bucket="no-such-bucket"),
        "location": s3.get_bucket_location(Bucket=bucket)["LocationConstraint"],
        "buckets": [entry["Name"] for entry in s3.list_buckets()["Buckets"]],
    }


def odd_keys(bucket):
    """Keys that a path would not survive: put, listed, read and deleted under exactly their names."""
    s3 = client()
    keys = json.loads(sys.stdin.read())
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    listed = [entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket) for entry in page.get("Contents", [])]
    bodies = [s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys]
    copied = []
    for key in keys:
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
        copied.append(s3.get_object(Bucket=bucket, Key="copy")["Body"].read().decode())
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys + ["copy"]]})
    return {
        "listed": listed,
        "bodies": bodies,
        "copied": copied,
        "deleted": len(answer["Deleted"]),
        "left": s3.list_objects_v2(Bucket=bucket)["KeyCount"],
    }


def multipart(bucket):
    """A file-like body in parts by the transfer manager, one range, one part."""
    s3 = client()
    data = os.urandom(12 << 20)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_fileobj(io.BytesIO(data), bucket, "multipart", Config=config)
    down = io.BytesIO()
    s3.download_fileobj(bucket, "multipart", down, Config=config)
    head = s3.head_object(Bucket=bucket, Key="multipart", ChecksumMode="ENABLED", PartNumber=2)
    ranged = s3.get_object(Bucket=bucket, Key="multipart", Range="bytes=5242875-5242885")
    s3.copy({"Bucket": bucket, "Key": "multipart"}, bucket, "multipart-copy", Config=config)
    copy = s3.get_object(Bucket=bucket, Key="multipart-copy")["Body"].read()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="aborted")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="aborted", UploadId=upload, PartNumber=1, Body=b"x")
    pending = [entry["Key"] for entry in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]
    parts = [part["Size"] for part in s3.list_parts(Bucket=bucket, Key="aborted", UploadId=upload)["Parts"]]
    s3.abort_multipart_upload(Bucket=bucket, Key="aborted", UploadId=upload)
    return {
        "equal": down.getvalue() == data,
        "copyEqual": copy == data,
        "range": ranged["Body"].read() == data[5242875:5242886],
        "contentRange": ranged["ContentRange"],
        "partBytes": head["ContentLength"],
        "partsCount": head["PartsCount"],
        "pending": pending,
        "parts": parts,
        "left": s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []),
    }


def idempotent_completion(bucket):
    """A completion whose answer was lost is sent again."""
    s3 = client()
    target = {"Bucket": bucket, "Key": "twice"}
    upload = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"hello", ChecksumAlgorithm="SHA256")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]}
    answers = [s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload=parts) for _ in range(2)]
    return {"etags": [answer["ETag"] for answer in answers], "checksums": [answer["ChecksumSHA256"] for answer in answers]}


def listing(bucket):
    """Every page of a listing, by both versions of the operation, and a folder view of it."""
    s3 = client()
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="many/"))
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    first = [entry.key for entry in boto3.resource("s3").Bucket(bucket).objects.filter(Prefix="many/")]
    odd_pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="many/", PaginationConfig={"PageSize": 333}))
    folders = s3.list_objects_v2(Bucket=bucket, Prefix="many/", Delimiter="/")
    return {
        "pages": len(pages),
        "total": len(keys),
        "unique": len(set(keys)),
        "sorted": keys == sorted(keys),
        "sameInVersion1": first == keys,
        "sameInSmallPages": [entry["Key"] for page in odd_pages for entry in page["Contents"]] == keys,
        "folders": [entry["Prefix"] for entry in folders["CommonPrefixes"]],
    }


def delete_batch(bucket):
    s3 = client()
    keys = [entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="many/") for entry in page["Contents"]]
    deleted = 0
    for at in range(0, len(keys), 1000):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[at : at + 1000]]})
        deleted += len(answer["Deleted"])
    return {"deleted": deleted, "left": s3.list_objects_v2(Bucket=bucket, Prefix="many/")["KeyCount"]}


def conditions(bucket):
    s3 = client()
    target = {"Bucket": bucket, "Key": "conditional"}
    created = s3.put_object(**target, Body=b"one", IfNoneMatch="*")
    again = code_of(s3.put_object, **target, Body=b"two", IfNoneMatch="*")
    stale = code_of(s3.put_object, **target, Body=b"two", IfMatch='"0"')
    s3.put_object(**target, Body=b"two", IfMatch=created["ETag"])
    current = s3.get_object(**target)
    return {
        "again": again,
        "stale": stale,
        "body": current["Body"].read().decode(),
        "notModified": code_of(s3.get_object, **target, IfNoneMatch=current["ETag"]),
        "failed": code_of(s3.get_object, **target, IfMatch='"0"'),
        "modified": code_of(s3.get_object, **target, IfUnmodifiedSince=datetime.datetime(2020, 1, 1)),
    }


def refusals(bucket):
    s3 = client()
    access = os.environ["AWS_ACCESS_KEY_ID"]
    wrong = boto3.client("s3", aws_access_key_id=access, aws_secret_access_key="wrong")
    unknown = boto3.client("s3", aws_access_key_id="AKIDUNKNOWN", aws_secret_access_key="wrong")
    put = {"Bucket": bucket, "Key": "refused", "Body": b"hello"}
    return {
        "checksum": code_of(s3.put_object, **put, ChecksumCRC32="AAAAAA=="),
        "sha256": code_of(s3.put_object, **put, ChecksumSHA256=base64.b64encode(bytes(32)).decode()),
        "md5": code_of(s3.put_object, **put, ContentMD5=base64.b64encode(bytes(16)).decode()),
        "wrongSecret": code_of(wrong.put_object, **put),
        "unknownKey": code_of(unknown.put_object, **put),
        "acl": code_of(s3.get_object_acl, Bucket=bucket, Key="refused"),
        "tagging": code_of(s3.put_object, **put, Tagging="a=b"),
        "owner": code_of(s3.put_object, **put, ExpectedBucketOwner="999999999999"),
        "notEmpty": code_of(s3.delete_bucket, Bucket=bucket),
        "owned": code_of(s3.create_bucket, Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}),
        "stored": code_of(s3.head_object, Bucket=bucket, Key="refused"),
    }


def checksums(bucket):
    """Every algorithm that plain boto3 computes; it verifies the answer against the body itself."""
    s3 = client()
    found = {}
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        s3.put_object(Bucket=bucket, Key="summed", Body=b"123456789", ChecksumAlgorithm=algorithm)
        got = s3.get_object(Bucket=bucket, Key="summed", ChecksumMode="ENABLED")
        got["Body"].read()
        found[algorithm] = base64.b64decode(got[f"Checksum{algorithm}"]).hex()
    for algorithm, value in [("CRC32C", "e3069283"), ("CRC64NVME", "ae8b14860a799888")]:
        given = {f"Checksum{algorithm}": base64.b64encode(bytes.fromhex(value)).decode()}
        s3.put_object(Bucket=bucket, Key="summed", Body=b"123456789", **given)
        head = s3.head_object(Bucket=bucket, Key="summed", ChecksumMode="ENABLED")
        found[algorithm] = base64.b64decode(head[f"Checksum{algorithm}"]).hex()
    return found


def presigned(bucket, version):
    """URLs for other programs. Without a version boto3 signs them with SigV2."""
    s3 = client(**({} if version == "default" else {"signature_version": version}))
    key = "pre signed/é+&"
    return {
        "put": s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": key}),
        "get": s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key, "ResponseContentType": "a/b"}),
        "expired": s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=-10 if version == "default" else 1),
    }


def chunked(bucket, form):
    """aws-chunked bodies as older SDKs and other languages send them, signed by this independent implementation."""
    endpoint = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
    secret, access = os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"]
    data = bytes(range(256)) * 300
    signed, trailed = "unsigned" not in form, "trailer" in form
    payload_hash = f"STREAMING-{'AWS4-HMAC-SHA256-PAYLOAD' if signed else 'UNSIGNED-PAYLOAD'}{'-TRAILER' if trailed else ''}"
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-west-2/s3/aws4_request"

    def mac(key, text):
        return hmac.new(key, text.encode(), hashlib.sha256)

    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = mac(key, part).digest()
    headers = {
        "content-encoding": "aws-chunked",
        "host": endpoint.netloc,
        "x-amz-content-sha256": payload_hash,
        "x-amz-date": now,
        "x-amz-decoded-content-length": str(len(data)),
    }
    if trailed:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    target = f"/{bucket}/chunked-{form}"
    names = ";".join(sorted(headers))
    canonical = "\n".join(["PUT", target, "", *[f"{name}:{headers[name]}" for name in sorted(headers)], "", names, payload_hash])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = mac(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}").hexdigest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"

    body = b""
    for chunk in [data[:65536], data[65536:], b""]:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{now}\n{scope}\n{signature}\n{hashlib.sha256(b'').hexdigest()}\n{hashlib.sha256(chunk).hexdigest()}"
        signature = mac(key, text).hexdigest()
        body += f"{len(chunk):x}{f';chunk-signature={signature}' if signed else ''}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailed:
        checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        line = f"x-amz-checksum-crc32:{checksum}"
        body += f"{line}\r\n".encode()
        if signed:
            line_hash = hashlib.sha256(f"{line}\n".encode()).hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{now}\n{scope}\n{signature}\n{line_hash}"
            body += f"x-amz-trailer-signature:{mac(key, text).hexdigest()}\r\n".encode()
    body += b"\r\n"
    if "tampered" in form:
        body = body.replace(b"\x00\x01\x02", b"\x00\x01\x03", 1)

    connection = http.client.HTTPConnection(endpoint.netloc)
    connection.request("PUT", target, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        return {"status": answer.status, "code": text.partition("<Code>")[2].partition("</Code>")[0]}
    got = client().get_object(Bucket=bucket, Key=f"chunked-{form}")
    return {"status": 200, "equal": got["Body"].read() == data, "encoding": got.get("ContentEncoding", "")}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
