"""Sharded checkpoints on S3, over boto3: `s3://bucket/prefix` in place of a folder.

An object appears whole or not at all, so a killed save leaves the last checkpoint as it was. The endpoint, credentials
and region are boto3's (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_REGION, …); parts of an upload have 64 MiB.
"""

import io
import os
import tempfile
from contextlib import contextmanager

from trainyard_parallel.errors import SMPRuntimeError

from torch.sagemaker.distributed.checkpoint.filesystem import INDEX, ReplacingFileSystem

PART_BYTES = 64 * 2**20


def is_s3_uri(path):
    return str(path).startswith("s3://")


def split(uri):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


class Range(io.RawIOBase):
    """An object that is read by ranges, as loading asks for them."""

    def __init__(self, client, place):
        self.client, self.place, self.at = client, place, 0
        self.size = client.head_object(**place)["ContentLength"]

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=os.SEEK_SET):
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer):
        if self.at >= self.size or not len(buffer):
            return 0
        end = min(self.at + len(buffer), self.size) - 1
        data = self.client.get_object(**self.place, Range=f"bytes={self.at}-{end}")["Body"].read()
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


class S3FileSystem(ReplacingFileSystem):
    def __init__(self, region=None, config=None):
        try:
            import boto3
            from boto3.s3.transfer import TransferConfig
        except ImportError as error:
            raise SMPRuntimeError(f"a checkpoint on S3 needs boto3 ({error}); install it or save to a folder") from error
        self.client = boto3.client("s3", region_name=region, config=config)
        self.transfer = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)

    @contextmanager
    def create_stream(self, path, mode):
        if "r" in mode:
            with io.BufferedReader(Range(self.client, split(path)), 8 * 2**20) as stream:
                yield stream
            return
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "object")
            with open(name, mode) as stream:
                yield stream
            self.client.upload_file(name, *split(path).values(), Config=self.transfer)

    def concat_path(self, path, suffix):
        return f"{str(path).rstrip('/')}/{suffix}"

    def init_path(self, path):
        return str(path)

    def mkdir(self, path):
        pass

    def rename(self, path, new_path):
        self.client.copy(split(path), *split(new_path).values(), Config=self.transfer)
        self.client.delete_object(**split(path))

    def exists(self, path):
        return any(name == path for name in self.ls(path, exact=True))

    def rm_file(self, path):
        if os.path.basename(path) != INDEX:
            self.client.delete_object(**split(path))

    def ls(self, path, exact=False):
        place = split(path)
        prefix = place["Key"] if exact else place["Key"].rstrip("/") + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=place["Bucket"], Prefix=prefix)
        return [f"s3://{place['Bucket']}/{found['Key']}" for page in pages for found in page.get("Contents", [])]
