"""From audio files on disk to a stream of log-mel batches."""
