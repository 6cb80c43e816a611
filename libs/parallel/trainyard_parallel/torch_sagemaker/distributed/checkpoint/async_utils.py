"""`torch.sagemaker.distributed.checkpoint.async_utils`."""


class AsyncCallsQueue:
    """Saves that go on beside the training, in the order in which they began."""

    def __init__(self):
        self.running, self.count = [], 0

    def add(self, future):
        self.running.append((self.count, future))
        self.count += 1

    def maybe_finalize_async_calls(self, blocking=False, process_group=None, skip_sync=False):
        """Numbers of saves that have ended on this rank, oldest first; raises what a save raised.

        Waits for all when `blocking`. A save ends on no rank before all its ranks have written, so ranks need not
        meet here: `process_group` and `skip_sync` have no effect.
        """
        finished = []
        while self.running and (blocking or self.running[0][1].done()):
            number, future = self.running.pop(0)
            future.result()
            finished.append(number)
        return finished

    def get_num_unfinalized_calls(self):
        return len(self.running)

    def close(self):
        self.maybe_finalize_async_calls(blocking=True)
