"""Folders of sharded checkpoints that a killed save leaves as they were, also when it writes over an older one.

torch's writer puts data into files of fixed names and takes the index `.metadata` away before it renames the new one to
that name. Here every save has data files of its own, the new index replaces the old one in one instant, and what it does
not name is removed last.
"""

import dataclasses
import os
import uuid

from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystem

INDEX, DATA = ".metadata", ".distcp"


class ReplacingFileSystem(FileSystem):
    def rm_file(self, path):
        # Only ever asked for right before another file gets this name.
        if os.path.basename(path) != INDEX:
            super().rm_file(path)

    def rename(self, path, new_path):
        os.replace(path, new_path)


class DistributedFileSystemWriter(FileSystemWriter):
    """Writes a sharded checkpoint to the folder `path` (or to what `fs` names so); other options as FileSystemWriter."""

    def __init__(self, path, fs=None, **options):
        super().__init__(path, **options)
        self.fs = fs or ReplacingFileSystem()
        self.path = self.fs.init_path(path)

    def prepare_global_plan(self, plans):
        own = uuid.uuid4().hex[:12]
        return [
            dataclasses.replace(plan, storage_data=dataclasses.replace(plan.storage_data, prefix=f"{own}{plan.storage_data.prefix}"))
            for plan in super().prepare_global_plan(plans)
        ]

    def finish(self, metadata, results):
        super().finish(metadata, results)
        kept = {written.storage_data.relative_path for part in results for written in part}
        for path in self.fs.ls(self.path):
            name = os.path.basename(path)
            if name.endswith(DATA) and name not in kept:
                self.fs.rm_file(path)


class DistributedFileSystemReader(FileSystemReader):
    """Reads a sharded checkpoint from the folder `path` (or from what `fs` names so)."""

    def __init__(self, path, fs=None):
        super().__init__(path)
        self.fs = fs or ReplacingFileSystem()
        self.path = self.fs.init_path(path)
