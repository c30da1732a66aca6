"""The job queue: job types, the queue and its worker, storage, progress events."""
